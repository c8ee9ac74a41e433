"""The state of one evaluation of videos: what is not as with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import image_codecs, video_codecs
from tokenizers_vq.evaluation.baselines import Baselines
from tokenizers_vq.evaluation.image_run import ImageRun
from tokenizers_vq.evaluation.video_codecs import SCALES, code_video
from tokenizers_vq.evaluation.video_protocol import VideoProtocol

RATE = 25.0  # frames per second that codecs are told where the protocol says none


class VideoBaselines(Baselines):
    """Anchors and codecs of videos, clip by clip."""

    protocol: VideoProtocol
    curve: Mapping[str, Any] = MappingProxyType(
        {"name": "frames", "of": [{"name": "similarity", "names": ["psnr", "ssim"]}]}
    )

    def missing(self, codec: str) -> str:
        """Return why a codec cannot be measured, empty if it can."""
        return video_codecs.missing(codec)

    def anchor(self, name: str, picture: Tensor) -> Tensor:
        """Return the trivial reconstruction ``name`` of a uint8 clip ``(3, T, H, W)``."""
        return ANCHOR_CLIPS[name](picture)

    def code(
        self, requests: Sequence[image_codecs.Request], codec: str
    ) -> list[dict[str, list[image_codecs.Encoded]]]:
        """Return what a codec makes of clips, at their own size and at its best scale."""
        rate, options = self.protocol.frame_rate or RATE, self.protocol.codecs[codec]

        def coded(request: image_codecs.Request, budget: int, scales: Sequence[float]) -> Any:
            one = code_video(request.image, codec, budget, rate, scales, options)
            return image_codecs.Encoded(one.video, one.n_bytes, -one.crf, one.scale, one.fits)

        return [
            {
                "own_size": [coded(request, request.budgets[request.equal], (1.0,))],
                "best_scale": [coded(request, budget, SCALES) for budget in request.budgets],
            }
            for request in requests
        ]


class VideoRun(ImageRun):
    """One evaluation of videos; see ``ImageRun``.

    Raises:
        ConfigError: the tokenizer is not one of videos.
    """

    item = per = "clip"
    baselines_of = VideoBaselines

    def __init__(self, tokenizer: Any, *args: Any) -> None:
        kind = getattr(getattr(tokenizer, "signal", None), "kind", "video")
        if kind != "video":
            raise ConfigError(
                f"evaluate: expected a tokenizer of videos; got one of {kind}. "
                "Choose a protocol of its kind."
            )
        super().__init__(tokenizer, *args)

    def data_facts(self) -> dict[str, Any]:
        """Return that these are clips."""
        return {"unit": "clips"}

    def numbers(self) -> dict[str, Any]:
        """Return scores, speed, anchors and codecs, and which codecs are missing."""
        reasons = {codec: video_codecs.missing(codec) for codec in self.protocol.codecs}
        skipped = {codec: reason for codec, reason in reasons.items() if reason}
        return {**super().numbers(), "skipped_codecs": skipped}

    def missing(self, result: Mapping[str, Any]) -> list[str]:
        """Return the metrics and codecs a result lacks, each with its reason."""
        return super().missing(result) + list(result["skipped_codecs"].values())

    def save_pixels(self, place: Path, name: str, pixels: np.ndarray) -> None:
        """Write a clip ``(T, H, W, 3)``."""
        np.save(place / f"{name}.npy", pixels)


def video_dataset(name: str, protocol: VideoProtocol) -> tuple[Any, str]:
    """Return the clips of a folder, or the held-out part of a data set in ``conf/data``.

    Raises:
        ConfigError: there is neither such a folder nor such a data set.
        DataError: the folder has no clip of that many frames.
    """
    from tokenizers_vq.data.video import VideoFolder
    from tokenizers_vq.evaluation.entry import dataset_from

    if not Path(name).is_dir():
        return dataset_from(name)
    folder = VideoFolder(name, protocol.frames, protocol.size, protocol.frame_rate)
    return folder, Path(name).resolve().name


def _same(clip: Tensor) -> Tensor:
    return clip.clone()


def _first_frame(clip: Tensor) -> Tensor:
    return clip[:, :1].expand_as(clip).contiguous()


def _mean_colour(clip: Tensor) -> Tensor:
    mean = clip.double().mean((1, 2, 3), keepdim=True).round().to(torch.uint8)
    return mean.expand_as(clip).contiguous()


ANCHOR_CLIPS = {"identity": _same, "first_frame": _first_frame, "mean_colour": _mean_colour}
