"""Targets for tokens: predict the features of a frozen vision network from quantized latents.

Or from an inner layer of the decoder: Yu et al., Representation Alignment for Generation (REPA),
2024, https://arxiv.org/abs/2410.06940, eq. 8.

Contrastive: Bai et al., Factorized Visual Tokenization and Generation (FQGAN), 2024,
https://arxiv.org/abs/2411.16681, section 3.2, whose semantic codebooks learn from CLIP and DINOv2.
Distillation: Xiong et al., GigaTok, 2025, https://arxiv.org/abs/2504.08736, section 3.2, the cosine
per position. Differs from both: any timm model can teach, and the heads have no positions.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, interpolate, normalize

from tokenizers_vq.errors import CheckpointError, ConfigError, ShapeError, unknown_name
from tokenizers_vq.losses.logits import normalised
from tokenizers_vq.types import Reconstruction
from tokenizers_vq.weights import find_file, read_state

LOSSES = ("contrastive", "cosine")
SOURCES = ("z_q", "hidden")

log = logging.getLogger(__name__)


class Teacher:
    """A frozen vision network; not a module, so that it is never saved or trained.

    Args:
        network: a timm model with ``forward_features`` and ``forward_head``.
        size: pixels it wants, ``(H, W)``.
        mean: of each channel of its training images in [0, 1].
        std: their standard deviation.
    """

    def __init__(
        self,
        network: nn.Module,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        frozen: Any = network.eval().requires_grad_(False)
        self._network = frozen
        self.width: int = self._network.num_features
        self._options = (size, mean, std)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Return the feature grid ``(B, C, h, w)`` of images ``(B, 3, H, W)`` in [-1, 1]."""
        made: Tensor = self._run(x)
        if made.ndim == 4:
            return made.float()
        patches = made[:, int(getattr(self._network, "num_prefix_tokens", 0)) :]
        side = round(patches.shape[1] ** 0.5)
        return patches.float().transpose(1, 2).reshape(len(made), -1, side, side)

    @torch.no_grad()
    def summary(self, x: Tensor) -> Tensor:
        """Return one vector ``(B, C)`` per image: the class token where there is one."""
        made: Tensor = self._network.forward_head(self._run(x), pre_logits=True)
        return made.float()

    def _run(self, x: Tensor) -> Tensor:
        if next(self._network.parameters()).device != x.device:
            self._network.to(x.device)
        made: Tensor = self._network.forward_features(normalised(x, *self._options))
        return made


