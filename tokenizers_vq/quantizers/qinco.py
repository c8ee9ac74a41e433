"""Residual quantization whose codebooks depend on the sum so far, through small networks.

Reference:
    Huijben et al., Residual Quantization with Implicit Neural Codebooks, 2024,
    https://arxiv.org/abs/2401.14732, section 3, eq. 3-6.
    Differs from the paper: errors are means over tokens and dimensions and over the stages, not
    sums; the networks start at zero, that is as ordinary residual quantization; a commitment term
    pulls the latents of an encoder to their codes; a dead code restarts at what a latent of the
    step has left over at its stage, not at a normal variable of the same mean and variance.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.functional.codebook import kmeans, restart_dead
from tokenizers_vq.functional.distributed import gather_rows, sum_over_ranks
from tokenizers_vq.functional.nearest import nearest_codes
from tokenizers_vq.functional.straight_through import straight_through
from tokenizers_vq.ops import code_stats, nearest_code
from tokenizers_vq.quantizers.code_network import CodeNetwork
from tokenizers_vq.quantizers.flat import Flat, Tokens, check_share, code_width, mean_square
from tokenizers_vq.quantizers.rows import RowQuantizer
from tokenizers_vq.quantizers.stages import beam_search, draw_depth, fill_prefix

CHUNK = {"cpu": 2**18}  # numbers in one layer of the search, which should stay in the cache
ELSEWHERE = 2**24  # the same on accelerators: 64 MiB of float32
DECAY = 0.99  # of the moving average of each code's count
GRAPH_CODES = 32  # codes per block in a traced graph, where the rows may be dynamic
KMEANS = ("none", "random", "plusplus")


class QINCo(RowQuantizer):
    """Residual quantization with implicit neural codebooks.

    Stage 0 is vector quantization. Stage m moves its K codes by a network that sees the sum of the
    stages before, and takes the one that brings the sum nearest to the latent. Gradients pass
    through the chosen path only, and from the error of a stage also to those before it. The search
    costs ``K * (2 d^2 + 2 L d h)`` multiplications per token and stage, decoding one K-th of that.

    Args:
        dim: latent width D; None for ``code_dim``.
        codebook_size: number of codes K of each stage.
        depth: number of stages M.
        code_dim: width d of the codes; None for ``dim``.
        hidden: width h of the networks' blocks.
        blocks: number L of blocks per network.
        commitment_weight: pulls latents to the sums; 0 where there is no encoder to train.
        codebook_weight: pulls the sums to the latents.
        kmeans_init: start all codebooks from k-means of the first update's residuals: ``"none"``,
            or the seeding ``"random"`` or ``"plusplus"``.
        restart_threshold: a code is dead below this share of the mean count of its stage, and
            ``update`` restarts it; 0 never restarts.
        stage_dropout: probability that an item of a training batch stops after a random number of
            stages, 1 to all.
        beam: number of partial sums that go on from stage to stage in the search.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, M).
        ``decode`` takes any number of leading columns.

    Terms:
        ``commitment`` and ``codebook``: the squared error of the sum so far, mean over the stages;
        term/i after stage i.

    Raises:
        ConfigError: both widths are missing, a size is below 1, ``stage_dropout`` or
            ``restart_threshold`` is not in 0..1, or the seeding has no such name.

    Example:
        >>> q = QINCo(dim=8, codebook_size=16, depth=3)
        >>> q(torch.zeros(2, 4, 4, 8)).indices.shape
        torch.Size([2, 4, 4, 3])
    """

    nested = True
    additive = False
    float32_buffers = ("initialized", "counts", "updates")
    initialized: Tensor
    counts: Tensor
    updates: Tensor

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int | None = None,
        *,
        codebook_size: int,
        depth: int,
        code_dim: int | None = None,
        hidden: int = 256,
        blocks: int = 2,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        kmeans_init: str = "none",
        restart_threshold: float = 0.05,
        stage_dropout: float = 0.0,
        beam: int = 1,
    ) -> None:
        width = code_width("QINCo", dim, code_dim)
        counts = {"depth": depth, "hidden": hidden, "blocks": blocks, "beam": beam}
        for option, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"QINCo: expected {option} of at least 1; got {value!r}. "
                    "Give a positive whole number."
                )
        if kmeans_init not in KMEANS:
            raise unknown_name("QINCo kmeans_init", kmeans_init, KMEANS)
        check_share("QINCo", stage_dropout=stage_dropout, restart_threshold=restart_threshold)
        super().__init__(dim, width, (codebook_size,) * depth)
        self.kmeans_init = kmeans_init
        self.restart_threshold = restart_threshold
        self.hidden = hidden
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.stage_dropout = stage_dropout
        self.beam = beam
        self.networks = nn.ModuleList(CodeNetwork(width, hidden, blocks) for _ in range(depth - 1))
        spread = width**-0.5 * 0.5 ** torch.arange(depth)  # residuals shrink from stage to stage
        codes = torch.randn(depth, codebook_size, width) * spread[:, None, None]
        self.codebook = nn.Parameter(codes)
        self.register_buffer("initialized", torch.zeros(()))
        self.register_buffer("counts", torch.ones(depth, codebook_size))
        self.register_buffer("updates", torch.zeros(()))

    def quantize(self, u: Tensor, source: Tensor, tokens: Tokens) -> Flat:
        """Quantize stage by stage; one straight-through estimator around the last sum."""
        count = self.num_codebooks
        dropout = self.stage_dropout if self.training else 0.0
        depth = draw_depth(tokens, 1, count, dropout, self.generator)
        with torch.no_grad():
            indices = self._search(u, depth)
        sums = self._sums(indices)
        errors: dict[str, list[Tensor]] = {"commitment": [], "codebook": []}
        for i, total in enumerate(sums):
            valid = tokens.valid & (depth > i)
            errors["commitment"].append(mean_square(u, total.detach(), valid))
            errors["codebook"].append(mean_square(total, u.detach(), valid))
        commitment, codebook = (torch.stack(error).mean() for error in errors.values())
        loss = self.commitment_weight * commitment + self.codebook_weight * codebook
        terms = {"commitment": commitment.detach(), "codebook": codebook.detach()}
        for name, error in errors.items():
            terms |= {f"{name}/{i}": term.detach() for i, term in enumerate(error)}
        return Flat(straight_through(source, sums[-1]), indices, loss, terms)

    def code_indices(self, u: Tensor) -> Tensor:
        """Return the indices ``(N, M)`` of all stages."""
        return self._search(u, torch.full_like(u[:, 0], self.num_codebooks, dtype=torch.int64))

    def code_vectors(self, indices: Tensor) -> Tensor:
        """Return the sums ``(N, d)`` of the moved codes of ``indices (N, M)``; -1 adds nothing."""
        return self._sums(indices)[-1]

    def code_update(self, u: Tensor, indices: Tensor, skipped: Tensor) -> bool:
        """Start all codebooks in the first step with rows; restart dead codes in later ones."""
        (rows,) = sum_over_ranks(u.new_tensor(float(u.shape[0])))
        if not bool(rows > 0):
            return False
        self.updates += 1
        if self.kmeans_init != "none" and not bool(self.initialized):
            self._start_from(u)
            return True
        if self.restart_threshold > 0:
            self._restart(u, indices)
        return False

    def _start_from(self, u: Tensor) -> None:
        """Replace each codebook by k-means of what the stages before leave over."""
        total = torch.zeros_like(u)
        for stage, size in enumerate(self.codebook_sizes):
            rest = u - total
            codes, _ = kmeans(
                rest,
                size,
                candidates=gather_rows(rest, limit=8 * size),
                seeding=self.kmeans_init,
                generator=torch.Generator().manual_seed(stage),
                all_reduce=sum_over_ranks,
            )
            self.codebook[stage] = codes.to(self.codebook.dtype)
            total = total + self._moved(stage, self._nearest(stage, u, total, 1)[:, 0], total)
        self.initialized.fill_(1)

    def _restart(self, u: Tensor, indices: Tensor) -> None:
        """Move dead codes of each stage to what the stages before left over of this step's rows."""
        sums = [torch.zeros_like(u), *self._sums(indices)]
        for stage, size in enumerate(self.codebook_sizes):
            used = indices[:, stage] >= 0
            now, _ = code_stats(u[used], indices[used, stage], size)
            self.counts[stage].lerp_(sum_over_ranks(now)[0], 1 - DECAY)
            before = self.counts[stage].clone()
            if not bool((before < self.restart_threshold * before.mean()).any()):
                continue
            pool = gather_rows((u - sums[stage])[used], limit=size)
            # New at every step and the same on all ranks, whose global generators differ.
            generator = torch.Generator().manual_seed(int(self.updates))
            codes, counts = restart_dead(
                self.codebook[stage].float(), before, pool, self.restart_threshold, generator
            )
            moved = counts != before
            self.codebook[stage, moved] = codes[moved].to(self.codebook.dtype)
            self.counts[stage] = counts

    def complete(self, indices: Tensor) -> Tensor:
        """Return ``indices (..., k)``, a prefix of the stages, filled up with -1.

        Raises:
            ShapeError: there is no column.
        """
        return fill_prefix(indices, self.num_codebooks)

    @property
    def has_state(self) -> bool:
        """Whether ``update`` does anything."""
        return self.learns_by_update or self.restart_threshold > 0

    @property
    def learns_by_update(self) -> bool:
        """Whether the codebooks start in ``update``."""
        return self.kmeans_init != "none"

    # ---------------------------------------------------------------------------------------------

    def _moved(self, stage: int, index: Tensor, total: Tensor) -> Tensor:
        """Return the codes ``(N, d)`` of ``index (N,)`` at sums ``total (N, d)``."""
        codes = F.embedding(index, self.codebook[stage].float())
        if stage == 0:
            return codes
        moved: Tensor = self.networks[stage - 1](codes, total)
        return moved

    def _sums(self, indices: Tensor) -> list[Tensor]:
        """Return the sums ``(N, d)`` after each stage."""
        total = self._anchor.new_zeros(indices.shape[0], self.code_dim, dtype=torch.float32)
        sums = []
        for stage in range(self.num_codebooks):
            index = indices[:, stage]
            moved = self._moved(stage, index.clamp(min=0), total)
            total = total + torch.where((index >= 0)[:, None], moved, 0.0)
            sums.append(total)
        return sums

    def _search(self, u: Tensor, depth: Tensor) -> Tensor:
        """Return the indices ``(N, M)``, of a beam where it is nearer; -1 from ``depth`` on."""
        greedy = self._greedy(u, depth)
        if self.beam == 1:
            return greedy

        def propose(stage: int, u: Tensor, total: Tensor, count: int) -> tuple[Tensor, Tensor]:
            index = self._nearest(stage, u, total, count)
            again = total.repeat_interleave(index.shape[1], dim=0)
            moved = self._moved(stage, index.flatten(), again)
            return index[..., None], moved.reshape(*index.shape, moved.shape[1])

        wide = beam_search(propose, u, depth, self.num_codebooks, self.beam)
        errors = [(u - self.code_vectors(index)).square().sum(-1) for index in (greedy, wide)]
        return torch.where((errors[1] < errors[0])[:, None], wide, greedy)

    def _greedy(self, u: Tensor, depth: Tensor) -> Tensor:
        total = torch.zeros_like(u)
        columns = []
        for stage in range(self.num_codebooks):
            index = self._nearest(stage, u, total, 1)[:, 0]
            columns.append(torch.where(depth > stage, index, -1))
            total = total + self._moved(stage, index, total)
        return torch.stack(columns, dim=1)

    def _nearest(self, stage: int, u: Tensor, total: Tensor, count: int) -> Tensor:
        """Return the ``(N, count)`` codes that bring ``total`` nearest to ``u``, nearest first."""
        codes = self.codebook[stage].float()
        if stage == 0 and count == 1:
            return nearest_code(u, codes)[1][:, None]
        if stage == 0:
            return nearest_codes(u, codes, count)
        count = min(count, codes.shape[0])
        if torch.compiler.is_compiling():
            return self._best(stage, u, total, count)
        chunk = CHUNK.get(u.device.type, ELSEWHERE)
        rows = max(1, chunk // (codes.shape[0] * max(self.code_dim, self.hidden)))
        parts = zip(torch.split(u, rows), torch.split(total, rows), strict=True)
        return torch.cat([self._best(stage, part, base, count) for part, base in parts])

    def _best(self, stage: int, u: Tensor, total: Tensor, count: int) -> Tensor:
        codes = self.codebook[stage].float()
        block = GRAPH_CODES if torch.compiler.is_compiling() else codes.shape[0]
        scores = []
        for part in torch.split(codes, block):
            moved = self.networks[stage - 1](part[None], total[:, None])
            # As in nearest_code: the length of the residual is the same for all codes.
            scores.append((moved * ((u - total)[:, None] - 0.5 * moved)).sum(-1))
        score = torch.cat(scores, dim=1)
        return score.argmax(1, keepdim=True) if count == 1 else score.topk(count, dim=1).indices
