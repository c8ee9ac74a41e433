"""How far a protein's reconstructed backbone is from the real one, wherever it lies."""

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.frames import atoms_of, frame_error


class FAPE:
    """Mean frame aligned point error, over all pairs of residues of all items.

    Args:
        clamp: angstroms at which distances are cut; None for no cut.
        unit: angstroms by which they are divided.
        reach: residues along the chain between the two of a pair, at most; None for all pairs.

    Shapes:
        x, x_hat (B, 9, T) -> ()

    Raises:
        ConfigError: a clamp or unit that is not above 0.

    Reference:
        Jumper et al., 2021, https://doi.org/10.1038/s41586-021-03819-2, supplement, algorithm 28.
    """

    def __init__(
        self, clamp: float | None = 10.0, unit: float = 10.0, reach: int | None = None
    ) -> None:
        if unit <= 0 or (clamp is not None and clamp <= 0):
            raise ConfigError(
                f"FAPE: expected clamp and unit above 0; got {clamp} and {unit}. Use 10."
            )
        self.clamp, self.unit, self.reach = clamp, unit, reach

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the loss of reconstructions, float32."""
        real, fake = (atoms_of(signal.float()) for signal in (x, x_hat))
        return frame_error(real, fake, self.clamp, self.unit, self.reach).mean()
