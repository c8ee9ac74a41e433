"""A perceptual loss by the logits of an ImageNet classifier, as MaskBit and TiTok train with.

Weber et al., MaskBit, 2024, https://arxiv.org/abs/2409.16211, section 3 (ResNet-50); Yu et al., An
Image is Worth 32 Tokens, 2024, https://arxiv.org/abs/2406.07550, appendix (ConvNeXt-Small): the
mean squared difference of the 1000 logits of image and reconstruction. The weights are
torchvision's ``IMAGENET1K_V1`` and are only taken from this machine.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tokenizers_vq.errors import CheckpointError, ShapeError
from tokenizers_vq.weights import find_file, read_state

# torchvision's file names; the eight digits begin the sha256 of the file
LOGITS = {"resnet50": "resnet50-0676ba61.pth", "convnext_small": "convnext_small-0c510722.pth"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1]
SIDE = 224

log = logging.getLogger(__name__)


class LogitLoss:
    """Mean squared difference of logits; not a module, so that it is never saved or trained.

    Args:
        network: maps normalised images ``(B, 3, 224, 224)`` to logits ``(B, N)``.
    """

    def __init__(self, network: nn.Module):
        self._network = network.eval().requires_grad_(False)

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the loss as a ``()`` float32 tensor.

        Args:
            x: images ``(B, C, H, W)`` in [-1, 1], C 1 or 3.
            x_hat: their reconstruction.

        Raises:
            ShapeError: another rank or number of channels.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ShapeError(
                f"LogitLoss: expected images of 1 or 3 channels; got {tuple(x.shape)}. "
                "Take the term out of the weights."
            )
        if next(self._network.parameters()).device != x.device:
            self._network.to(x.device)
        with torch.no_grad():
            wanted: Tensor = self._network(normalised(x))
        logits: Tensor = self._network(normalised(x_hat))
        return (logits.float() - wanted.float()).square().mean()


def normalised(
    x: Tensor,
    size: tuple[int, int] = (SIDE, SIDE),
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> Tensor:
    """Return images as classifiers want them: ``(B, 3, *size)``, of zero mean and unit variance.

    Args:
        x: ``(B, C, H, W)`` in [-1, 1], C 1 or 3.
        size: to resize to, bilinear with antialiasing.
        mean: of each channel's pixels in [0, 1].
        std: their standard deviation.
    """
    if tuple(x.shape[-2:]) != size:
        x = interpolate(x.float(), size, mode="bilinear", antialias=True, align_corners=False)
    shift, scale = (x.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return ((x + 1) / 2 - shift) / scale


def load_logits(net: str, weights: str | Path | None = None) -> LogitLoss | None:
    """Build the loss from weights on this machine, or say in one line that there are none.

    Args:
        net: ``resnet50`` or ``convnext_small``.
        weights: torchvision's file, or a folder that holds it; default ``$TVQ_WEIGHTS``, then the
            cache of ``torch.hub``.

    Returns:
        The loss, or None when the weights are not on this machine; then the term is off.

    Raises:
        CheckpointError: ``weights`` is given but not there, or is not the file of that network.
    """
    import torchvision

    path = find_file(f"perceptual/{net}", LOGITS[net], weights)
    if path is None:
        log.warning(
            "perceptual/%s is off: no %s in %s. Put torchvision's file there, or set TVQ_WEIGHTS "
            "to it.",
            net,
            LOGITS[net],
            Path(torch.hub.get_dir()) / "checkpoints",
        )
        return None
    make: Callable[..., Any] = getattr(torchvision.models, net)
    with torch.random.fork_rng(devices=()):  # the seed of a run shall not depend on its losses
        network: nn.Module = make(weights=None)
    try:
        network.load_state_dict(read_state(f"perceptual/{net}", path))
    except RuntimeError as error:
        raise CheckpointError(
            f"perceptual/{net}: expected torchvision's weights of {net}; got others in '{path}'. "
            f"The right file is called {LOGITS[net]}."
        ) from error
    return LogitLoss(network)
