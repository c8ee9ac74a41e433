"""``python -m tokenizers_vq.ops``: which kernels run here, and why."""

import sys

import torch

from tokenizers_vq.ops import library
from tokenizers_vq.ops.nearest_code import KERNELS


def main() -> None:
    """Print one line per device."""
    name, reason = library.active(KERNELS)
    have = f"; compiled and usable: {', '.join(KERNELS.names)}" if KERNELS.names else ""
    sys.stdout.write(
        f"nearest_code, cpu: {name} ({reason}{have}), {torch.get_num_threads()} threads\n"
    )
    if torch.cuda.is_available():
        sys.stdout.write("nearest_code, cuda: torch (no CUDA kernel is compiled)\n")


if __name__ == "__main__":
    main()
