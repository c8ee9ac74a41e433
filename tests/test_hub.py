import json
from pathlib import Path

import pytest
import torch

import tokenizers_vq
from tokenizers_vq import files, hub
from tokenizers_vq.data.wheels import WheelPhotos
from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published.table import CHECKPOINTS
from tokenizers_vq.registry import build
from tokenizers_vq.tokenizer import Tokenizer


@pytest.fixture
def saved(tiny_tokenizer, tmp_path):
    return hub.save(tiny_tokenizer, tmp_path / "tok")


def error_of(call, *args, **kwargs):
    with pytest.raises(CheckpointError) as error:
        call(*args, **kwargs)
    return str(error.value)


def test_load_gives_back_what_was_saved(tiny_tokenizer, saved):
    again = tokenizers_vq.load(saved)
    x = torch.rand(1, 3, 40, 24) * 2 - 1
    assert not again.training
    assert again.name == tiny_tokenizer.name
    assert torch.equal(again.encode(x).indices, tiny_tokenizer.encode(x).indices)
    assert again.encode(x).model == f"{again.name}@{again.file_sha256[:8]}"


def test_a_file_of_the_folder_loads_it_too(saved):
    assert tokenizers_vq.load(saved / "model.safetensors").name == tokenizers_vq.load(saved).name


def test_half_precision_halves_the_file(tiny_tokenizer, saved, tmp_path):
    half = hub.save(tiny_tokenizer, tmp_path / "half", dtype=torch.float16)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, saved)]
    assert sizes[0] < 0.6 * sizes[1]
    assert next(tokenizers_vq.load(half).parameters()).dtype == torch.float32


def test_saving_again_replaces_the_tokenizer_and_keeps_other_files(tiny_config, saved):
    (saved / "notes.txt").write_text("mine")
    torch.manual_seed(1)
    other = Tokenizer.from_config(tiny_config, name="other.test")
    hub.save(other, saved, card="# Card")
    assert tokenizers_vq.load(saved).name == "other.test"
    assert (saved / "notes.txt").read_text() == "mine"
    assert (saved / "README.md").read_text() == "# Card"
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_crash_while_saving_keeps_the_old_tokenizer(tiny_config, saved, monkeypatch):
    before = tokenizers_vq.load(saved).file_sha256

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        hub.save(Tokenizer.from_config(tiny_config, name="other.test"), saved)
    assert tokenizers_vq.load(saved).file_sha256 == before


def test_a_crash_between_the_renames_loses_nothing(tiny_config, saved, monkeypatch):
    before = tokenizers_vq.load(saved).file_sha256
    (saved / "notes.txt").write_text("mine")
    rename = Path.rename

    def crash(self, target):
        if self.name.endswith(".part"):
            raise OSError("power cut")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(OSError, match="power cut"):
        hub.save(Tokenizer.from_config(tiny_config, name="other.test"), saved)
    monkeypatch.undo()
    assert tokenizers_vq.load(saved).file_sha256 == before
    hub.save(Tokenizer.from_config(tiny_config, name="other.test"), saved)
    assert tokenizers_vq.load(saved).name == "other.test"
    assert (saved / "notes.txt").read_text() == "mine"


def test_after_saving_the_object_is_the_tokenizer_in_the_file(tiny_tokenizer, tmp_path):
    folder = hub.save(tiny_tokenizer, tmp_path / "tok")
    assert tiny_tokenizer.model_id == tokenizers_vq.load(folder).model_id
    hub.save(tiny_tokenizer, tmp_path / "half", dtype=torch.float16)
    assert tiny_tokenizer.model_id == tokenizers_vq.load(folder).model_id


