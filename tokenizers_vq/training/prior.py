"""The entropy coder's statistics: counted on training items once the tokenizer is trained."""

import torch

from tokenizers_vq.bitstream import CountPrior
from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.tokenizer import Tokenizer


@torch.no_grad()
def fit_prior(tokenizer: Tokenizer, dataset: SignalDataset, items: int) -> CountPrior:
    """Fit a prior to the codes of ``items`` draws from ``dataset``, epoch after epoch.

    Args:
        tokenizer: trained; encodes one item at a time, so items may differ in size.
        dataset: training items, drawn at the size at which files will be written: what surrounds
            a position counts. Never the items that are measured afterwards.
        items: how many.
    """
    training = tokenizer.training
    tokenizer.eval()
    codes = []
    for n in range(items):
        epoch, index = divmod(n, len(dataset))
        signal = dataset[epoch, index][None]
        codes.append(tokenizer.encode(signal).indices[0].cpu().numpy())
    tokenizer.train(training)
    quantizer = tokenizer.quantizer
    return CountPrior.fit(codes, quantizer.codebook_sizes, quantizer.digits, tokenizer.model_id)
