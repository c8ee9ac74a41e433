"""Published weights of other projects, as tokenizers of this one: one file per family."""

from tokenizers_vq.published.importing import families, from_published

__all__ = ["families", "from_published"]
