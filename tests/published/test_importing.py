import pytest
import torch

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published import families, from_published
from tokenizers_vq.published.importing import require
from tokenizers_vq.published.keys import Rule, drop, fold_weight_norm, rename
from tokenizers_vq.published.wrappers import agree, check_config, constructor_values, unwrap

ANY = ("ema", "here")
ONE, TWO = torch.ones(2), torch.full((2,), 2.0)


def first_line(error):
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize(
    "file",
    [
        {"a.b": ONE},
        {"state_dict": {"a.b": ONE}, "epoch": 1},
        {"model": {"module.a.b": ONE}},
        {"ema": {"_orig_mod.a.b": ONE}, "model": {"a.b": TWO}},
        {"state_dict": {"a.b": TWO, "model_ema.ab": ONE, "model_ema.decay": TWO}},
        {"ema_state_dict": {"module.module.a.b": ONE, "n_averaged": TWO}, "state_dict": {}},
        {"module._orig_mod.a.b": ONE},
        {"generator.a.b": ONE},
        {"best_state": {"model": {"a.b": ONE}}},
        {"state_dict": {"generator": {"module.a.b": ONE}}, "model": 3},
        {"a.b": ONE, "loss.discriminator.main.0.weight": TWO, "lpips.lin0": TWO, "step": 3},
    ],
    ids=range(11),
)
def test_wrappers_prefixes_and_averages(file):
    state = unwrap(file, "ema", "here")
    assert list(state) == ["a.b"]
    assert torch.equal(state["a.b"], ONE)


@pytest.mark.parametrize(
    "file",
    [
        {"ema": {"a.b": TWO}, "model": {"a.b": ONE}},
        {"state_dict": {"a.b": ONE, "model_ema.ab": TWO}},
        {"ema_state_dict": {"a.b": TWO}, "state_dict": {"module.a.b": ONE}},
        {"ema": {"a.b": ONE}},
    ],
    ids=range(4),
)
def test_raw_weights_are_those_of_the_last_step_where_there_are_any(file):
    assert torch.equal(unwrap(file, "raw", "here")["a.b"], ONE)


def test_a_prefix_that_not_every_key_has_stays():
    assert set(unwrap({"module.a": ONE, "b": ONE}, "ema", "here")) == {"module.a", "b"}


def test_what_is_no_state_dict_is_named():
    with pytest.raises(CheckpointError) as error:
        unwrap({"epoch": 3}, "ema", "here")
    assert first_line(error) == (
        "here: expected a state dict of tensors; got the keys ['epoch']. Pass what the published "
        "file holds."
    )
    with pytest.raises(ConfigError) as error:
        unwrap({"a": ONE}, "best", "here")
    assert first_line(error) == "here: expected weights of 'ema' or 'raw'; got 'best'."
    with pytest.raises(CheckpointError) as error:
        unwrap({"a.b": ONE, "ab": ONE, "model_ema.ab": TWO}, "ema", "here")
    assert first_line(error) == (
        "here: expected averaged weights with one name each; got a.b and ab under one name. Import "
        "with weights='raw'."
    )
    with pytest.raises(CheckpointError) as error:
        unwrap({"a.b": ONE, "model_ema.ab": TWO, "model_ema.lossd": TWO, "model_ema.c": TWO}, *ANY)
    assert first_line(error) == (
        "here: expected averages of tensors that are in the file; got model_ema.c. Import the file "
        "as it was published, or with weights='raw'."
    )


def test_rules_rename_drop_and_split():
    rules = [
        drop(r"old\..*", "no longer needed"),
        Rule(r"qkv\.(\w+)", r"{}.\1", lambda x: dict(zip("qkv", x.chunk(3), strict=True))),
        Rule(r"up\.(\d)", lambda match: f"level.{3 - int(match[1])}"),
    ]
    state = {"old.x": ONE, "qkv.weight": torch.arange(3.0), "up.1": TWO}
    ours = rename(state, rules, "here")
    assert {key: value.tolist() for key, value in ours.items()} == {
        "q.weight": [0.0], "k.weight": [1.0], "v.weight": [2.0], "level.2": [2.0, 2.0],
    }  # fmt: skip


