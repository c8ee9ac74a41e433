import pytest
import torch
from reference.mean_codec import MeanCodec

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.verify.properties import PROPERTIES, compared
from tokenizers_vq.verify.subject import subject_of

FAULTS = {  # the fault, and the property that has to find it
    "int32": "index_round_trip",
    "forward": "index_round_trip",
    "noise": "decode_is_deterministic",
    "batch": "batches_do_not_mix",
    "length": "padding_changes_nothing",
    "dtype": "dtypes_agree",
    "threads": "threads_agree",
    "place": "order_does_not_matter",
    "history": "order_does_not_matter",
    "short": "sizes_are_exact",
    "looks ahead": "the_future_is_unseen",
    "careless": "bad_indices_are_refused",
    "state": "evaluation_changes_nothing",
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_codec_without_faults_keeps_all_bit_for_bit(name):
    assert PROPERTIES[name](subject_of(MeanCodec())).verdict == "exact"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found(fault):
    assert PROPERTIES[FAULTS[fault]](subject_of(MeanCodec(fault))).verdict == "broken"


def test_sizes_that_do_not_come_back_are_named():
    found = PROPERTIES["sizes_are_exact"](subject_of(MeanCodec("short")))
    assert found.verdict == "broken"
    assert found.text == "5 of 5 sizes: 1: ShapeError; 3: ShapeError; 15: ShapeError"


def test_every_property_has_a_fault():
    assert set(FAULTS.values()) == set(PROPERTIES)


def test_the_verdict_is_that_of_the_worst_figure():
    assert compared("a", 0.0, 0.0).verdict == "exact"
    assert compared("a", 0.01, 0.0).verdict == "close"
    assert compared("a", 0.0, 1e-4).verdict == "close"
    assert compared("a", 0.0101, 0.0).verdict == "broken"
    assert compared("a", 0.0, 1.1e-4).verdict == "broken"
    assert compared("a", 0.0, float("nan")).verdict == "broken"
    assert compared("two ways", 0.005, 0.0).text == (
        "two ways: 0.50% of the tokens differ, same samples"
    )


def test_a_look_ahead_that_is_not_denied_is_measured():
    codec = MeanCodec("looks ahead")
    codec.causal = False
    found = PROPERTIES["the_future_is_unseen"](subject_of(codec))
    assert found.verdict == "not claimed"
    assert found.text.startswith("a later change reaches 1 positions back in encoding")


def test_probes_are_the_same_every_time_and_in_range():
    a, b = subject_of(MeanCodec()).x, subject_of(MeanCodec()).x
    assert torch.equal(a, b)
    assert a.shape == (4, 1, 96)
    assert float(a.abs().max()) <= 1
    assert not torch.equal(a, subject_of(MeanCodec(), seed=1).x)


def test_anything_else_is_refused():
    with pytest.raises(ConfigError) as error:
        subject_of(torch.nn.Linear(2, 2))
    assert str(error.value) == (
        "verify: expected a tokenizer of this library, or a Foreign; got Linear. "
        "Write the ten lines of docs/receipts.md."
    )
