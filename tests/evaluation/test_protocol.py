import dataclasses

import pytest
import torch

from tokenizers_vq.configs import config_names
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation.protocol import Protocol, load_protocol


@pytest.mark.parametrize("name", config_names("protocol"))
def test_every_shipped_protocol_loads_and_is_named_as_its_file(name):
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.id == f"{name}@{protocol.hash}"


def test_the_hash_changes_with_anything_that_changes_a_number():
    base = load_protocol("image_fast")
    assert base.hash == load_protocol("image_fast").hash
    changes = {"size": 128, "metrics": [], "budgets": (1,), "seed": 1, "limit": 5, "codecs": {}}
    hashes = {dataclasses.replace(base, **{key: value}).hash for key, value in changes.items()}
    assert len(hashes | {base.hash}) == len(changes) + 1


def test_preparing_a_picture_of_the_right_size_copies_its_pixels():
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    assert torch.equal(Protocol("p", size=32).prepare(pixels / 127.5 - 1), pixels)


def test_a_long_picture_is_resized_and_cut_in_the_middle():
    signal = torch.full((3, 64, 128), -1.0)
    signal[:, :, 32:96] = 1.0
    assert torch.equal(
        Protocol("p", size=32).prepare(signal)[:, :, 4:28], torch.full((3, 32, 24), 255).byte()
    )


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError) as caught:
        load_protocol({"name": "mine", "sizes": 3})
    assert str(caught.value).startswith("protocol 'mine' has no option 'sizes'; it takes anchors, ")
    with pytest.raises(ConfigError) as caught:
        Protocol("mine", budgets=(0.5, 2))
    assert str(caught.value) == (
        "protocol 'mine': expected budgets that hold 1; got [0.5, 2]. "
        "The comparison is made at equal bytes."
    )
    with pytest.raises(ConfigError) as caught:
        Protocol("mine", anchors=("blur",))
    assert str(caught.value) == (
        "anchor: there is no 'blur'; choose one of down_up_2x, identity, jpeg_q75."
    )
    for limit in (0, -3):
        with pytest.raises(ConfigError) as caught:
            Protocol("mine", limit=limit)
        assert str(caught.value) == (
            f"protocol 'mine': expected a limit of at least 1; got {limit}. "
            "Leave it out to measure all."
        )
