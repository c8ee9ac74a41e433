"""LPIPS: a distance between deep features that was fitted to human judgements of similarity.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018,
https://arxiv.org/abs/1801.03924, eq. 1. The linear layers come inside the package ``lpips``; the
ImageNet weights of the network are torchvision's and are only taken from this machine.
Differs from the paper: none.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import CheckpointError, ConfigError, ShapeError
from tokenizers_vq.weights import find_file, read_state

# torchvision's file names; the eight digits begin the sha256 of the file.
FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
SMALLEST = 32  # below this a feature map of the networks is empty

log = logging.getLogger(__name__)


class LPIPS:
    """LPIPS as a loss; not a module, so that its weights are never averaged, saved or trained.

    Args:
        network: maps two batches ``(B, 3, H, W)`` in [-1, 1] to one distance per item.
    """

    def __init__(self, network: nn.Module):
        self._network = network.eval().requires_grad_(False)

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the mean distance as a ``()`` float32 tensor.

        Args:
            x: images ``(B, C, H, W)`` or videos ``(B, C, T, H, W)`` in [-1, 1], C 1 or 3.
            x_hat: their reconstruction.

        Raises:
            ShapeError: another rank or number of channels, or fewer than 32 pixels on a side.
        """
        if x.ndim not in (4, 5) or x.shape[1] not in (1, 3) or min(x.shape[-2:]) < SMALLEST:
            raise ShapeError(
                f"LPIPS: expected images of 1 or 3 channels and at least {SMALLEST} x {SMALLEST}; "
                f"got {tuple(x.shape)}. Take perceptual/lpips out of the weights."
            )
        if next(self._network.parameters()).device != x.device:
            self._network.to(x.device)
        distance: Tensor = self._network(_frames(x), _frames(x_hat))
        return distance.float().mean()


def load_lpips(net: str = "vgg", weights: str | Path | None = None) -> LPIPS | None:
    """Build LPIPS from weights on this machine, or say in one line that there are none.

    Looked for are ``weights``, then the environment variable TVQ_WEIGHTS (a file or a folder),
    then the cache of ``torch.hub``. Nothing is downloaded, and no network starts from chance.

    Args:
        net: ``vgg`` (the usual loss) or ``alex`` (the usual metric, and faster).
        weights: the torchvision file of that network, or a folder that holds it.

    Returns:
        The loss, or None when the weights are not on this machine; then the term is off.

    Raises:
        ConfigError: ``net`` is not one of the two.
        CheckpointError: ``weights`` is given but not there, or the file is damaged.
    """
    if net not in FILES:
        raise ConfigError(f"LPIPS: there is no net {net!r}; choose one of {', '.join(FILES)}.")
    path = find_file("LPIPS", FILES[net], weights)
    if path is None:
        log.warning(
            "LPIPS is off: no %s in %s. Put torchvision's file there, or set TVQ_WEIGHTS to it.",
            FILES[net],
            Path(torch.hub.get_dir()) / "checkpoints",
        )
        return None
    return LPIPS(_network(net, read_state("LPIPS", path)))


def _network(net: str, state: dict[str, Tensor]) -> nn.Module:
    """Build the ``lpips`` network around torchvision weights ``features.*``."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision by its old arguments
        network: Any = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # lpips cuts the layers into slices but keeps their numbers: slice2.5.weight = features.5.weight
    names = {key: "features." + key.partition(".")[2] for key in network.net.state_dict()}
    missing = [name for name in names.values() if name not in state]
    if missing:
        raise CheckpointError(
            f"LPIPS: expected torchvision's weights of {net}; got a file without {missing[0]}. "
            f"The right file is called {FILES[net]}."
        )
    network.net.load_state_dict({key: state[name] for key, name in names.items()})
    module: nn.Module = network
    return module


def _frames(x: Tensor) -> Tensor:
    """Fold the frames of videos ``(B, C, T, H, W)`` into the batch; images stay as they are."""
    return x if x.ndim == 4 else x.movedim(2, 1).flatten(0, 1)
