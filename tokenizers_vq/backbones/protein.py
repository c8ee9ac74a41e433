"""Backbones of proteins: residues with their neighbours in, frames out.

The encoder sees positions only from the frames of residues, so its latents are the same wherever
the protein lies and however it is turned; a mirror image is another protein.

Reference:
    Hayes et al., Simulating 500 Million Years of Evolution with a Language Model (ESM3), 2025,
    https://doi.org/10.1126/science.ads0018, supplement A.1.7 (16 neighbours, tokens per residue,
    6D rotations); Wang et al., DPLM-2, 2024, https://arxiv.org/abs/2410.13782, section 3.1
    (lookup-free tokens, FAPE).
    This is neither network: the encoder's attention between neighbours and the decoder's chain of
    frames are ours.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Backbone, Decoder, Encoder
from tokenizers_vq.backbones.transformer import MLP
from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.frames import (
    atoms_of,
    backbone_of,
    chained,
    frames_of,
    is_present,
    signal_of,
)
from tokenizers_vq.functional.framing import crop
from tokenizers_vq.functional.rotations import from_six
from tokenizers_vq.types import Reconstruction, SignalSpec

if TYPE_CHECKING:
    from tokenizers_vq.tokenizer import Tokenizer

REACH = 32  # residues along the chain, beyond which all are as far
RADII = 16  # distances that an edge is told to be near
NEAR = 10.0  # angstroms at which a place is half way to the horizon
PLACEMENTS = {"chain": 4.0, "global": 10.0}
"""How the decoder gives frames, and angstroms per unit of what its last layer gives."""


class NeighbourBlock(nn.Module):
    """Attention of every residue to its neighbours and to the edges to them, then an MLP.

    Args:
        width: width W.
        heads: attention heads.

    Shapes:
        h (B, T, W), edges (B, T, k, W), near (B, T, k) -> (B, T, W)

    Raises:
        ConfigError: ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.of_node = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.of_edge = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.mlp = MLP(width, 4 * width)

    def forward(self, h: Tensor, edges: Tensor, near: Tensor, there: Tensor) -> Tensor:
        """Return ``(B, T, W)``; residues that are missing neither look nor are seen."""
        x = self.norm1(h)
        both = _gathered(self.of_node(x), near) + self.of_edge(edges)  # (B, T, k, 2 W)
        keys, values = _parted(both, 2, self.heads, -1).unbind(-3)
        q = _parted(self.query(x), 1, self.heads, -1)
        scores = (q * keys).sum(-1) / math.sqrt(keys.shape[-1])  # (B, T, k, heads)
        seen = _gathered(there[..., None], near)
        share = scores.masked_fill(~seen, -1e4).softmax(-2)
        attended = self.proj((share[..., None] * values).sum(-3).flatten(-2))
        h = h + attended * there[..., None]
        out: Tensor = h + self.mlp(self.norm2(h))
        return out


class ProteinEncoder(Encoder):
    """One latent per residue, of the residue and its nearest neighbours in space.

    Args:
        dim: latent width D.
        signal: backbones ``(B, 9, T)`` in angstroms, see ``functional.frames.atoms_of``.
        width: of the network.
        layers: blocks; each carries what a residue knows one neighbourhood further.
        heads: attention heads of each.
        neighbours: how many residues one sees, itself among them.

    Shapes:
        x (B, 9, T) -> z (B, T, D)

    Raises:
        ConfigError: another number of channels, a number below 1, or ``heads`` that do not divide.

    Example:
        >>> encoder = ProteinEncoder(8, SignalSpec("protein", 9), width=16, layers=1, heads=2)
        >>> encoder(torch.randn(1, 9, 20)).shape
        torch.Size([1, 20, 8])
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 128,
        layers: int = 2,
        heads: int = 8,
        neighbours: int = 16,
    ) -> None:
        super().__init__(dim, (1,), signal)
        _check(self, layers, neighbours)
        self.neighbours = neighbours
        self.presence = nn.Embedding(2, width)
        self.offset = nn.Embedding(2 * REACH + 1, width)
        self.edge = nn.Linear(18 + RADII, width)
        self.blocks = nn.ModuleList([NeighbourBlock(width, heads) for _ in range(layers)])
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, T, D)`` of backbones ``(B, 9, T)``."""
        self.check_signal(x)
        with torch.autocast(x.device.type, enabled=False):
            atoms = atoms_of(x.float())
            there = is_present(atoms)
            near = nearest(atoms[..., 1, :], there, self.neighbours)
            seen = edge_features(atoms, near)
        edges = self.edge(seen.to(x.dtype)) + self.offset(_offsets(near))
        h = self.presence(there.long())
        for block in self.blocks:
            h = block(h, edges, near, there)
        z: Tensor = self.out(self.norm(h))
        return z


