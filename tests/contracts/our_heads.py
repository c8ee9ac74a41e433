"""Our heads behind the verbs of the contract's properties."""

from adapter import Adapter, D, NotOffered, Out
from torch import Tensor, nn

from tokenizers_vq import registry
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.residual import Residual

VQ = {"name": "vq", "codebook_size": 16, "codebook_update": "ema", "restart_threshold": 0.0}
DEPTH = 4


def stack(of, **options):
    return {"name": "residual", "stages": {"repeat": DEPTH, "of": of}, **options}


def config(name, changes):
    """Return the plain config of a head with the changes that a property asks for."""
    width = {"code_dim": 3} if changes.get("projected") else {}
    channels = changes.get("bits", 3 if width else D)
    vq = dict(VQ)
    if "decay" in changes:
        vq["decay"] = changes["decay"]
    if changes.get("kmeans"):
        vq["kmeans_init"] = "random"
    lfq = {"name": "lfq", "bits": channels}
    return {
        "vq": {**vq, **width},
        "cosine": {**vq, "metric": "cosine", **width},
        "rvq": stack(vq, **width),
        "grouped_rvq": {
            "name": "grouped",
            "groups": {"repeat": 2, "of": stack(vq)},
            **({"code_dim": 4} if width else {}),
        },
        "simvq": {"name": "simvq", "codebook_size": 16, **width},
        "fsq": {"name": "fsq", "levels": [8, 5, 5] if width else [5] * D},
        "rfsq": stack(
            {"name": "fsq", "levels": [5] * channels, "bound": "clamp"}, stage_scale=0.25, **width
        ),
        "lfq": lfq,
        "bsq": {**lfq, "name": "bsq"},
        "rlfq": stack(lfq, stage_scale=0.5, **width),
    }[name]


TRAITS = {
    "vq": {"statistics", "loss", "identity", "fixed_point"},
    "cosine": {"statistics", "loss", "fixed_point"},
    "rvq": {"statistics", "loss", "identity", "residual", "commits"},
    "grouped_rvq": {"statistics", "loss", "identity", "residual", "commits"},
    "simvq": {"loss", "identity", "fixed_point"},
    "fsq": set(),
    "rfsq": {"identity", "residual"},
    "lfq": {"loss", "identity", "fixed_point", "binary"},
    "bsq": {"loss", "fixed_point", "binary"},
    "rlfq": {"loss", "identity", "residual", "commits"},
}


class Ours(Adapter):
    """A head of this package."""

    layouts = ("sequence", "vectors", "image_last")
    module: Quantizer

    def make(self) -> nn.Module:
        self.traits = frozenset(TRAITS[self.name])
        if self.changes.get("kmeans") and "statistics" not in self.traits:
            raise NotOffered("no codebook to start")
        return registry.build("quantizer", config(self.name, self.changes), dim=self.dim)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Out:
        out = self.module(z, mask)
        return Out(out.z_q, out.indices, out.loss)

    def encode(self, z: Tensor) -> Tensor:
        return self.evaluate().module.encode(z)

    def decode(self, indices: Tensor) -> Tensor:
        return self.module.decode(indices)

    def update(self, z: Tensor, indices: Tensor) -> None:
        self.module.update(z, indices)

    def freeze(self) -> None:
        self.module.requires_grad_(False)

    def level_losses(self, z: Tensor) -> list[Tensor]:
        stacks = [part for part in self.module.modules() if isinstance(part, Residual)]
        losses = []
        for level in range(DEPTH):
            for part in stacks:
                for i, stage in enumerate(part.stages):
                    stage.commitment_weight = float(i == level)
                    stage.entropy_weight = 0.0
            losses.append(self.module(z).loss)
        return losses

    @property
    def size(self) -> int:
        return self.module.codebook_sizes[0]
