import hashlib

import pytest
import torch
from reference.sounds import build, measured, pretend, voice

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.metrics import utmos, weights


class Network(torch.nn.Module):
    """A stand-in with the package's interface: two numbers instead of 100 million."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(1))
        self.bias = torch.nn.Parameter(torch.zeros(1))


class Scorer:
    def __init__(self, path):
        self.state = torch.load(path, weights_only=True)

    def __call__(self, x):
        assert x.shape[0] == 1
        return self.state["gain"] * x.shape[1] / 16000 + self.state["bias"]


@pytest.fixture
def file(monkeypatch, tmp_path):
    pretend(monkeypatch, "utmos_pytorch")
    pretend(monkeypatch, "utmos_pytorch.utmos_torch", UTMOSModel=Network, UTMOSScoreTorch=Scorer)
    utmos._model.cache_clear()
    path = tmp_path / "utmos_state_dict.pt"
    torch.save({"gain": torch.tensor([2.0]), "bias": torch.tensor([1.0])}, path)
    yield path
    utmos._model.cache_clear()


def test_the_score_is_that_of_the_file_and_carries_its_hash(file):
    given = {"utmos22-strong": str(file)}
    x = voice(1, rate=24000)
    score = measured("utmos", x, x, weights=given, sample_rate=24000)["utmos"]
    assert score.value == 3
    assert score.detail["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_folder_of_weights_is_looked_into(file, monkeypatch):
    monkeypatch.setenv("TVQ_WEIGHTS", str(file.parent))
    assert measured("utmos", voice(1), voice(1))["utmos"].value == 3


def test_without_weights_it_is_skipped_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    score = build("utmos").compute()["utmos"]
    assert score.reason == (
        "weights utmos22-strong (utmos_state_dict.pt) not found; give --weights utmos22-strong=FILE"
    )
    assert "weights_sha256" not in score.detail


def test_other_weights_are_refused_where_the_package_would_go_on(file):
    torch.save({"gain": torch.tensor([2.0])}, file)
    with pytest.raises(CheckpointError) as caught:
        measured("utmos", voice(1), voice(1), weights={"utmos22-strong": str(file)})
    assert str(caught.value) == (
        f"weights utmos22-strong: expected the 2 tensors of UTMOS in '{file}'; got none of bias "
        "and 0 more. Give utmos_state_dict.pt of its authors."
    )


def test_the_key_is_known_to_the_command_line():
    assert weights.parse_weights(["utmos22-strong=a.pt"]) == {"utmos22-strong": "a.pt"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_equals_the_package_called_directly_with_random_weights(tmp_path):
    from utmos_pytorch import utmos_torch

    torch.manual_seed(0)
    path = tmp_path / "utmos_state_dict.pt"
    torch.save(utmos_torch.UTMOSModel().state_dict(), path)
    x = voice(1)
    with torch.no_grad():
        wanted = float(utmos_torch.UTMOSScoreTorch(str(path))(x))
    score = measured("utmos", x, x, weights={"utmos22-strong": str(path)})["utmos"]
    assert score.value == pytest.approx(wanted, abs=1e-5)
