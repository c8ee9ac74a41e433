import pytest
import torch
from PIL import Image

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.images import ImageFolder
from tokenizers_vq.data.mixed import Mixed
from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.data.synthetic_shapes import SyntheticShapes
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.types import SignalSpec


def test_parts_follow_each_other(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    one, two = ImageFolder(tmp_path, size=8), SyntheticImages(n=2, size=8)
    mixed = Mixed([one, two, one])
    assert mixed.ids == ["00/a.png", "01/00000000", "01/00000001", "02/a.png"]
    assert mixed.skipped == {"00/b.png": "an empty file", "02/b.png": "an empty file"}
    assert torch.equal(mixed[0], one[0])
    assert torch.equal(mixed[7, 2], two[1])
    assert torch.equal(mixed[3], one[0])
    assert mixed.sha256() != Mixed([two, one, one]).sha256()


def test_a_part_comes_several_times_drawn_anew():
    one, two = SyntheticShapes(2, surface=8, queries=8), SyntheticShapes(3, 8, 8, seed=1)
    mixed = Mixed([one, two], repeats=[1, 2])
    assert mixed.ids[:2] == ["00/00000000", "00/00000001"]
    assert mixed.ids[4:6] == ["01/000000/00000002", "01/000001/00000000"]
    assert torch.equal(mixed[4], two[0, 2])
    assert torch.equal(mixed[5], two[1, 0])
    assert torch.equal(mixed[3, 5], two[7, 0])
    assert len({mixed[e, i].numpy().tobytes() for e in range(3) for i in (2, 5)}) == 6


def test_repeats_are_one_for_each_part():
    with pytest.raises(ConfigError) as error:
        Mixed([SyntheticImages(n=1, size=8)], repeats=[2, 2])
    assert str(error.value) == (
        "Mixed: expected 1 repeats of 1 or more, one for each part; got [2, 2]."
    )


def test_an_empty_mixture_and_different_signals_are_errors():
    with pytest.raises(DataError) as error:
        Mixed([])
    assert str(error.value) == "Mixed: expected at least one data set; got none."
    audio = SignalDataset(["a"], SignalSpec("audio", channels=1, sample_rate=16000))
    with pytest.raises(DataError, match="Mixed: expected one kind of signal; got "):
        Mixed([SyntheticImages(n=1, size=8), audio])
