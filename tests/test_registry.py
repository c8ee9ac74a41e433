import pytest

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in registry.TABLES for name in registry.names(kind)]
)
def test_every_registered_name_resolves_to_a_documented_class(kind, name):
    assert registry.resolve(kind, name).__doc__


def test_unknown_name_lists_the_choices():
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", {"name": "fqs"}, dim=8)
    assert str(error.value) == (
        f"quantizer: there is no 'fqs'; choose one of {', '.join(registry.names('quantizer'))}."
    )


def test_unknown_option_names_the_real_one():
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", {"name": "fsq", "level": [8, 5]}, dim=8)
    assert str(error.value).startswith("quantizer 'fsq' has no option 'level'; it takes ")
    assert str(error.value).endswith("Did you mean 'levels'?")


def test_missing_option_is_named():
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", {"name": "fsq"}, dim=8)
    assert str(error.value) == "quantizer 'fsq': missing option levels."


def test_a_config_without_a_name_is_refused():
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", {"levels": [8, 5]})
    assert str(error.value) == (
        "quantizer: expected a mapping with a 'name'; got {'levels': [8, 5]}."
    )


def test_nested_heads_are_nested_data():
    head = registry.build(
        "quantizer",
        {"name": "grouped", "groups": {"repeat": 2, "of": {"name": "lfq", "bits": 6}}},
        dim=12,
    )
    assert head.codebook_sizes == (64, 64)
    stacked = registry.build(
        "quantizer",
        {"name": "residual", "stages": [{"name": "vq", "codebook_size": n} for n in (8, 16)]},
        dim=4,
    )
    assert stacked.codebook_sizes == (8, 16)


def test_a_head_that_does_not_nest_refuses_nested_heads():
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", {"name": "fsq", "levels": {"name": "vq"}}, dim=4)
    assert str(error.value) == (
        "quantizer 'fsq': option 'levels' takes no nested parts; got {'name': 'vq'}. "
        "Give it plain values, or choose a part that nests others."
    )


def test_a_value_of_a_wrong_type_names_the_part(monkeypatch):
    monkeypatch.setitem(registry.QUANTIZERS, "mine", "builtins:complex")
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", {"name": "mine", "real": []})
    assert str(error.value).startswith(
        "quantizer 'mine': expected options of other types; got TypeError: "
    )


def test_parts_that_repeat_do_not_share_weights():
    of = {"name": "vq", "codebook_size": 8}
    head = registry.build(
        "quantizer", {"name": "residual", "stages": {"repeat": 2, "of": of}}, dim=4
    )
    pointers = [parameter.data_ptr() for parameter in head.parameters()]
    assert len(set(pointers)) == len(pointers)


def test_a_third_party_part_is_one_line(monkeypatch):
    monkeypatch.setitem(registry.QUANTIZERS, "mine", "tokenizers_vq.quantizers.lfq:LFQ")
    assert registry.build("quantizer", {"name": "mine", "bits": 4}, dim=4).codebook_sizes == (16,)


@pytest.mark.parametrize(
    "stages",
    [{"repeat": "x", "of": {}}, {"repeat": 0, "of": {}}, {"repeat": 2.5, "of": {}}, {"repeat": 2}],
)
def test_a_repetition_that_is_none_is_refused(stages):
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", {"name": "residual", "stages": stages}, dim=4)
    assert str(error.value) == (
        "registry: expected {repeat: n, of: {name: ...}} with n of at least 1; got "
        f"{stages!r}. Give both."
    )


@pytest.mark.parametrize(
    ("name", "option"), [("residual", "stages"), ("grouped", "groups"), ("multi_scale", "inner")]
)
def test_parts_that_are_no_mappings_are_refused(name, option):
    config = {"name": name, option: ["vq", "vq"]}
    config |= {"scales": [1, 2]} if name == "multi_scale" else {}
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", config, dim=4)
    assert str(error.value).endswith(": expected quantizers; got 'vq'. Give mappings with a name.")
