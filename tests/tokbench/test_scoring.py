import pytest

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokbench.scoring import (
    FACE_BUCKETS,
    TEXT_BUCKETS,
    bucket,
    by_bucket,
    edges_of,
    edit_distance,
    ned,
    wilson,
)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("Flaw", "lawn", 2), ("a", "a", 0),
     ("Café", "Cafe", 1), ("AB", "BA", 2)],
)  # fmt: skip
def test_edit_distances_by_hand(a, b, distance):
    assert edit_distance(a, b) == distance


def test_ned_is_of_the_longer_one_and_raw():
    assert ned("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert ned("Word", "word") == pytest.approx(3 / 4)
    assert ned("word", "") == 0
    assert ned("word", "word") == 1


def test_buckets_are_half_open():
    edges = edges_of(TEXT_BUCKETS, 256)
    assert [bucket(r, edges) for r in (0.0199, 0.02, 0.03, 0.0399, 0.04, 0.99, 1.0)] == [
        None, "small", "medium", "medium", "large", "large", None,
    ]  # fmt: skip
    assert edges_of(FACE_BUCKETS, 1024) == (0.02, 0.05, 0.1, 1.0)
    with pytest.raises(ConfigError) as error:
        edges_of(TEXT_BUCKETS, 300)
    assert str(error.value) == (
        "tokbench: expected a side of 256, 512, 1024; got 300. The buckets are defined for these."
    )


def test_the_mean_is_that_of_the_buckets_not_of_the_words():
    ratios = [0.025, 0.035, 0.05, 0.05, 0.05, 0.5, 0.001]
    values = [0, 1, 1, 1, 0, 0, 1]
    found = by_bucket(values, ratios, edges_of(TEXT_BUCKETS, 256), share=True)
    assert [found[k]["value"] for k in ("small", "medium", "large")] == [0, 1, 0.5]
    assert [found[k]["n"] for k in ("small", "medium", "large")] == [1, 1, 4]
    assert found["mean"] == 0.5
    empty = by_bucket([1], [0.05], edges_of(TEXT_BUCKETS, 256), share=True)
    assert (empty["small"]["value"], empty["mean"]) == (None, None)


def test_means_have_bootstrap_intervals_where_values_are_independent():
    edges = edges_of(TEXT_BUCKETS, 256)
    values, ratios = [0.0, 0.5, 1.0, 0.5], [0.5] * 4
    low, high = by_bucket(values, ratios, edges, share=False)["large"]["interval"]
    assert 0 < low < 0.5 < high < 1
    none = by_bucket(values, ratios, edges, share=False, intervals=False)
    assert none["large"] == {"value": 0.5, "n": 4, "interval": None}


def test_wilsons_interval_by_hand():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 5)[0] == 0
    assert wilson(0, 0) is None
