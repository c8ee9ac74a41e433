"""Where a run writes, and where it goes on."""

import pytest

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.training.folder import SHARED, open_folder


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv(SHARED, "")
    return {
        "name": "tiny_fsq",
        "folder": None,
        "outputs": str(tmp_path),
        "resume": None,
        "backbone": {"dim": 8},
        "quantizer": {"name": "fsq"},
    }


def stopped(config):
    """Return the folder of a run that has a checkpoint."""
    run = open_folder(config)
    (run.path / "last.ckpt").touch()
    return run.path


def test_new_runs_get_new_folders(config):
    first, second = open_folder(config), open_folder(config)
    assert first.path != second.path
    assert first.path.name.endswith("_tiny_fsq")
    assert first.checkpoint is None
    assert (first.path / "config.yaml").is_file()


def test_auto_goes_on_in_the_newest_folder_of_that_name(config):
    first, second = stopped(config), stopped(config)
    stopped(config | {"name": "other"})
    assert first != second
    run = open_folder(config | {"resume": "auto"})
    assert (run.path, run.checkpoint) == (second, second / "last.ckpt")


def test_auto_leaves_runs_alone_whose_name_ends_alike(config):
    """A glob would take the name for a pattern and find runs that only end in it."""
    for other in ("my_tiny.fsq", "tiny_fsq", "1_tiny.fsq"):
        stopped(config | {"name": other})
    config |= {"resume": "auto"}
    assert open_folder(config | {"name": "tiny.fsq"}).checkpoint is None
    assert open_folder(config | {"name": "tiny_fs?"}).checkpoint is None
    assert open_folder(config | {"name": "fsq"}).checkpoint is None
    assert open_folder(config | {"name": "my_tiny.fsq"}).checkpoint is not None


def test_auto_starts_anew_when_there_is_nothing(config):
    assert open_folder(config | {"resume": "auto"}).checkpoint is None


def test_a_folder_or_a_checkpoint_can_be_named(config):
    folder = stopped(config)
    for resume in (folder, folder / "last.ckpt"):
        run = open_folder(config | {"resume": str(resume)})
        assert (run.path, run.checkpoint) == (folder, folder / "last.ckpt")
    assert open_folder(config | {"folder": str(folder), "resume": "auto"}).path == folder


def test_a_run_is_never_overwritten(config):
    folder = stopped(config)
    with pytest.raises(ConfigError) as error:
        open_folder(config | {"folder": str(folder)})
    assert str(error.value) == (
        f"train: expected a new folder; got {folder}, which has a last.ckpt. "
        "Add resume=auto to go on, or choose another folder."
    )


def test_a_path_without_a_checkpoint_is_refused(config, tmp_path):
    with pytest.raises(CheckpointError) as error:
        open_folder(config | {"resume": str(tmp_path)})
    assert str(error.value) == (
        f"train: expected a run folder or a checkpoint to resume; got {tmp_path}, which has none. "
        "Correct the path, or use resume=auto."
    )


def test_another_tokenizer_does_not_go_on(config):
    folder = stopped(config)
    with pytest.raises(ConfigError) as error:
        open_folder(config | {"resume": "auto", "quantizer": {"name": "lfq"}})
    assert str(error.value) == (
        f"train: expected the quantizer of {folder} to go on; got {{'name': 'lfq'}} instead of "
        "{'name': 'fsq'}. Start a new run, or resume with the same quantizer."
    )
