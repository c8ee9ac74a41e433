"""Features of captions by CLIP's text tower, for decoders that read one."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from tokenizers_vq.errors import MissingExtraError, ShapeError, check_shape

TEXT_TOKENS, TEXT_WIDTH = 77, 768  # of CLIP ViT-L/14
OPEN_CLIP = ("ViT-L-14-336", "openai")
TRANSFORMERS = "openai/clip-vit-large-patch14-336"

Tower = Callable[[Sequence[str]], Tensor]


def features_of(text: Tensor | Sequence[str] | None, z_q: Tensor) -> Tensor:
    """Return the features ``(B, 77, 768)`` of captions, on the device and in the dtype of ``z_q``.

    Args:
        text: B captions; their features, which are returned as they are; or None for zeros.
        z_q: ``(B, n, D)``, the latents that they go with.

    Raises:
        ShapeError: another number of captions, or features of another shape.
        MissingExtraError: captions without a package that has the text tower.
    """
    batch = z_q.shape[0]
    if text is None:
        return z_q.new_zeros(batch, TEXT_TOKENS, TEXT_WIDTH)
    if isinstance(text, Tensor):
        check_shape(text, f"B {TEXT_TOKENS} {TEXT_WIDTH}", "decode text", "Or pass strings.")
    elif isinstance(text, str):
        text = [text]
    if len(text) != batch:
        raise ShapeError(
            f"decode text: expected {batch} captions, one per item; got {len(text)}. "
            "Repeat one for all items."
        )
    return (text if isinstance(text, Tensor) else tower()(text)).to(z_q)


@cache
def tower() -> Tower:
    """Return the text tower, loaded once: captions to ``(B, 77, 768)``, after its last norm.

    Raises:
        MissingExtraError: neither open_clip nor transformers is installed.
    """
    if find_spec("open_clip") is not None:
        return _open_clip()
    if find_spec("transformers") is not None:
        return _transformers()
    raise MissingExtraError(
        "decode text: expected open_clip or transformers, whose CLIP reads captions; got neither. "
        f"Run pip install open_clip_torch, or pass features (B, {TEXT_TOKENS}, {TEXT_WIDTH})."
    )


def _open_clip() -> Tower:
    open_clip = import_module("open_clip")
    name, weights = OPEN_CLIP
    # force_quick_gelu: the activation that OpenAI's weights were trained with
    model = open_clip.create_model(name, pretrained=weights, force_quick_gelu=True).eval()
    words = open_clip.get_tokenizer(name)

    @torch.no_grad()
    def encode(captions: Sequence[str]) -> Tensor:
        h = model.token_embedding(words(list(captions))) + model.positional_embedding
        h = model.transformer(h, attn_mask=model.attn_mask)
        features: Tensor = model.ln_final(h)
        return features

    return encode


def _transformers() -> Tower:
    transformers = import_module("transformers")
    model = transformers.CLIPTextModel.from_pretrained(TRANSFORMERS).eval()
    words = transformers.CLIPTokenizer.from_pretrained(TRANSFORMERS)

    @torch.no_grad()
    def encode(captions: Sequence[str]) -> Tensor:
        rows = words(list(captions), max_length=TEXT_TOKENS, truncation=True)["input_ids"]
        # open_clip fills up with 0 instead of the end token, and the released decoders saw that
        tokens = torch.tensor([row + [0] * (TEXT_TOKENS - len(row)) for row in rows])
        features: Tensor = model(tokens).last_hidden_state
        return features

    return encode
