"""Meshes to tokens and back, with a field whose surface is known."""

import numpy as np
import pytest
import torch
from PIL import Image

from tokenizers_vq import shapes
from tokenizers_vq.backbones.field import FieldDecoder, lattice
from tokenizers_vq.backbones.triplane import TriplaneEncoder
from tokenizers_vq.bitstream import from_bytes
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.triangles import winding_number
from tokenizers_vq.registry import build
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import SignalSpec

SIGNAL = SignalSpec("points", channels=4)


class Ball(FieldDecoder):
    """A ball whose radius is 1/2, whatever the latents."""

    def __init__(self):
        super().__init__(16, SIGNAL)
        self.radius = torch.nn.Parameter(torch.tensor(0.5))

    @property
    def last_layer(self):
        return self.radius

    def field(self, z_q):
        return (self.radius.expand(len(z_q)),)

    def distances(self, field, points):
        return points.norm(dim=1, keepdim=True) - field[0][:, None, None]


@pytest.fixture(scope="module")
def tok():
    torch.manual_seed(0)
    encoder = TriplaneEncoder(16, SIGNAL, 64, num_tokens=128, width=16, layers=1, heads=2)
    head = build("quantizer", read_config("quantizer", "vvq"), dim=16)
    return Tokenizer(encoder, head, Ball()).eval()


@pytest.fixture(scope="module")
def ball():
    places = lattice(64).T.numpy().astype(float)
    return shapes.marched((np.linalg.norm(places, axis=1) - 0.5).reshape(64, 64, 64))


def test_marching_cubes_of_a_ball(ball):
    assert ball.is_closed
    assert ball.volume == pytest.approx(np.pi / 6, rel=0.01)
    assert np.linalg.norm(ball.vertices, axis=1) == pytest.approx(0.5, abs=2e-3)


def test_a_shape_that_leaves_the_box_is_closed_at_its_wall_and_nothing_is_empty():
    full = shapes.marched(np.full((8, 8, 8), -0.1))
    assert full.is_closed
    assert winding_number(full, np.zeros((1, 3))) == pytest.approx([1], abs=1e-5)
    assert len(shapes.marched(np.ones((8, 8, 8))).faces) == 0


def test_files_hold_as_many_scales_as_fit(tok, ball):
    codes = shapes.encode_mesh(tok, ball)
    assert codes.indices.shape == (1, 250, 4)
    sizes = {}
    for budget in (80, 144, 272, 528, 1040):
        part, data = shapes.at_most(tok, codes, budget)
        sizes[budget] = int((part.indices >= 0).any(-1).sum())
        assert len(data) <= budget
        assert torch.equal(from_bytes(data).indices, part.indices)
    assert list(sizes.values()) == [10, 26, 58, 122, 250]
    assert shapes.at_most(tok, codes, 40) is None
    assert shapes.at_bytes(tok, ball, 40) is None


def test_a_mesh_comes_back_at_a_number_of_bytes(tok, ball):
    mesh, size = shapes.at_bytes(tok, ball, 100, side=32)
    assert size <= 100
    assert mesh.volume == pytest.approx(np.pi / 6, rel=0.03)
    field = shapes.field_of(tok, shapes.encode_mesh(tok, ball))
    assert field.query(np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])) == pytest.approx(
        [-0.5, 0.75**0.5 - 0.5], abs=1e-6
    )


def test_the_picture_has_a_column_for_each_size(tok, ball, tmp_path):
    small = shapes.at_bytes(tok, ball, 100, side=12)[0]  # drawing takes long
    sizes = shapes.picture_at_bytes(tok, small, tmp_path / "ball.png", budgets=(40, 100))
    assert list(sizes) == [100]
    with Image.open(tmp_path / "ball.png") as picture:
        assert picture.size == (440, 240)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20  # shaded
    shapes.save_meshes(tmp_path / "points.png", [[("points", ball.vertices[:50])]])
    assert (tmp_path / "points.png").stat().st_size > 1000


def test_other_tokenizers_are_refused():
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": read_config("quantizer", "fsq")}
    with pytest.raises(ConfigError) as error:
        shapes.encode_mesh(Tokenizer.from_config(config), None)
    assert str(error.value) == (
        "shapes: expected a tokenizer of kind points with a decoder to a field; got CNN2dDecoder. "
        "Choose one of shapes, e.g. backbone=tiny_triplane."
    )
