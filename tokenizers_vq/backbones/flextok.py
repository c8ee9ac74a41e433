"""FlexTok: registers in an order of importance, decoded by a rectified flow.

Reference:
    Bachmann et al., FlexTok: Resampling Images into 1D Token Sequences of Flexible Length, 2025,
    https://arxiv.org/abs/2502.13967.
    Differs: latents of the inner autoencoder are their mean, not drawn; without a generator every
    picture starts from the same noise, so that decoding repeats itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tokenizers_vq.backbones.base import Decoder, Encoder, TokenDecoder, TokenEncoder
from tokenizers_vq.backbones.distilled import one
from tokenizers_vq.backbones.flow import (
    FlowBlock,
    Guidance,
    PatchHead,
    TimeEmbedding,
    from_patches,
    grid_waves,
    prefix_causal,
    to_patches,
)
from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.types import Reconstruction, SignalSpec

if TYPE_CHECKING:
    from tokenizers_vq.tokenizer import Tokenizer

HEAD = 64  # width of an attention head
KEEPS = ("uniform", "pow2", "uniform_pow2")


class Latents:
    """Where the latents of an autoencoder lie: their channels, grid and scale.

    Args:
        where: the name the messages start with.
        vae: encoder or decoder of the autoencoder; None where signals are latents already.
        signal: what the signal means.
        size: samples along each side of it.
        patch: side of the patches of latents.
        channels: of the latents.

    Raises:
        ConfigError: the sizes do not fit each other.
    """

    def __init__(
        self,
        where: str,
        vae: Encoder | Decoder | None,
        signal: SignalSpec,
        size: int,
        patch: int,
        channels: int,
    ) -> None:
        step = 1 if vae is None else vae.stride[0]
        self.stride = (step * patch, step * patch)
        if size < 1 or size % self.stride[0]:
            raise ConfigError(
                f"{where}: expected a size in multiples of {self.stride[0]}; got {size}. "
                "Correct the backbone config."
            )
        if vae is None and signal.channels != channels:
            raise ConfigError(
                f"{where}: expected a vae, or signals of {channels} channels that are latents; "
                f"got {signal.channels} channels. Add a vae to the backbone config."
            )
        self.size = (size, size)
        self.side = size // step
        self.grid = (self.side // patch, self.side // patch)


class FlexTokEncoder(TokenEncoder):
    """Transformer with registers that see the picture and the registers before them.

    Since a register does not see later ones, the first n of a picture are the same whatever the
    number asked for.

    Args:
        dim: latent width D.
        signal: what the pixels mean, or the latents where there is no ``vae``.
        vae: config of the autoencoder's encoder, whose first ``channels`` latents are means; or
            that encoder; None where signals are latents already.
        depth: blocks; the width is 64 times as much, unless given.
        width: W; None for 64 times the depth.
        registers: how many.
        size: samples along each side of the signal.
        patch: side of the patches of latents.
        channels: of the autoencoder's latents.
        scale: what latents are multiplied with, so that their variance is about 1.

    Shapes:
        x (B, C, size, size) -> z (B, n, D), n of 1..registers

    Raises:
        ConfigError: the sizes do not fit each other.

    Reference:
        Bachmann et al., 2025, https://arxiv.org/abs/2502.13967, section 3.1.
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        vae: Encoder | Sequence[Encoder] | None = None,
        *,
        depth: int = 12,
        width: int | None = None,
        registers: int = 256,
        size: int = 256,
        patch: int = 2,
        channels: int = 16,
        scale: float = 1.0,
    ) -> None:
        inner = None if vae is None else one("FlexTokEncoder", vae)
        place = Latents("FlexTokEncoder", inner, signal, size, patch, channels)
        super().__init__(dim, place.stride, signal)
        self.size = place.size
        self.counts = tuple(range(1, registers + 1))
        self.patch, self.channels, self.scale = patch, channels, scale
        width = 64 * depth if width is None else width
        self.vae = inner
        self.embed = nn.Linear(channels * patch**2, width)
        self.register_buffer("position", grid_waves(*place.grid, width))
        self.registers = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(registers, width), std=0.02)
        )
        self.blocks = nn.ModuleList([FlowBlock(width, width // HEAD or 1) for _ in range(depth)])
        self.head = PatchHead(width, dim, modulated=False)

    position: Tensor

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the latent width of a vae that names none: the one of this encoder."""
        return dim

    def latents(self, x: Tensor) -> Tensor:
        """Return the scaled latents ``(B, channels, h, w)`` of the autoencoder."""
        if self.vae is None:
            return x * self.scale
        means: Tensor = self.vae(x)[..., : self.channels].movedim(-1, 1)
        return means * self.scale

    def forward(self, x: Tensor, num_tokens: int | None = None) -> Tensor:
        """Return latents ``(B, num_tokens, D)``."""
        self.check_signal(x)
        return self.read(self.latents(x), self.check_count(num_tokens))

    def read(self, latents: Tensor, count: int) -> Tensor:
        """Return the first ``count`` registers ``(B, count, D)`` of scaled latents."""
        rows = self.embed(to_patches(latents, self.patch))
        rows = rows + self.position.flatten(2).transpose(1, 2)
        tokens = self.registers[:count].expand(rows.shape[0], -1, -1)
        mask = prefix_causal(rows.shape[1], count).to(rows.device)
        h = torch.cat([rows, tokens], dim=1)
        for block in self.blocks:
            h = block(h, mask)
        z: Tensor = self.head(h[:, rows.shape[1] :])
        return z


class FlexTokDecoder(TokenDecoder):
    """Rectified flow from noise to the latents of an autoencoder, and that autoencoder's decoder.

    Args:
        dim: latent width D.
        signal: what the pixels mean, or the latents where there is no ``vae``.
        vae: config of the autoencoder's decoder, or that decoder; None where signals are latents.
        depth: blocks; the width is 64 times as much, unless given.
        width: W; None for 64 times the depth.
        registers: how many tokens there are at most.
        size: samples along each side of the signal.
        patch: side of the patches of latents.
        channels: of the autoencoder's latents.
        scale: what latents were multiplied with.
        modulated_head: let the time modulate the last layer too.
        steps: of Euler's method where the caller says nothing.
        guidance: where the caller says nothing.
        keep: how many tokens a training step keeps: ``"uniform"``, ``"pow2"`` or
            ``"uniform_pow2"``, the next power of two of a uniform one.
        null_share: how often training leaves all tokens out.
        hidden_layer: how many blocks a patch has been through when training shows it to objectives
            that teach it (REPA); None shows nothing.

    Shapes:
        z_q (B, n, D) -> x_hat (B, C, size, size), n of 1..registers

    Raises:
        ConfigError: the sizes do not fit each other, or there is no such ``keep`` or layer.

    Reference:
        Bachmann et al., 2025, https://arxiv.org/abs/2502.13967, section 3.2; Liu et al., Flow
        Straight and Fast, 2022, https://arxiv.org/abs/2209.03003.
    """

    options: Mapping[str, str] = MappingProxyType(
        {
            "steps": "evaluations of the flow, more for finer pictures",
            "guidance": "how strongly to follow the tokens; 1 halves the work",
            "projected": "adaptive projected guidance instead of plain classifier-free guidance",
            "generator": "torch.Generator that draws the noise; the same noise for all without one",
        }
    )

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int,
        signal: SignalSpec,
        vae: Decoder | Sequence[Decoder] | None = None,
        *,
        depth: int = 12,
        width: int | None = None,
        registers: int = 256,
        size: int = 256,
        patch: int = 2,
        channels: int = 16,
        scale: float = 1.0,
        modulated_head: bool = True,
        steps: int = 20,
        guidance: float = 7.5,
        keep: str = "uniform",
        null_share: float = 0.1,
        hidden_layer: int | None = None,
    ) -> None:
        if keep not in KEEPS:
            raise unknown_name("flextok keep", keep, KEEPS)
        if hidden_layer is not None and not 1 <= hidden_layer <= depth:
            raise ConfigError(
                f"FlexTokDecoder: expected a hidden_layer of 1..{depth}, the number of blocks; got "
                f"{hidden_layer}. Correct the backbone config."
            )
        inner = None if vae is None else one("FlexTokDecoder", vae)
        place = Latents("FlexTokDecoder", inner, signal, size, patch, channels)
        super().__init__(dim, place.stride, signal)
        self.size, self.grid_shape = place.size, place.grid
        self.counts = tuple(range(1, registers + 1))
        self.patch, self.scale = patch, scale
        self.steps, self.guidance, self.keep, self.null_share = steps, guidance, keep, null_share
        self.hidden_layer = hidden_layer
        width = 64 * depth if width is None else width
        self.embed_tokens = nn.Linear(dim, width)
        self.token_position = _rows(1, 1, width, registers)
        self.mask_token, self.null_token = _rows(width), _rows(width)
        self.embed = nn.Linear(channels * patch**2, width)
        self.register_buffer("position", grid_waves(*place.grid, width))
        self.time = TimeEmbedding(width)
        self.blocks = nn.ModuleList(
            [FlowBlock(width, width // HEAD or 1, sets=2) for _ in range(depth)]
        )
        self.head = PatchHead(width, channels * patch**2, modulated_head)
        self.vae = inner
        drawn = torch.Generator().manual_seed(0)
        noise = torch.randn(1, channels, place.side, place.side, generator=drawn, device="cpu")
        self.register_buffer("noise", noise, persistent=False)

    position: Tensor
    noise: Tensor
    inner_dim = staticmethod(FlexTokEncoder.inner_dim)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the autoencoder's last layer, or of the flow's."""
        return self.head.proj.weight if self.vae is None else self.vae.last_layer

    def forward(
        self,
        z_q: Tensor,
        mask: Tensor | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        projected: bool = True,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Return pictures ``(B, C, size, size)`` of latents ``(B, n, D)``.

        Args:
            z_q: ``(B, n, D)``.
            mask: ``(B, n)`` bool, True at tokens that are there; None for all.
            steps: evaluations of the flow; None for the decoder's own number.
            guidance: how strongly to follow the tokens; None for the decoder's own.
            projected: adaptive projected guidance instead of plain guidance.
            generator: draws the noise; None for the same noise at every call.
            **options: none.

        Raises:
            ShapeError: ``z_q`` has another rank or width, or n is more than there are.
            ConfigError: ``steps`` is below 1.
        """
        self.check_latents(z_q)
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ConfigError(
                f"FlexTokDecoder: expected steps of at least 1; got {steps}. 20 is usual."
            )
        scale = self.guidance if guidance is None else guidance
        latents = self.sample(self.tokens(z_q, mask), steps, Guidance(scale, projected), generator)
        latents = latents / self.scale
        if self.vae is None:
            return latents
        x_hat: Tensor = self.vae(latents.movedim(1, -1))
        return x_hat

    def tokens(self, z_q: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return all rows of tokens ``(B, registers, W)``; missing ones are the mask token."""
        batch, count = z_q.shape[:2]
        rows = self.embed_tokens(z_q) + self.token_position[0, 0].T[:count]
        if mask is not None:
            rows = torch.where(mask[..., None], rows, self.mask_token)
        missing = self.mask_token.expand(batch, self.counts[-1] - count, -1)
        return torch.cat([rows, missing.to(rows.dtype)], dim=1)

    def sample(
        self,
        tokens: Tensor,
        steps: int,
        guide: Guidance,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return latents ``(B, channels, h, w)``: Euler's method from noise at 1 to pictures at 0.

        Args:
            tokens: rows ``(B, registers, W)``.
            steps: how many.
            guide: how predictions with and without tokens are combined.
            generator: draws the noise.
        """
        batch = tokens.shape[0]
        x = self.noise.expand(batch, -1, -1, -1).to(tokens.dtype)
        if generator is not None:
            noise = torch.randn(x.shape, generator=generator, device=generator.device)
            x = noise.to(tokens)
        nothing = self.null_token.expand(tokens.shape)
        for step in range(steps, 0, -1):
            time = torch.full((1,), step / steps, device=x.device).expand(batch)
            velocity = self.velocity(x, time, tokens)
            if guide.scale != 1:
                velocity = guide(velocity, self.velocity(x, time, nothing))
            x = x - velocity / steps
        return x

    def velocity(
        self, x: Tensor, time: Tensor, tokens: Tensor, shown: list[Tensor] | None = None
    ) -> Tensor:
        """Return the velocity ``(B, channels, h, w)`` of noised latents ``x`` at times ``(B,)``.

        Args:
            x: ``(B, channels, h, w)``.
            time: ``(B,)``.
            tokens: rows ``(B, registers, W)``.
            shown: gets the patches ``(B, h, w, W)`` behind block ``hidden_layer``.
        """
        rows = self.embed(to_patches(x, self.patch))
        rows = rows + self.position.flatten(2).transpose(1, 2)
        condition = self.time(time)
        parts = (rows.shape[1], tokens.shape[1])
        h = torch.cat([rows, tokens.to(rows.dtype)], dim=1)
        for count, block in enumerate(self.blocks, start=1):
            h = block(h, None, condition, parts)
            if shown is not None and count == self.hidden_layer:
                shown.append(h[:, : parts[0]].unflatten(1, self.grid_shape))
        return from_patches(self.head(h[:, : parts[0]], condition), self.patch, self.grid_shape)

    def training_pass(self, tokenizer: Tokenizer, x: Tensor, step: int) -> Reconstruction:
        """Return what a training step compares: ``terms["velocity"]``, and no picture.

        ``|v(x_s) - (noise - latents)|^2`` with ``x_s = s noise + (1 - s) latents`` and s the
        logistic function of a normal number. ``hidden`` is the layer asked for. Of each picture
        the first k tokens are kept, and sometimes none; the autoencoder learns nothing.

        Args:
            tokenizer: this decoder's.
            x: ``(B, C, size, size)``.
            step: optimizer steps taken so far.
        """
        encoder = tokenizer.encoder
        if not isinstance(encoder, FlexTokEncoder):
            raise ConfigError(
                f"FlexTokDecoder: expected a FlexTokEncoder to train with; got "
                f"{type(encoder).__name__}. Choose backbone flextok for both."
            )
        encoder.check_signal(x)
        with torch.no_grad():
            latents = encoder.latents(x)
        z = encoder.read(latents, encoder.num_tokens)
        quantized = tokenizer.quantizer(z)
        tokens = self.tokens(quantized.z_q, self._kept(z))
        none = torch.rand(z.shape[0], 1, 1, device=z.device) < self.null_share
        tokens = torch.where(none, self.null_token.to(tokens.dtype), tokens)
        time = torch.randn(z.shape[0], device=z.device).sigmoid()
        noise = torch.randn_like(latents)
        s = time[:, None, None, None].to(latents.dtype)
        shown: list[Tensor] = []
        velocity = self.velocity(s * noise + (1 - s) * latents, time, tokens, shown)
        loss = (velocity.float() - (noise - latents).float()).square().mean()
        hidden = shown[0] if shown else None
        return Reconstruction(x.new_empty(0), z, quantized, {"velocity": loss}, hidden=hidden)

    def _kept(self, z: Tensor) -> Tensor:
        """Draw which tokens ``(B, n)`` training keeps: the first k of each picture."""
        batch, count = z.shape[:2]
        if self.keep == "pow2":
            kept = 2 ** torch.randint(0, count.bit_length(), (batch,), device=z.device)
        else:
            kept = torch.randint(1, count + 1, (batch,), device=z.device)
        if self.keep == "uniform_pow2":
            kept = 2 ** kept.float().log2().ceil().long()
        return torch.arange(count, device=z.device) < kept[:, None]


def _rows(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))