def test_keys_without_rule_and_with_two_sources_are_named():
    with pytest.raises(CheckpointError) as error:
        rename({"a": ONE, "b": ONE}, [Rule("a", "x")], "here")
    assert first_line(error) == (
        "here: expected only keys of this family; got 1 others (first: b). Is it a checkpoint of "
        "another family?"
    )
    with pytest.raises(CheckpointError) as error:
        rename({"a": ONE, "b": ONE}, [Rule("a|b", "x")], "here")
    assert first_line(error) == (
        "here: expected one tensor for x; got a second one, b. Import the file as it was published."
    )


def test_weight_norm_of_half_precision_is_multiplied_out_in_float32():
    direction, gain = torch.tensor([[3.0, 4.0]], dtype=torch.float16), torch.tensor([[1.0]])
    folded = fold_weight_norm({"a.weight_g": gain.half(), "a.weight_v": direction})
    assert folded["a.weight"].dtype == torch.float32
    torch.testing.assert_close(folded["a.weight"], torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize("normalize", ["weight_norm", "parametrizations"])
def test_weight_norm_is_multiplied_out_per_first_dimension(normalize):
    direction, gain = torch.tensor([[[3.0], [4.0]], [[0.0], [2.0]]]), torch.tensor([10.0, 3.0])
    parts = ("g", "v") if normalize == "weight_norm" else ("original0", "original1")
    names = [f"up.weight_{part}" for part in parts]
    if normalize == "parametrizations":
        names = [f"up.parametrizations.weight.{part}" for part in parts]
    state = {names[0]: gain[:, None, None], names[1]: direction, "up.bias": ONE}
    folded = fold_weight_norm(state)
    assert set(folded) == {"up.weight", "up.bias"}
    torch.testing.assert_close(folded["up.weight"], torch.tensor([[[6.0], [8.0]], [[0.0], [3.0]]]))
    with pytest.raises(CheckpointError) as error:
        fold_weight_norm({names[0]: gain})
    assert first_line(error) == (
        f"fold_weight_norm: expected the direction of {names[0]}; got none. Import the file as it "
        "was published."
    )
    with pytest.raises(CheckpointError) as error:
        fold_weight_norm({names[1]: gain})
    assert first_line(error) == (
        f"fold_weight_norm: expected the gain of {names[1]}; got none. Import the file as it was "
        "published."
    )
    with pytest.raises(CheckpointError) as error:
        fold_weight_norm({names[0]: gain[:1], names[1]: direction})
    assert first_line(error) == (
        f"fold_weight_norm: expected a gain {names[0]} for each of 2; got 1. Import the file as it "
        "was published."
    )


def test_constructor_values_are_found_checked_and_compared():
    assert constructor_values({"model": {"params": {"a": 1}}}) == {"a": 1}
    assert constructor_values({"model": {"init_args": {"a": 1}}, "data": 3}) == {"a": 1}
    assert constructor_values({"model": {"vq_model": {}}}) == {"model": {"vq_model": {}}}
    with pytest.raises(ConfigError) as error:
        check_config({"a": 1, "c": 2}, ("a", "b"), "here")
    assert first_line(error) == (
        "here: expected constructor values of a, b; got 'c'. Pass those of the published model."
    )
    agree({"a": (1, 2), "b": None}, {"a": [1, 2], "b": 3, "c": 4}, "here")
    with pytest.raises(CheckpointError) as error:
        agree({"a": 1}, {"a": 2}, "here")
    assert first_line(error) == (
        "here: expected a of 2, as the tensors have it; got 1 in config. Pass the constructor "
        "values of this checkpoint."
    )
    with pytest.raises(ConfigError) as error:
        require({"a": 1}, "b", "titok")
    assert first_line(error) == (
        "from_published('titok'): expected the constructor value 'b'; got ['a']. The weights alone "
        "do not determine it: pass it in config."
    )


def test_unknown_families_list_the_known_ones():
    with pytest.raises(ConfigError) as error:
        from_published("vqvae", {})
    known = ", ".join(families())
    assert first_line(error) == f"from_published: there is no 'vqvae'; choose one of {known}."
