"""Every head keeps every property of the contract that concerns it."""

import pytest
from our_heads import TRAITS, Ours
from properties import GRAPHS, PROPERTIES
from properties_ranks import RANK_PROPERTIES

TRACED = ("vq", "rvq", "fsq", "bsq", "simvq")  # tracing costs seconds: one of a kind
PAIRS = [
    (name, check)
    for check, trait in PROPERTIES.items()
    for name, traits in TRAITS.items()
    if (not trait or trait in traits) and (check not in GRAPHS or name in TRACED)
]
RANKS = [("bsq" if trait == "binary" else "vq", check) for check, trait in RANK_PROPERTIES.items()]


@pytest.mark.parametrize(("name", "check"), PAIRS, ids=lambda it: getattr(it, "__name__", it))
def test_a_head_keeps_the_contract(name, check):
    check(Ours(name))


@pytest.mark.parametrize(("name", "check"), RANKS, ids=lambda it: getattr(it, "__name__", it))
def test_ranks_keep_the_contract(name, check):
    check(Ours(name))
