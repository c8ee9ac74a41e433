import pytest
import torch

from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.data.transforms import to_signal, to_uint8
from tokenizers_vq.metrics.similarity import psnr
from tokenizers_vq.robustness.curves import Judge, levels, perturbation, prefixes, token_drop
from tokenizers_vq.tokenizer import Tokenizer


def tokenizer(head: str) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer.from_config(tokenizer_config("tiny_cnn2d", head), name="tiny.test").eval()


def plain(one: Tokenizer, pixels: torch.Tensor) -> float:
    fake = to_uint8(one.decode(one.encode(to_signal(pixels))))
    return float(psnr(pixels, fake).mean())


def test_no_damage_is_the_plain_reconstruction(pixels):
    one = tokenizer("fsq")
    judge = Judge.of(one, pixels)
    assert judge.space == "EffLite0"
    assert [len(codes.indices) for codes in judge.codes] == [4, 1]
    expected = pytest.approx(plain(one, pixels), abs=1e-4)
    assert token_drop(judge, shares=[0.0])[0]["psnr"] == expected
    assert perturbation(judge, rates=[0.0], counts=[3])[0]["psnr"] == expected


def test_all_tokens_missing_is_the_picture_of_zeros(pixels):
    one = tokenizer("fsq")
    judge = Judge.of(one, pixels[:2])
    codes = judge.codes[0]
    with torch.no_grad():
        zeros = one.decoder(torch.zeros(2, *codes.indices.shape[1:-1], one.decoder.dim))
    expected = float(psnr(pixels[:2], to_uint8(zeros.clamp(-1, 1))).mean())
    point = token_drop(judge, shares=[1.0])[0]
    assert point["share"] == 1
    assert point["psnr"] == pytest.approx(expected, abs=1e-4)


def test_damage_is_nested_and_drawn_from_the_seed(pixels):
    judge = Judge.of(tokenizer("fsq"), pixels)
    seen = []

    def spy(change, **options):
        seen.append([change(codes.indices) for codes in judge.codes])
        return {"psnr": 0.0}

    object.__setattr__(judge, "decoded", spy)
    token_drop(judge, shares=[0.2, 0.6])
    few, many = (torch.cat(one).lt(0).all(-1) for one in seen)
    assert bool((many | ~few).all())
    assert 0.05 < float(few.double().mean()) < 0.4 < float(many.double().mean()) < 0.8
    perturbation(judge, rates=[1.0], counts=[2])
    perturbation(judge, rates=[1.0], counts=[2])
    assert all(torch.equal(a, b) for a, b in zip(seen[-1], seen[-2], strict=True))
    assert not torch.equal(seen[-1][0], judge.codes[0].indices)


def test_prefixes_are_those_of_the_tokenizer(pixels):
    one = tokenizer("rvq")
    judge = Judge.of(one, pixels)
    option, points = prefixes(judge, most=4)
    assert option == "num_codebooks"
    assert points[-1]["num_codebooks"] == one.quantizer.num_codebooks
    assert points[-1]["psnr"] == pytest.approx(plain(one, pixels), abs=1e-4)
    assert prefixes(Judge.of(tokenizer("fsq"), pixels)) == ("", [])


def test_one_level_at_a_time_changes_that_level(pixels):
    judge = Judge.of(tokenizer("rvq"), pixels)
    changed = []

    def spy(change, **options):
        indices = judge.codes[0].indices
        changed.append((change(indices) != indices).flatten(0, -2).any(0).tolist())
        return {}

    object.__setattr__(judge, "decoded", spy)
    count = judge.tokenizer.quantizer.num_codebooks
    points = levels(judge, most=count)
    assert [point["codebook"] for point in points] == list(range(count))
    assert changed == [[k == j for k in range(count)] for j in range(count)]
