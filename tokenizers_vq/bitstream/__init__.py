"""The ``.tok`` file: indices of any tokenizer as few exact bytes, coded with integers only."""

from tokenizers_vq.bitstream.container import from_bytes, info, read_tok, to_bytes, write_tok
from tokenizers_vq.bitstream.priors import CountPrior

__all__ = ["CountPrior", "from_bytes", "info", "read_tok", "to_bytes", "write_tok"]
