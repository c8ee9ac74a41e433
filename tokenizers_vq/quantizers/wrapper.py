"""What heads around one other head share."""

from collections.abc import Sequence

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.rows import RowQuantizer, row_parts


class Wrapper(RowQuantizer):
    """A head around one other, with its codebooks and its state.

    Args:
        dim: latent width D; None for the inner head's.
        inner: the head inside, alone or as the only item of a list (what a config makes of it).

    Raises:
        ConfigError: there is not exactly one inner head, or its tokens depend on their place.
    """

    nested = True
    inner: RowQuantizer

    def __init__(self, dim: int | None, inner: Quantizer | Sequence[Quantizer]) -> None:
        name = type(self).__name__
        one = inner[0] if isinstance(inner, list | tuple) and len(inner) == 1 else inner
        if not isinstance(one, Quantizer):
            got = f"{len(one)} of them" if isinstance(one, list | tuple) else f"{one!r:.80}"
            raise ConfigError(
                f"{name}: expected one inner quantizer; got {got}. "
                "Give inner a mapping with a name."
            )
        (head,) = row_parts([one], name)
        width = head.dim if dim is None else dim
        super().__init__(width, width, head.codebook_sizes)
        self.inner = head

    def check_width(self, width: int, hint: str) -> None:
        """Raise ``ConfigError`` unless the inner head is as wide as ``width``."""
        if self.inner.dim != width:
            raise ConfigError(
                f"{type(self).__name__}: expected an inner quantizer of width {width}; "
                f"got {self.inner.dim}. {hint}"
            )

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the width of the inner head: that of the whole."""
        return dim

    def complete(self, indices: Tensor) -> Tensor:
        """Return ``indices`` with all K columns, as the inner head fills them."""
        return self.inner.complete(indices)

    @property
    def digits(self) -> tuple[tuple[int, ...], ...]:
        """The radices of the inner head's indices."""
        return self.inner.digits

    @property
    def has_state(self) -> bool:
        """Whether ``update`` changes the inner head."""
        return self.inner.has_state

    @property
    def learns_by_update(self) -> bool:
        """Whether the inner head learns in ``update`` only."""
        return self.inner.learns_by_update