def test_the_discriminator_travels_along(tiny_tokenizer, tmp_path):
    config = {"name": "patchgan", "width": 8}
    module = build("discriminator", config)
    folder = hub.save(tiny_tokenizer, tmp_path / "tok", discriminator=(module, config))
    again = hub.load_discriminator(folder)
    for key, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_missing_things_are_one_sentence(saved, tmp_path):
    assert error_of(tokenizers_vq.load, "no_such.tokenizer").startswith(
        "load: 'no_such.tokenizer' is neither a folder nor a known name; known names are "
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert error_of(tokenizers_vq.load, empty) == (
        f"load: {empty} has no config.json; it is not a tokenizer folder."
    )
    (saved / "model.safetensors").unlink()
    assert error_of(tokenizers_vq.load, saved) == (
        f"load: {saved} has no model.safetensors; the folder is incomplete."
    )
    assert error_of(hub.load_discriminator, saved) == (
        f"load_discriminator: {saved} was saved without a discriminator."
    )


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damaged_weights_are_refused(saved, damage):
    path = saved / "model.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        del data[len(data) // 2 :]
    else:
        data[-1] ^= 1
    path.write_bytes(bytes(data))
    message = error_of(tokenizers_vq.load, saved)
    assert message.startswith(f"load: {path} is damaged or was changed: expected sha256 ")
    assert message.endswith("Save or download it again.")


def test_a_changed_config_is_refused(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["quantizer"]["levels"] = [4, 4]
    path.write_text(json.dumps(config))
    assert error_of(tokenizers_vq.load, saved) == (
        f"load: {path} was changed after it was saved (its sha256 differs)."
    )
    path.write_text('{"format": "tokeniz')
    assert error_of(tokenizers_vq.load, saved).startswith(f"load: {path} is not valid JSON (")
    path.write_text('{"format": "other/9"}')
    assert error_of(tokenizers_vq.load, saved) == (
        f"load: expected format 'tokenizers_vq/1' in {path}; got 'other/9'."
    )


def test_weights_of_another_config_are_refused(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["quantizer"]["levels"] = [4, 4]
    config["sha256"] = hub._config_hash(config)
    path.write_text(json.dumps(config))
    message = error_of(tokenizers_vq.load, saved)
    assert "of another shape in" in message
    assert message.endswith("The file is for another config.")


def test_a_config_that_names_code_is_refused(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["encoder"] = {"_target_": "os.system", "command": "true"}
    config["sha256"] = hub._config_hash(config)
    path.write_text(json.dumps(config))
    assert "does not describe a tokenizer" in error_of(tokenizers_vq.load, saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("files"), "load: expected 'name' and 'files' with model.safetensors in "),
        (lambda c: c.pop("name"), "load: expected 'name' and 'files' with model.safetensors in "),
        (lambda c: c["signal"].update(kind="smell"), "does not describe a tokenizer"),
        (lambda c: c.update(dim="wide"), "does not describe a tokenizer"),
        (lambda c: c["quantizer"].update(levels=0), "does not describe a tokenizer"),
    ],
)
def test_a_config_of_wrong_values_is_one_sentence(saved, edit, message):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    config["sha256"] = hub._config_hash(config)
    path.write_text(json.dumps(config))
    assert message in error_of(tokenizers_vq.load, saved)


def test_weights_that_are_no_safetensors_are_refused(saved):
    (saved / "model.safetensors").write_bytes(b"junk")
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["files"]["model.safetensors"] = hub._sha256(b"junk")
    config["sha256"] = hub._config_hash(config)
    path.write_text(json.dumps(config))
    assert "is not a safetensors file" in error_of(tokenizers_vq.load, saved)


def test_a_file_is_no_folder_to_save_in(tiny_tokenizer, tmp_path):
    path = tmp_path / "tok"
    path.write_text("")
    assert error_of(hub.save, tiny_tokenizer, path) == (
        f"save: expected a folder; got the file {path}. Name a new folder."
    )


def test_a_folder_of_other_files_is_not_overwritten(tiny_tokenizer, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    assert error_of(hub.save, tiny_tokenizer, tmp_path) == (
        f"save: {tmp_path} holds other files; choose a new or an empty folder."
    )
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_hub_names_resolve_through_the_hub(saved, monkeypatch):
    asked = []

    def fake(repo, revision, allow_patterns):
        asked.append((repo, revision))
        assert "model.safetensors" in allow_patterns
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert tokenizers_vq.load("hf:me/tok@v1").name == tokenizers_vq.load(saved).name
    tokenizers_vq.load("hf:me/tok", revision="main")
    assert asked == [("me/tok", "v1"), ("me/tok", "main")]


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def fake(*_, **__):
        raise OSError("network is unreachable\nlong trace")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert error_of(tokenizers_vq.load, "hf:me/tok") == (
        "load: could not get 'me/tok' from the Hugging Face hub: network is unreachable"
    )


def test_push_uploads_a_folder_that_loads(saved, monkeypatch):
    calls = []

    class FakeApi:
        def create_repo(self, repo, private, exist_ok):
            calls.append(("create", repo, private, exist_ok))

        def upload_folder(self, repo_id, folder_path):
            calls.append(("upload", repo_id, folder_path))
            return "https://hub/me/tok"

    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    assert hub.push(saved, "me/tok") == "https://hub/me/tok"
    assert calls == [("create", "me/tok", False, True), ("upload", "me/tok", str(saved))]


@pytest.mark.parametrize("name", sorted(set(hub.list_pretrained()) - set(CHECKPOINTS)))
def test_every_shipped_tokenizer_loads(name):
    assert tokenizers_vq.load(name).name == name


def test_the_shipped_sequence_gets_better_with_every_doubling():
    photos = WheelPhotos("heldout", size=256)
    x = photos[photos.ids.index("chelsea")][None]
    tok = tokenizers_vq.load("mini_one_d_piece_fsq.photos")
    errors = [
        float((tok.decode(tok.encode(x, num_tokens=n)) - x).square().mean())
        for n in (8, 16, 32, 64, 128)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.035  # 20.6 dB
    assert errors[-1] < 0.5 * errors[0]


def test_list_takes_a_pattern():
    assert tokenizers_vq.list("*no_such*") == []
