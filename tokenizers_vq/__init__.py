"""Discrete tokenizers for images, audio, video and 3D: any quantizer head on any backbone.

>>> import tokenizers_vq
>>> tok = tokenizers_vq.load(name)      # doctest: +SKIP
>>> codes = tok.encode(x)               # doctest: +SKIP
>>> x_hat = tok.decode(codes)           # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers_vq.hub import list_pretrained as list  # noqa: F401 (kept out of `import *`)
    from tokenizers_vq.hub import load, push
    from tokenizers_vq.posttraining import fit
    from tokenizers_vq.published import from_published
    from tokenizers_vq.tokenizer import Tokenizer
    from tokenizers_vq.types import Codes, Quantized, Reconstruction, SignalSpec

__version__ = "0.1.0"
__all__ = [
    "Codes",
    "Quantized",
    "Reconstruction",
    "SignalSpec",
    "Tokenizer",
    "fit",
    "from_published",
    "load",
    "push",
]

_WHERE = {
    "Codes": "tokenizers_vq.types:Codes",
    "Quantized": "tokenizers_vq.types:Quantized",
    "Reconstruction": "tokenizers_vq.types:Reconstruction",
    "SignalSpec": "tokenizers_vq.types:SignalSpec",
    "Tokenizer": "tokenizers_vq.tokenizer:Tokenizer",
    "fit": "tokenizers_vq.posttraining:fit",
    "from_published": "tokenizers_vq.published:from_published",
    "list": "tokenizers_vq.hub:list_pretrained",
    "load": "tokenizers_vq.hub:load",
    "push": "tokenizers_vq.hub:push",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562), so that importing stays cheap."""
    if name not in _WHERE:
        raise AttributeError(f"module 'tokenizers_vq' has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> "Sequence[str]":
    """Name the lazy attributes too."""
    return sorted([*globals(), *_WHERE])