class FeatureTarget(nn.Module):
    """Predicts a teacher's features from some channels of what a model made of the same images.

    A two-layer perceptron per position, then pre-norm transformer layers over a class token and all
    positions.

    Args:
        teacher: gives the features.
        channels: first channel and the one behind the last.
        loss: ``contrastive``: symmetric InfoNCE between the class token and the teacher's summary
            of the same images; ``cosine``: 1 - cosine with the teacher's features per position.
        layers: of the transformer.
        heads: of its attention; they divide the teacher's width.
        temperature: of the contrastive logits.
        of: ``z_q``, the quantized latents, or ``hidden``, the layer that the model shows.

    Raises:
        ConfigError: another loss or source, or channels that do not rise.
    """

    def __init__(
        self,
        teacher: Teacher,
        channels: tuple[int, int],
        *,
        loss: str = "contrastive",
        layers: int = 3,
        heads: int = 8,
        temperature: float = 0.07,
        of: str = "z_q",
    ):
        super().__init__()
        if loss not in LOSSES:
            raise unknown_name("feature loss", loss, LOSSES)
        if of not in SOURCES:
            raise unknown_name("source of features", of, SOURCES)
        if not 0 <= channels[0] < channels[1]:
            raise ConfigError(
                f"features: expected channels [first, end] that rise; got {list(channels)}. "
                "Name the channels that learn from the teacher."
            )
        self._teacher = [teacher]  # in a list, so that it stays outside the module tree
        self.channels, self.loss, self.temperature = tuple(channels), loss, temperature
        self.of = of
        width = teacher.width
        self.lift = nn.Sequential(
            nn.Linear(channels[1] - channels[0], width), nn.Tanh(), nn.Linear(width, width)
        )
        self.start = nn.Parameter(torch.randn(width) * width**-0.5)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, reconstruction: Reconstruction) -> Tensor:
        """Return the loss ``()`` of images ``x (B, 3, H, W)`` and what a model made of them.

        Raises:
            ConfigError: the model shows no hidden layer.
            ShapeError: there are fewer channels than ``channels`` names, or no 2-d grid for the
                loss per position.
        """
        z = self._source(reconstruction)
        tokens = self.lift(z[..., slice(*self.channels)].flatten(1, -2))  # (B, N, C)
        tokens = torch.cat([self.start.expand(len(tokens), 1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens).float()
        if self.loss == "contrastive":
            return contrastive(tokens[:, 0], self._teacher[0].summary(x), self.temperature)
        wanted = interpolate(self._teacher[0].features(x), z.shape[1:3], mode="bilinear")
        return (1 - cosine_similarity(tokens[:, 1:], wanted.flatten(2).transpose(1, 2), -1)).mean()

    def _source(self, reconstruction: Reconstruction) -> Tensor:
        """Return ``(B, *grid, D)``: the quantized latents or the hidden layer."""
        z = reconstruction.quantized.z_q if self.of == "z_q" else reconstruction.hidden
        if z is None:
            raise ConfigError(
                "features: expected a model that shows a hidden layer; got one without. Set "
                "decoder.hidden_layer, or features.of to z_q."
            )
        end = self.channels[1]
        if z.shape[-1] < end or (self.loss == "cosine" and z.ndim != 4):
            raise ShapeError(
                f"features: expected latents with at least {end} channels, on a 2-d grid for "
                f"cosine; got {tuple(z.shape)}. Correct features.channels."
            )
        return z


def contrastive(predicted: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Return the symmetric InfoNCE loss ``()``; row i of both belongs to item i.

    Radford et al., CLIP, 2021, https://arxiv.org/abs/2103.00020, figure 3, at a fixed temperature.

    Args:
        predicted: ``(B, C)``.
        wanted: ``(B, C)``.
        temperature: divides the cosines.
    """
    logits = normalize(predicted, dim=-1) @ normalize(wanted, dim=-1).T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (cross_entropy(logits, own) + cross_entropy(logits.T, own))


def load_features(
    model: str, channels: tuple[int, int], weights: str | Path | None = None, **options: Any
) -> FeatureTarget | None:
    """Build a target from weights on this machine, or say in one line that there are none.

    Args:
        model: name of a timm model, with its tag.
        channels: as for ``FeatureTarget``.
        weights: file with the weights as timm names them; default ``<model>.safetensors`` or
            ``.pth`` in ``$TVQ_WEIGHTS`` or the cache of ``torch.hub``.
        **options: further ones of ``FeatureTarget``.

    Returns:
        The target, or None when the weights are not on this machine; then the term is off.

    Raises:
        ConfigError: timm has no such model, or as ``FeatureTarget``.
        CheckpointError: ``weights`` is given but not there, or is not of that model.
    """
    teacher = load_teacher(model, weights)
    return None if teacher is None else FeatureTarget(teacher, channels, **options)


def load_teacher(model: str, weights: str | Path | None = None) -> Teacher | None:
    """Build the frozen network ``model`` of timm; see ``load_features``."""
    import timm

    where = f"features {model}"
    if not timm.is_model(model.partition(".")[0]):
        raise ConfigError(
            f"features: expected a model of timm; got {model!r}. See timm.list_models()."
        )
    path = find_file(where, f"{model}.safetensors", weights) or find_file(where, f"{model}.pth")
    if path is None:
        hub = Path(torch.hub.get_dir()) / "checkpoints"
        log.warning(
            "%s is off: no %s.safetensors in %s. Put timm's weights there under that name, or set "
            "TVQ_WEIGHTS to their folder.",
            where,
            model,
            hub,
        )
        return None
    with torch.random.fork_rng(devices=()):  # the seed of a run shall not depend on its losses
        network: Any = timm.create_model(model, pretrained=False, num_classes=0)
    found = network.load_state_dict(read_state(where, path), strict=False)
    heads = tuple(name for name in found.unexpected_keys if not name.startswith(("head.", "fc.")))
    if found.missing_keys or heads:
        raise CheckpointError(
            f"{where}: expected timm's weights of that model; got '{path}', where "
            f"{(*found.missing_keys, *heads)[0]} does not fit. Give the file of that model."
        )
    settings = timm.data.resolve_model_data_config(network)
    return Teacher(network, tuple(settings["input_size"][1:]), settings["mean"], settings["std"])
