"""DINOv2 and CLIP features by timm, from local files; nothing is downloaded.

Reference:
    Stein et al., Exposing Flaws of Generative Model Evaluation Metrics, 2023 (FD on DINOv2);
    Jayasumana et al., Rethinking FID, 2024 (CLIP). The published files have no hash in their names,
    so the hash of the file that was used is part of the extractor's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.metrics.extractors import Features, Remembering
from tokenizers_vq.metrics.weights import find_weights


@dataclass(frozen=True)
class Recipe:
    """A network and how pictures get into it.

    Attributes:
        key: of the weights file.
        model: name in timm.
        side: pixels; pictures are resized to it by torch's antialiased bicubic, clipped, in float.
        classes: width of the projection; 0 for the class token behind the last norm.
        mean: per channel, of pixels in [0, 1].
        std: likewise.
    """

    key: str
    model: str
    side: int
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


RECIPES = {
    "dinov2": Recipe(
        "dinov2-vitl14", "vit_large_patch14_dinov2", 224, 0,
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
    ),
    "clip": Recipe(
        "clip-vitl14-336", "vit_large_patch14_clip_336", 336, 768,
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711),
    ),
}  # fmt: skip


class Vit(Remembering):
    """The class token of a vision transformer, or its projection.

    Args:
        recipe: which, and how.
        weights: ``{recipe.key: file}``, safetensors or a torch file of plain tensors in timm's key
            names.

    Raises:
        MissingExtraError: the file is not on this machine.
        CheckpointError: the file does not fit the network.
    """

    def __init__(self, recipe: Recipe, weights: Mapping[str, str] | None = None) -> None:
        import timm

        super().__init__()
        path = find_weights(recipe.key, weights)
        options = {"pretrained": False, "num_classes": recipe.classes, "img_size": recipe.side}
        self.network = timm.create_model(recipe.model, **options)
        try:
            self.network.load_state_dict(_read(path), strict=True)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise CheckpointError(
                f"weights {recipe.key}: expected timm's {recipe.model} in '{path}'; got another "
                f"file ({first:.120}). Give timm's file."
            ) from error
        self.network.eval().requires_grad_(requires_grad=False)
        self.recipe = recipe
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        self.id = f"{recipe.model}-{digest}/bicubic-{recipe.side}"
        self.dim = recipe.classes or int(self.network.num_features)

    def features(self, images: Tensor) -> Features:
        """Return the features of uint8 images ``(B, 3, H, W)``; they have no logits."""
        side = self.recipe.side
        x = interpolate(images.float(), (side, side), mode="bicubic", antialias=True)
        x = x.clamp(0, 255) / 255
        mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in (self.recipe.mean, self.recipe.std))
        pooled = self.network((x - mean) / std)
        return Features(pooled, pooled[:, :0])


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
