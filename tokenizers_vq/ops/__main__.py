"""``python -m tokenizers_vq.ops``: which kernels run here, and why."""

import sys

import torch

from tokenizers_vq.ops import library
from tokenizers_vq.ops.nearest_code import KERNELS, NO_CUDA
from tokenizers_vq.ops.selective_scan import compiled


def main() -> None:
    """Print one line per device."""
    name, reason = library.active(KERNELS)
    have = f"; compiled and usable: {', '.join(KERNELS.names)}" if KERNELS.names else ""
    sys.stdout.write(
        f"nearest_code, cpu: {name} ({reason}{have}), {torch.get_num_threads()} threads\n"
    )
    name, reason = library.active_cuda(NO_CUDA)
    idle = "" if torch.cuda.is_available() else "; there is no GPU"
    sys.stdout.write(f"nearest_code, cuda: {name} ({reason}{idle})\n")
    sys.stdout.write(f"selective_scan, cpu: {'compiled' if compiled() else 'torch'}\n")


if __name__ == "__main__":
    main()
