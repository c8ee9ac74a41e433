"""A codec small enough to see through, and every way in which it can break the contract."""

import torch
from torch import Tensor, nn

from tokenizers_vq.foreign import Foreign
from tokenizers_vq.types import Codes, SignalSpec

STEP, LEVELS = 4, 16


class MeanCodec(Foreign):
    """The mean of four samples in 16 levels; causal, of any length."""

    def __init__(self, fault: str = "") -> None:
        module = nn.Module()
        module.register_buffer("calls", torch.zeros(1), persistent=False)
        super().__init__("mean.test", module, SignalSpec("audio", 1), (STEP,), (LEVELS,),
                         causal=True)  # fmt: skip
        self.fault, self.seen = fault, 0.0

    def indices(self, x: Tensor) -> Tensor:
        x = self._spoiled(x)
        missing = -x.shape[-1] % STEP
        x = torch.cat([x, x[..., -1:].expand(-1, -1, missing)], -1)
        mean = x.reshape(len(x), -1, STEP).mean(-1)
        if self.fault == "looks ahead":
            mean = (mean + mean.roll(-1, 1)) / 2
        return ((mean + 1) / 2 * (LEVELS - 1)).round().long()[..., None]

    def _spoiled(self, x: Tensor) -> Tensor:
        if self.fault == "dtype" and x.dtype == torch.float64:
            x = x + 0.3
        x = x.float()
        shift = {
            "batch": lambda: x.mean() if len(x) > 1 else 0.0,
            "place": lambda: torch.arange(len(x)).view(-1, 1, 1) * (0.3 if len(x) > 1 else 0),
            "noise": lambda: 0.3 * torch.randn(x.shape),
            "length": lambda: x.mean((1, 2), keepdim=True) - 0.2 * (x == 0).float().mean(2, True),
            "threads": lambda: 0.2 * torch.get_num_threads(),
            "history": lambda: self.seen,
        }.get(self.fault, lambda: 0.0)()
        self.seen = float(x[0, 0, 0]) + 0.4
        if self.fault == "state":
            self.module.calls += 1
        return (x + shift).clamp(-1, 1)

    def signals(self, indices: Tensor) -> Tensor:
        levels = indices[..., 0]
        if self.fault != "careless" and (int(levels.min()) < 0 or int(levels.max()) >= LEVELS):
            raise IndexError("no such level")
        x = (levels.float() / (LEVELS - 1) * 2 - 1).repeat_interleave(STEP, 1)[:, None]
        return x[..., :-STEP] if self.fault == "short" else x

    def reconstruct(self, x: Tensor) -> Tensor:
        x_hat = self.decode(self.encode(x))
        return x_hat * 0.9 if self.fault == "forward" else x_hat

    def encode(self, x: Tensor) -> Codes:
        codes = super().encode(x)
        if self.fault == "int32":
            return Codes(codes.indices.int(), codes.shape, codes.codebook_sizes)
        return codes
