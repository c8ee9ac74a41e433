"""What a reconstruction adds to, and takes from, the changes between the frames of a video."""

from __future__ import annotations

from torch import Tensor

from tokenizers_vq.metrics.base import Metric, Score, check_images, mean_score
from tokenizers_vq.metrics.video import change_psnr, flicker
from tokenizers_vq.types import Codes


class Flicker(Metric):
    """Added change, lost change, and the PSNR of all changes, per clip.

    ``flicker`` and ``lost_change`` are in grey levels (0..255) per sample and frame, see
    ``video.flicker``: a still video has no flicker but loses all change. ``change_psnr`` sees both,
    and changes of the wrong direction. The definitions are ours.

    Args:
        resamples: bootstrap draws per interval.
        seed: of the bootstrap.
    """

    def update(self, real: Tensor, fake: Tensor, codes: Codes | None = None) -> None:
        """Add a batch of pairs of clips, uint8 ``(B, 3, T, H, W)``, T of 2 and more."""
        check_images(real, fake, "flicker", clips=True)
        added, lost = flicker(real, fake)
        self._add("flicker", added)
        self._add("lost_change", lost)
        self._add("change_psnr", change_psnr(real, fake))

    def compute(self) -> dict[str, Score]:
        """Return the three means with their intervals."""
        kinds = (
            ("flicker", "grey levels", False),
            ("lost_change", "grey levels", False),
            ("change_psnr", "dB", True),
        )
        return {
            name: mean_score(
                self.values.get(name, []), self.resamples, self.seed, unit=unit, higher=higher
            )
            for name, unit, higher in kinds
        }
