"""``scripts/manifests.py``: tables of checkpoints of which only keys and shapes are known."""

import json
import runpy
from pathlib import Path

import pytest
from reference.published_vit import make_titok

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "manifests.py"))
VALUES = {
    "vit_enc_model_size": "tiny", "vit_dec_model_size": "tiny", "token_size": 6,
    "num_latent_tokens": 5,
}  # fmt: skip


def manifest(folder, name, state):
    """Write the keys and shapes of tensors to a folder."""
    entries = {key: [list(value.shape), "float32", "float"] for key, value in state.items()}
    (folder / f"{name}.json").write_text(json.dumps(entries))
    (folder / f"{name}.config.json").write_text(json.dumps({"config": VALUES}))


def test_a_checkpoint_is_counted_without_its_weights(tmp_path, capsys):
    state = make_titok()
    manifest(tmp_path, "titok_l5_full", state)
    assert SCRIPT["main"]([str(tmp_path)]) == 0
    numbers = sum(value.numel() for value in state.values())
    row = f"| `titok_l5` | `titok` | {numbers:,} | equal | 5 at 8 px |"
    assert capsys.readouterr().out.splitlines() == [*SCRIPT["HEAD"], row]


def test_a_checkpoint_that_does_not_load_is_named_and_counted(tmp_path, capsys):
    state = make_titok()
    del state["decoder.mask_token"]
    manifest(tmp_path, "one_d_piece_s5", state)
    assert SCRIPT["main"]([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("one_d_piece_s5: from_published('one_d_piece'): ")


@pytest.mark.parametrize(
    ("name", "family"),
    [("bsqvit_128_b18", "bsq_vit"), ("tatitok_bl32_vq", "ta_titok"), ("simvq_8k", "simvq")],
)
def test_names_begin_with_their_family(name, family):
    assert SCRIPT["family_of"](name) == family
