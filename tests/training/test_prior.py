import torch

from tokenizers_vq import hub
from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.training.prior import fit_prior


def test_files_get_smaller_and_decode_to_the_same_picture(tiny_tokenizer, tmp_path):
    x = SyntheticImages(1, 64, seed=5)[0][None]
    fixed = tiny_tokenizer.compress(x)
    tiny_tokenizer.prior = fit_prior(tiny_tokenizer, SyntheticImages(6, 64, seed=1), items=10)
    coded = tiny_tokenizer.compress(x)
    assert len(coded) < len(fixed)
    assert torch.equal(
        tiny_tokenizer.decompress(coded), tiny_tokenizer.decode(tiny_tokenizer.encode(x))
    )
    again = hub.load(hub.save(tiny_tokenizer, tmp_path / "tok"))
    assert again.prior.model == again.model_id
    assert len(again.compress(x)) == len(coded)


def test_items_are_drawn_epoch_after_epoch(tiny_tokenizer):
    class Recorder(SyntheticImages):
        def item(self, index, epoch):
            drawn.append((epoch, index))
            return super().item(index, epoch)

    drawn = []
    fit_prior(tiny_tokenizer.train(), Recorder(2, 32, seed=0), items=5)
    assert drawn == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert tiny_tokenizer.training
