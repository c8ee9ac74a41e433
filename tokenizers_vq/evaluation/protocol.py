"""A protocol: everything that has to be equal before two numbers may stand in one column."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from tokenizers_vq.configs import read_config
from tokenizers_vq.data.transforms import eval_view, to_uint8
from tokenizers_vq.errors import ConfigError, unknown_name, unknown_option
from tokenizers_vq.evaluation.sound_protocol import SoundProtocol

CODE = 1  # counts the changes of the evaluation code that change numbers
ANCHORS = ("identity", "jpeg_q75", "down_up_2x")


@dataclass(frozen=True)
class Protocol:
    """How pictures are prepared, what is measured, and against what.

    The rest is fixed by the code and therefore part of ``CODE``: sRGB as stored, the shorter side
    resized with Pillow's Lanczos filter, the centre square, both sides clipped and rounded half to
    even to uint8, the tokenizer fed with exactly the uint8 picture it is compared with.

    Attributes:
        name: file stem in ``conf/protocol``.
        size: side of the square in pixels; None keeps every picture's own size.
        metrics: configs of registered metrics.
        anchors: trivial reconstructions measured in the same run, from ``ANCHORS``.
        codecs: classic codecs compared at equal bytes, with their Pillow options.
        budgets: multiples of the tokenizer's bytes at which the codecs are measured; holds 1.
        resamples: bootstrap draws.
        batch_size: pictures per encode and decode; throughput depends on it.
        limit: how many pictures, None for all.
        seed: of the bootstrap and of the choice of pictures when ``limit`` is set.

    Raises:
        ConfigError: an anchor does not exist, ``budgets`` lacks 1, or ``limit`` is below 1.
    """

    name: str
    size: int | None = 256
    metrics: Sequence[Mapping[str, Any]] = field(default_factory=lambda: [{"name": "similarity"}])
    anchors: Sequence[str] = ()
    codecs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    budgets: Sequence[float] = (1,)
    resamples: int = 1000
    batch_size: int = 8
    limit: int | None = None
    seed: int = 0

    known_anchors: ClassVar[Sequence[str]] = ANCHORS

    def __post_init__(self) -> None:
        for anchor in self.anchors:
            if anchor not in self.known_anchors:
                raise unknown_name("anchor", anchor, self.known_anchors)
        if self.limit is not None and self.limit < 1:
            raise ConfigError(
                f"protocol '{self.name}': expected a limit of at least 1; got {self.limit}. "
                "Leave it out to measure all."
            )
        if 1 not in self.budgets:
            raise ConfigError(
                f"protocol '{self.name}': expected budgets that hold 1; got {list(self.budgets)}. "
                "The comparison is made at equal bytes."
            )

    @property
    def hash(self) -> str:
        """12 hex digits that differ as soon as anything that changes a number differs."""
        plain = json.dumps({"code": CODE, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        """``name@hash``, printed with every number."""
        return f"{self.name}@{self.hash}"

    def prepare(self, signal: Tensor) -> Tensor:
        """Return a data set's item as the uint8 picture ``(3, h, w)`` that is measured.

        Args:
            signal: ``(3, H, W)`` float32 in [-1, 1].
        """
        pixels = to_uint8(signal)
        if self.size is None or tuple(pixels.shape[1:]) == (self.size, self.size):
            return pixels
        picture = eval_view(Image.fromarray(pixels.permute(1, 2, 0).numpy()), self.size)
        return uint8_tensor(picture)


def uint8_tensor(picture: Image.Image) -> Tensor:
    """Return an RGB picture as uint8 ``(3, H, W)``."""
    width, height = picture.size
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.reshape(height, width, 3).permute(2, 0, 1).contiguous()


def load_protocol(
    protocol: str | Mapping[str, Any] | Protocol | SoundProtocol,
) -> Protocol | SoundProtocol:
    """Return the protocol of a name in ``conf/protocol``, or of plain data.

    Plain data with ``signal: audio`` is a protocol for sound, with ``signal: video`` for videos.

    Raises:
        ConfigError: there is no such protocol, or an option does not exist.
    """
    if isinstance(protocol, Protocol | SoundProtocol):
        return protocol
    config = read_config("protocol", protocol) if isinstance(protocol, str) else dict(protocol)
    made: type[Protocol | SoundProtocol] = Protocol
    if config.get("signal") == "audio":
        made = SoundProtocol
    if config.get("signal") == "video":
        from tokenizers_vq.evaluation.video_protocol import VideoProtocol

        made = VideoProtocol
    known = [one.name for one in fields(made)]
    for option in config:
        if option not in known:
            raise unknown_option("protocol", str(config.get("name")), str(option), known)
    return made(**config)
