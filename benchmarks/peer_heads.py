"""The heads of vector-quantize-pytorch behind the verbs of the contract's properties.

Options are those its documentation recommends or its defaults; where a property asks for an
option that the library has under another name, the adapter uses it.
"""

from typing import Any

import torch
import vector_quantize_pytorch as peer
from adapter import Adapter, D, NotOffered, Out
from torch import Tensor, nn

DEPTH = 4
SIZE = 16
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
LAYOUTS = {
    "vq": ("sequence", "vectors", "channels", "image", "video"),
    "cosine": ("sequence", "vectors", "channels", "image", "video"),
    "rvq": ("sequence", "image"),
    "grouped_rvq": ("sequence", "image"),
    "simvq": ("sequence", "image", "image_last"),
    "fsq": ("sequence", "image", "video"),
    "rfsq": ("sequence", "channels"),
    "lfq": ("sequence", "image", "video"),
    "bsq": ("sequence", "image", "video"),
    "rlfq": ("sequence",),
}
TABLES = ("vq", "cosine", "rvq", "grouped_rvq")
COUNTED = ("rvq", "grouped_rvq", "rfsq", "rlfq")  # their indices have an axis of codebooks


class Theirs(Adapter):
    """A head of vector-quantize-pytorch."""

    def make(self) -> nn.Module:
        """Build the peer's head with the options that mean the changes."""
        self.traits = frozenset(TRAITS[self.name])
        self.layouts = LAYOUTS[self.name]
        self.frozen = False
        if self.changes.get("kmeans") and self.name not in TABLES:
            raise NotOffered("no codebook to start")
        maker = dict.fromkeys(TABLES, self._table) | {
            "simvq": self._simvq, "fsq": self._fsq, "rfsq": self._rfsq,
            "lfq": self._lfq, "bsq": self._lfq, "rlfq": self._rlfq,
        }  # fmt: skip
        return maker[self.name]()

    def _table(self) -> nn.Module:
        changes, layout = self.changes, self.changes.get("layout", "sequence")
        grouped = self.name == "grouped_rvq"
        options: dict[str, Any] = {"dim": D, "codebook_size": SIZE}
        options |= {"decay": changes["decay"]} if "decay" in changes else {}
        options |= {"kmeans_init": True} if changes.get("kmeans") else {}
        options |= {"rotation_trick": False} if changes.get("straight_through") else {}
        options |= {"codebook_dim": 2 if grouped else 3} if changes.get("projected") else {}
        options |= {"accept_image_fmap": True} if layout == "image" else {}
        options |= {"accept_3d_fmap": True} if layout == "video" else {}
        options |= {"channel_last": False} if layout == "channels" else {}
        if self.name in ("vq", "cosine"):
            return peer.VectorQuantize(**options, use_cosine_sim=self.name == "cosine")
        options |= {"num_quantizers": DEPTH, "quantize_dropout": bool(changes.get("prefix"))}
        return (
            peer.GroupedResidualVQ(**options, groups=2) if grouped else peer.ResidualVQ(**options)
        )

    def _simvq(self) -> nn.Module:
        if self.changes.get("projected"):
            raise NotOffered("no width of its own")
        options = {"rotation_trick": False} if self.changes.get("straight_through") else {}
        first = self.changes.get("layout") == "image"
        return peer.SimVQ(dim=D, codebook_size=SIZE, channel_first=first, **options)

    def _fsq(self) -> nn.Module:
        levels = [8, 5, 5] if self.changes.get("projected") else [5] * D
        first = self.changes.get("layout") in ("image", "video")
        return peer.FSQ(levels=levels, dim=D, channel_first=first)

    def _rfsq(self) -> nn.Module:
        levels = [5] * (3 if self.changes.get("projected") else D)
        return peer.ResidualFSQ(
            levels=levels,
            dim=D,
            num_quantizers=DEPTH,
            is_channel_first=self.changes.get("layout") == "channels",
            quantize_dropout=bool(self.changes.get("prefix")),
        )

    def _lfq(self) -> nn.Module:
        bits = 3 if self.changes.get("projected") else self.dim
        return peer.LFQ(
            dim=self.dim,
            codebook_size=2**bits,
            commitment_loss_weight=0.25,
            spherical=self.name == "bsq",
        )

    def _rlfq(self) -> nn.Module:
        return peer.ResidualLFQ(
            dim=D,
            codebook_size=2 ** (3 if self.changes.get("projected") else D),
            num_quantizers=DEPTH,
            commitment_loss_weight=0.25,
            quantize_dropout=bool(self.changes.get("prefix")),
        )

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Out:
        """Call the head; bring its indices to ``(B, *grid, K)``."""
        options: dict[str, Any] = {"freeze_codebook": True} if self.frozen else {}
        if mask is not None:
            if self.name in ("fsq", "rfsq", "simvq"):
                raise NotOffered("no mask")
            options["mask"] = mask
        z_q, indices, *rest = self.module(z, **options)
        if self.name == "grouped_rvq":
            indices = torch.cat(tuple(indices), dim=-1)
        elif self.name not in COUNTED:
            indices = indices[..., None]
        return Out(z_q, indices, rest[0] if rest else z_q.new_zeros(()))

    def decode(self, indices: Tensor) -> Tensor:
        """Undo what ``forward`` did to the indices, and call the documented inverse."""
        if self.name in ("vq", "cosine"):
            return self.module.get_output_from_indices(indices[..., 0])
        if self.name in ("fsq", "lfq", "bsq", "simvq"):
            return self.module.indices_to_codes(indices[..., 0])
        if self.name == "grouped_rvq":
            indices = torch.stack(indices.chunk(2, dim=-1))
        return self.module.get_output_from_indices(indices)

    def freeze(self) -> None:
        """Pass ``freeze_codebook=True`` from now on."""
        self.frozen = True

    def level_losses(self, z: Tensor) -> list[Tensor]:
        """Return the losses of the levels, which the peer returns in the last axis."""
        given = self.forward(z).given
        return list(given.reshape(-1, DEPTH).sum(0))

    @property
    def size(self) -> int:
        """The number of codes of the first codebook."""
        if self.name in ("lfq", "bsq", "rlfq"):
            return 2**self.dim
        return 5**D if self.name in ("fsq", "rfsq") else SIZE
