import json
import math

import pytest
import torch

from robustness.test_curves import tokenizer
from tokenizers_vq import cli, hub
from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.robustness.curves import Judge
from tokenizers_vq.robustness.probe import entropies, page, probe
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes


@pytest.fixture
def report(pixels, tmp_path):
    return probe(tokenizer("rvq"), SyntheticImages(3, 40), tmp_path, size=32, limit=2)


def test_everything_is_measured_and_written(report, tmp_path):
    assert json.loads((tmp_path / "probe.json").read_text()) == json.loads(json.dumps(report))
    assert report["data"]["n"] == 2
    assert report["prefix"]["option"] == "num_codebooks"
    assert [point["share"] for point in report["token_drop"]] == [0, 0.05, 0.1, 0.25, 0.5]
    assert len(report["perturbation"]) == 8
    assert set(report["receptive_field"]) == {"decode", "encode"}
    text = (tmp_path / "probe.md").read_text()
    assert text == page(report)
    for heading in ("Missing tokens", "Prefixes", "Indices that stay", "Bits", "One codebook"):
        assert f"## {heading}" in text
    assert "n = 2, 32 px, seed 0" in text


def test_entropies_by_hand(pixels):
    judge = Judge.of(tokenizer("fsq"), pixels[:2])
    indices = torch.tensor([[[0, 0], [1, 0]], [[0, 1], [1, 1]]])  # 2 pictures, 2 places, 2 levels
    codes = Codes(indices, (32, 32), (4, 2))
    object.__setattr__(judge, "codes", [codes])
    found = entropies([indices], judge)
    assert found["per_level"] == pytest.approx([1, 1])
    assert found["per_position"]["bits"] == [1, 1]  # the second level alone differs
    assert found["per_position"]["bound"] == 2
    assert found["joint_bits"] == pytest.approx(2)
    assert found["nominal_bits"] == 2 * (2 + 1)
    assert found["marginal_bits"] == pytest.approx(2 * 2)
    assert found["tokens"] == 4
    assert math.isfinite(found["file_bits"])


def test_other_tokenizers_are_refused():
    one = Tokenizer.from_config(tokenizer_config("tiny_seanet", "rvq"), name="a.test").eval()
    with pytest.raises(ConfigError) as error:
        probe(one, SyntheticImages(2, 32))
    assert str(error.value) == (
        "probe: expected a tokenizer of pictures with codes; got a.test of kind audio. "
        "Use tvq doctor for others."
    )


def test_the_command_prints_the_page(pixels, tmp_path, capsys):
    folder = hub.save(tokenizer("fsq"), tmp_path / "tok")
    words = ["probe", str(folder), "--data", "synthetic_images", "--size", "32", "--limit", "2"]
    assert cli.main([*words, "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("# Robustness of tiny.test\n")
    assert (tmp_path / "out" / "probe.json").is_file()
