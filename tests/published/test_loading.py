import json

import pytest
import torch
from reference.published_checks import picture
from reference.published_vqgan import Net, Shape, run_vq
from safetensors.torch import save_file

import tokenizers_vq
from tokenizers_vq import cli
from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published import families, loading
from tokenizers_vq.published.table import CHECKPOINTS, Checkpoint

CONFIG = {"n_embed": 12, "embed_dim": 4}


@pytest.fixture(scope="module")
def state():
    net = Net()
    run_vq(net, picture(1, 8, 8), Shape(d=4), 12)
    return net.state


def first_line(error):
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors", "jit"])
def test_each_kind_of_file_gives_its_tensors(state, tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    if suffix == "ckpt":
        torch.save({"state_dict": state, "epoch": 3, "lr": [1e-4]}, path)
    elif suffix == "safetensors":
        save_file(state, path)
    else:
        module = torch.nn.Module()
        for key, value in state.items():
            holder = module
            *path_to, leaf = key.split(".")
            for step in path_to:
                if not hasattr(holder, step):
                    holder.add_module(step, torch.nn.Module())
                holder = getattr(holder, step)
            holder.register_buffer(leaf, value)
        with pytest.warns(FutureWarning, match="jit"):
            torch.jit.script(module).save(str(path))
    tok = loading.import_file([path], "taming", CONFIG)
    codebook = tok.quantizer.codebook.detach()
    assert torch.equal(codebook, state["quantize.embedding.weight"])


def test_old_pickles_are_read_too(state, tmp_path):
    path = tmp_path / "old.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert set(loading.read_file(path)) == set(state)


def test_a_file_in_two_parts_is_merged(state, tmp_path):
    parts = [{k: v for k, v in state.items() if k.startswith("dec") == d} for d in (True, False)]
    paths = [tmp_path / "decoder.pt", tmp_path / "encoder.pt"]
    for path, part in zip(paths, parts, strict=True):
        torch.save(part, path)
    assert set(loading.import_file(paths, "taming").source["files"]) == {"decoder.pt", "encoder.pt"}


class Callback:
    """Something that a pickle may hold and nobody should run."""


def test_pickles_of_more_than_data_are_refused(state, tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state, "callbacks": Callback()}, path)
    with pytest.raises(CheckpointError) as error:
        loading.read_file(path)
    assert first_line(error) == (
        f"import: expected tensors and plain data in {path}; got a pickle that needs "
        f"{Callback.__module__}.Callback. Save its state dict as safetensors where the published "
        "code is installed."
    )


def test_damaged_and_missing_files_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError) as error:
        loading.read_file(path)
    assert first_line(error) == f"import: expected a file; got {path}. Check the path."
    for name in ("model.safetensors", "model.pt", "model.jit", "model.onnx"):
        (tmp_path / name).write_bytes(b"no tensors")
        with pytest.raises(CheckpointError) as error:
            loading.read_file(tmp_path / name)
        assert first_line(error).startswith("import: expected ")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError) as error:
        loading.read_file(tmp_path / "list.pt")
    assert first_line(error) == (
        f"import: expected a checkpoint in {tmp_path / 'list.pt'}; got a file that cannot be read "
        "(a list, not a mapping). Download it again."
    )


def test_a_name_of_the_table_is_downloaded_and_its_source_is_kept(state, tmp_path, monkeypatch):
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": state}, path)
    asked = []

    def fake(repo, file, revision):
        asked.append((repo, file, revision))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake)
    entry = Checkpoint("org/vqgan", ("x.ckpt",), config=CONFIG, licence="MIT")
    monkeypatch.setitem(CHECKPOINTS, "taming.in1k_f16_16384", entry)
    tok = tokenizers_vq.load("taming.in1k_f16_16384", revision="v1")
    assert asked == [("org/vqgan", "x.ckpt", "v1")]
    assert tok.name == "taming.in1k_f16_16384"
    tok.save(tmp_path / "saved")
    again = tokenizers_vq.load(tmp_path / "saved")
    assert again.source == tok.source == {
        "family": "taming", "from": "org/vqgan", "files": {"x.ckpt": loading._sha256(path)},
        "weights": "ema", "licence": "MIT",
    }  # fmt: skip
    x = picture(1, 8, 8)
    assert torch.equal(again.encode(x).indices, tok.encode(x).indices)
    monkeypatch.setitem(CHECKPOINTS, "taming.other", Checkpoint("org/vqgan", ("x",), sha256="00"))
    with pytest.raises(CheckpointError, match=r"import: expected sha256 00\.\. of .*; got "):
        loading.load_published("taming.other")


def test_what_cannot_be_had_is_one_sentence(monkeypatch):
    def fake(*_, **__):
        raise OSError("network is unreachable\nlong trace")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fake)
    with pytest.raises(CheckpointError) as error:
        tokenizers_vq.load("var.in1k")
    assert first_line(error) == (
        "load: expected vae_ch160v4096z32.pth of 'FoundationVision/var' for 'var.in1k'; got no "
        "download (network is unreachable). Connect to the network, or download it elsewhere and "
        "run `tvq import`."
    )
    with pytest.raises(CheckpointError) as error:
        tokenizers_vq.load("taming.ldm_vq_f8")
    assert first_line(error) == (
        "load: expected a checkpoint on the Hugging Face hub; got 'taming.ldm_vq_f8', which is at "
        "https://ommer-lab.com/files/latent-diffusion/vq-f8.zip. Download it there and run "
        "`tvq import FILE --family taming`."
    )
    with pytest.raises(ConfigError, match=r"load: there is no 'taming\.none'; choose one of "):
        loading.load_published("taming.none")


def test_the_table_names_known_families_and_plain_data():
    listed = {name.partition(".")[0] for name in CHECKPOINTS}
    # vit_vq was not released; stable-codec's config lies beside its weights, and we know no copy
    assert listed >= set(families()) - {"vit_vq", "stable_codec"}
    for name, entry in CHECKPOINTS.items():
        assert name.partition(".")[0] in families(), name
        assert json.loads(json.dumps(entry.config)) == entry.config, name
        assert entry.files, name
        assert (entry.repo is None) == bool(entry.page), name
        assert entry.weights in ("ema", "raw"), name
    assert set(CHECKPOINTS) <= set(tokenizers_vq.list())


def test_tvq_import_writes_a_folder(state, tmp_path, capsys):
    path, out = tmp_path / "x.ckpt", tmp_path / "out"
    torch.save({"state_dict": state}, path)
    words = ["import", str(path), "--family", "taming", "-o", str(out), "--name", "my.vqgan"]
    assert cli.main([*words, "--config", json.dumps(CONFIG)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: my.vqgan@")
    assert tokenizers_vq.load(out).source["weights"] == "ema"
    (tmp_path / "config.json").write_text(json.dumps({"n_embed": 3}))
    assert cli.main([*words, "--config", str(tmp_path / "config.json")]) == 2
    assert capsys.readouterr().err.startswith(
        "tvq import: from_published('taming'): expected n_embed of 12, as the tensors have it; got"
    )
    assert cli.main([*words, "--config", "{"]) == 2
    assert capsys.readouterr().err.startswith(
        "tvq import: import: expected JSON, or a file of it, as --config; got '{' ("
    )
