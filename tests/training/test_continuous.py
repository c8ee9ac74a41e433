"""A continuous autoencoder trains by the same command, and gets tokens by a fit."""

import csv

import torch

import tokenizers_vq
from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.training.run import run


def test_a_continuous_run_is_published_and_fitted(small):
    result = run(small("quantizer=gaussian", "quantizer.channels=4", "name=tiny.test"))
    with (result.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert "codebook/usage" not in rows[0]
    assert [row["step"] for row in rows if row["val/psnr"]] == ["2", "4"]
    tokenizer = tokenizers_vq.load(result.folder / "tokenizer")
    assert tokenizer.prior is None
    images = SyntheticImages(n=3, size=32)
    signals = [images[k] for k in range(3)]
    new = tokenizers_vq.fit(tokenizer, signals, {"name": "token_bridge", "bits": 4})
    x = signals[0][None]
    assert new.encode(x).indices.shape[-1] == 4
    with torch.no_grad():
        difference = (new(x).x_hat - tokenizer(x).x_hat).square().mean()
        assert float(difference) < 0.05 * float(tokenizer(x).x_hat.var())
