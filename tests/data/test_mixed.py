import pytest
import torch
from PIL import Image

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.images import ImageFolder
from tokenizers_vq.data.mixed import Mixed
from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.errors import DataError
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


def test_an_empty_mixture_and_different_signals_are_errors():
    with pytest.raises(DataError) as error:
        Mixed([])
    assert str(error.value) == "Mixed: expected at least one data set; got none."
    audio = SignalDataset(["a"], SignalSpec("audio", channels=1, sample_rate=16000))
    with pytest.raises(DataError, match="Mixed: expected one kind of signal; got "):
        Mixed([SyntheticImages(n=1, size=8), audio])