class RotaryBlock(nn.Module):
    """Pre-norm block whose queries and keys turn with their place along the chain.

    Args:
        width: width W.
        heads: attention heads, of an even width each.

    Shapes:
        h (B, T, W) -> (B, T, W)

    Raises:
        ConfigError: ``heads`` does not divide ``width``, or leaves an odd width.

    Reference:
        Su et al., RoFormer, 2021, https://arxiv.org/abs/2104.09864, eq. 34.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        _check_heads(width, heads, even=True)
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = MLP(width, 4 * width)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``(B, T, W)``; ``mask (T, T)`` is True where a residue may look at another."""
        parts = _parted(self.qkv(self.norm1(h)), 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, W / heads)
        attended = F.scaled_dot_product_attention(_turned(q), _turned(k), v, attn_mask=mask)
        h = h + self.proj(attended.transpose(1, 2).flatten(2))
        out: Tensor = h + self.mlp(self.norm2(h))
        return out


class ProteinDecoder(Decoder):
    """Frames of residues from their latents, with atoms in ideal geometry.

    Residues that are decoded as missing have their three atoms at one point. The centre of the
    others is the origin. Training never hides a residue, and returns the loss term ``presence``,
    the cross entropy of which are there.

    Args:
        dim: latent width D.
        signal: backbones ``(B, 9, T)`` in angstroms.
        width: of the network.
        layers: blocks.
        heads: attention heads of each.
        placement: ``"chain"`` gives each frame against the one before, so that what is learned of
            few proteins holds for others; ``"global"`` gives it in one space, as ESM3.
        window: residues to each side that attention reaches, so that what is learned of short
            crops holds for long chains; None for all.

    Shapes:
        z_q (B, T, D) -> x_hat (B, 9, T)

    Raises:
        ConfigError: another number of channels, a number below 1, ``heads`` that do not divide, or
            no such placement.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
        placement: str = "chain",
        window: int | None = None,
    ) -> None:
        super().__init__(dim, (1,), signal)
        _check(self, layers, 1 if window is None else window)
        if placement not in PLACEMENTS:
            raise unknown_name("ProteinDecoder placement", placement, PLACEMENTS)
        self.placement, self.window = placement, window
        self.embed = nn.Linear(dim, width)
        self.blocks = nn.ModuleList([RotaryBlock(width, heads) for _ in range(layers)])
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, 10)
        with torch.no_grad():  # begin near the identity
            self.last.weight.mul_(0.1)
            self.last.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0, 0.5, 0.5, 0, 2]))

    @property
    def last_layer(self) -> Tensor:
        """Weight of the layer that gives frames."""
        return self.last.weight

    def forward(self, z_q: Tensor) -> Tensor:
        """Return backbones ``(B, 9, T)`` of latents ``(B, T, D)``."""
        atoms, logits = self.structure(z_q)
        there = logits >= 0
        return signal_of(hidden(centred(atoms, there), there)).to(z_q.dtype)

    def structure(self, z_q: Tensor) -> tuple[Tensor, Tensor]:
        """Return the atoms ``(B, T, 3, 3)`` of all residues and the logits of being there."""
        self.check_latents(z_q)
        h = self.embed(z_q)
        mask = None if self.window is None else _band(z_q, self.window)
        for block in self.blocks:
            h = block(h, mask)
        numbers = self.last(self.norm(h))
        with torch.autocast(z_q.device.type, enabled=False):
            numbers = numbers.float()
            rotations = from_six(numbers[..., :6])
            places = numbers[..., 6:9] * PLACEMENTS[self.placement]
            if self.placement == "chain":
                rotations, places = chained(rotations, places)
            return backbone_of(rotations, places), numbers[..., 9]

    def training_pass(self, tokenizer: "Tokenizer", x: Tensor, step: int) -> Reconstruction:
        """Return all residues, whether they are there or not, and the term ``presence``.

        Args:
            tokenizer: whose encoder and quantizer run.
            x: backbones ``(B, 9, T)``.
            step: not used.
        """
        z = tokenizer.encoder(tokenizer.encoder.frame(x))
        quantized = tokenizer.quantizer(z)
        atoms, logits = self.structure(quantized.z_q)
        there = is_present(atoms_of(x))
        terms = {"presence": F.binary_cross_entropy_with_logits(logits, there.float())}
        x_hat = crop(signal_of(centred(atoms, there)), tuple(x.shape[2:]))
        return Reconstruction(x_hat, z, quantized, terms)


def nearest(places: Tensor, there: Tensor, count: int) -> Tensor:
    """Return the ``min(count, T)`` nearest residues that are there, ``(B, T, k)`` int64.

    Args:
        places: ``(B, T, 3)``.
        there: ``(B, T)`` bool; missing ones come last.
        count: k, each residue itself among them.
    """
    apart = (places[:, :, None] - places[:, None]).square().sum(-1)
    apart = apart.masked_fill(~there[:, None], math.inf)
    return apart.topk(min(count, places.shape[1]), largest=False).indices


def edge_features(atoms: Tensor, near: Tensor) -> Tensor:
    """Return ``(B, T, k, 18 + RADII)``: what each residue sees of its neighbours from its frame.

    Where their three atoms are, drawn in to a ball of radius 1; how they are turned; how far their
    CA is, as bumps at ``RADII`` distances to 20 angstroms.

    Args:
        atoms: ``(B, T, 3, 3)``.
        near: ``(B, T, k)``.
    """
    rotations, places = frames_of(atoms)
    theirs = _parted(_gathered(atoms.flatten(-2), near), 3, 3)  # (B, T, k, 3, 3)
    seen = (theirs - places[:, :, None, None]) @ rotations[:, :, None]
    far = (seen.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    drawn = seen / (NEAR + far)
    their_turns = _parted(_gathered(rotations.flatten(-2), near), 3, 3)
    turns = rotations.mT[:, :, None] @ their_turns
    radii = torch.linspace(0, 20, RADII, device=atoms.device)
    bumps = torch.exp(-((far[..., 1, :] - radii) / (20 / RADII)).square())
    return torch.cat([drawn.flatten(-2), turns.flatten(-2), bumps], dim=-1)


def centred(atoms: Tensor, there: Tensor) -> Tensor:
    """Return atoms ``(B, T, 3, 3)`` moved so that the mean CA of those there is the origin."""
    weight = there.to(atoms.dtype)[..., None]
    center = (weight * atoms[..., 1, :]).sum(-2) / weight.sum(-2).clamp(min=1)
    return atoms - center[:, None, None]


def hidden(atoms: Tensor, there: Tensor) -> Tensor:
    """Return atoms ``(B, T, 3, 3)``, those of residues that are not there at their CA."""
    return torch.where(there[..., None, None], atoms, atoms[..., 1:2, :])


def _gathered(values: Tensor, near: Tensor) -> Tensor:
    """Return ``(B, T, k, W)`` of ``(B, T, W)``."""
    batch, rows, count = near.shape
    index = near.reshape(batch, rows * count, 1).expand(-1, -1, values.shape[-1])
    return values.gather(1, index).reshape(batch, rows, count, values.shape[-1])


def _parted(x: Tensor, *sizes: int) -> Tensor:
    """Return ``(..., N)`` as ``(..., *sizes)``."""
    return x.reshape(*x.shape[:-1], *sizes)


def _offsets(near: Tensor) -> Tensor:
    """Return how far along the chain each neighbour is, as 0 to ``2 * REACH``."""
    own = torch.arange(near.shape[1], device=near.device)[None, :, None]
    return (near - own).clamp(-REACH, REACH) + REACH


def _band(z: Tensor, window: int) -> Tensor:
    """Return ``(T, T)`` bool: which residues of latents ``(B, T, D)`` are near along the chain."""
    place = torch.arange(z.shape[1], device=z.device)
    return (place[:, None] - place).abs() <= window


def _turned(part: Tensor) -> Tensor:
    """Return queries or keys ``(B, heads, T, d)`` turned by their place."""
    rows, width = part.shape[-2], part.shape[-1] // 2
    rate = 10000.0 ** -(torch.arange(width, device=part.device) / width)
    angle = torch.arange(rows, device=part.device)[:, None] * rate
    a, b = part[..., :width], part[..., width:]
    c, s = angle.cos().to(part.dtype), angle.sin().to(part.dtype)
    return torch.cat([a * c - b * s, a * s + b * c], dim=-1)


def _check_heads(width: int, heads: int, even: bool = False) -> None:
    if heads < 1 or width % heads or (even and width // heads % 2):
        raise ConfigError(
            f"protein: expected heads that divide the width into {'even ' * even}parts; got "
            f"{heads} heads and width {width}. Correct the backbone config."
        )


def _check(part: Backbone, layers: int, neighbours: int) -> None:
    if part.signal.channels != 9 or min(layers, neighbours) < 1:
        raise ConfigError(
            f"{type(part).__name__}: expected a signal of 9 channels, and layers, neighbours and "
            f"window of 1 or more; got {part.signal.channels}, {layers} and {neighbours}. Correct "
            "the backbone config."
        )
