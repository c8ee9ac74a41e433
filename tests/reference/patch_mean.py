"""A tokenizer and a data set small enough to see through, for the evaluation tests."""

import torch

from tokenizers_vq.types import Codes


class PatchMean:
    """Patch means in 8 levels per channel: one code of 512 per 8 x 8 patch."""

    name = "patch_mean.test"
    sha256 = "0" * 64
    prior = None

    def encode(self, x: torch.Tensor) -> Codes:
        mean = torch.nn.functional.avg_pool2d(x, 8)
        digits = ((mean + 1) / 2 * 7).round().long()
        indices = (digits * torch.tensor([1, 8, 64]).view(1, 3, 1, 1)).sum(1)[..., None]
        return Codes(indices, tuple(x.shape[2:]), (512,), self.name)

    def decode(self, codes: Codes) -> torch.Tensor:
        digits = torch.stack([codes.indices[..., 0] // k % 8 for k in (1, 8, 64)], 1)
        return torch.nn.functional.interpolate(digits / 7 * 2 - 1, scale_factor=8)


class Identity(PatchMean):
    """Every pixel is its own code: nothing is lost."""

    name = "identity.test"

    def encode(self, x: torch.Tensor) -> Codes:
        levels = ((x + 1) * 127.5).round().long().permute(0, 2, 3, 1)
        return Codes(levels, tuple(x.shape[2:]), (256, 256, 256), self.name)

    def decode(self, codes: Codes) -> torch.Tensor:
        return codes.indices.permute(0, 3, 1, 2) / 127.5 - 1


class Pictures:
    """Smooth random pictures ``(3, size, size)`` in [-1, 1]."""

    def __init__(self, n: int = 3, size: int = 64, sizes: tuple[int, ...] = ()) -> None:
        self.ids = [f"p/{k}" for k in range(n)]
        self.sizes = sizes or (size,) * n

    def __getitem__(self, index: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(index)
        small = torch.rand(1, 3, 8, 8, generator=generator)
        size = self.sizes[index]
        large = torch.nn.functional.interpolate(small, size=size, mode="bicubic")
        return large[0].clamp(0, 1) * 2 - 1

    def sha256(self) -> str:
        return "d" * 64


PROTOCOL = {
    "name": "test",
    "size": None,
    "metrics": [
        {"name": "similarity", "names": ["psnr", "psnr_pooled", "ssim"]},
        {"name": "codebook"},
    ],
    "anchors": ["identity", "jpeg_q75", "down_up_2x"],
    "codecs": {"jpeg": {}, "webp": {"method": 0}},
    "budgets": [0.5, 1, 4],
    "resamples": 50,
    "batch_size": 2,
}
