"""Keys of the transformer blocks that CLIP named and its descendants publish."""

from tokenizers_vq.published.keys import Rule

_PARTS = (
    (r"ln_([12])\.(weight|bias)", r"norm\2.\3"),
    (r"attn\.in_proj_(weight|bias)", r"attn.qkv.\2"),
    (r"attn\.out_proj\.(weight|bias)", r"attn.proj.\2"),
    (r"mlp\.c_fc\.(weight|bias)", r"mlp.up.\2"),
    (r"mlp\.c_proj\.(weight|bias)", r"mlp.down.\2"),
)


def block_rules(source: str, target: str) -> list[Rule]:
    r"""Return the rules of ``backbones.transformer.Block``s.

    Args:
        source: regular expression of what stands before the number of the block, no groups.
        target: what we put before it, e.g. ``encoder.transformer.blocks.``.
    """
    return [Rule(rf"{source}(\d+)\.{theirs}", rf"{target}\1.{ours}") for theirs, ours in _PARTS]
