"""What an encoder of structures may and may not see, and a decoder that places frames."""

import pytest
import torch

from tokenizers_vq import Tokenizer
from tokenizers_vq.backbones.protein import ProteinDecoder, edge_features, nearest
from tokenizers_vq.configs import read_config
from tokenizers_vq.data.synthetic_protein import SyntheticProtein
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.frames import atoms_of, is_present, signal_of
from tokenizers_vq.functional.rotations import from_six
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

SIGNAL = SignalSpec("protein", 9, (-1000.0, 1000.0))


def tokenizer(**decoder):
    torch.manual_seed(0)
    config = read_config("backbone", "tiny_protein")
    config["decoder"] = {**config["decoder"], **decoder}
    return Tokenizer.from_config({**config, "quantizer": {"name": "lfq", "bits": 10}}).eval()


def proteins(n=4, residues=40, missing=1.0):
    return torch.stack(list(SyntheticProtein(n, residues, missing, seed=3)))


def turned(x):
    generator = torch.Generator().manual_seed(1)
    rotations = from_six(torch.randn(len(x), 1, 1, 6, generator=generator))
    atoms = atoms_of(x)
    there = is_present(atoms)[..., None, None]
    places = (rotations @ atoms[..., None])[..., 0] + torch.tensor([40.0, -3, 7])
    return signal_of(torch.where(there, places, atoms))


@torch.no_grad()
def test_latents_do_not_see_where_a_protein_lies_but_see_a_mirror():
    tok, x = tokenizer(), proteins()
    z = tok.encoder(x)
    torch.testing.assert_close(tok.encoder(turned(x)), z, atol=2e-4, rtol=1e-3)
    indices, again = (tok.encode(one).indices for one in (x, turned(x)))
    assert (indices != again).float().mean() <= 0.01
    mirror = x.view(4, 3, 3, 40) * torch.tensor([-1.0, 1, 1]).view(3, 1)
    assert (tok.encoder(mirror.reshape(4, 9, 40)) - z).abs().mean() > 0.01


@torch.no_grad()
def test_missing_residues_are_one_latent_and_nobody_sees_them():
    tok, x = tokenizer(), proteins()
    there = is_present(atoms_of(x))
    assert (~there).sum() > 3
    z = tok.encoder(x)
    gone = z[~there]
    torch.testing.assert_close(gone, gone[:1].expand_as(gone))
    elsewhere = x.clone()  # all atoms at some other point are as missing as at the origin
    for b, t in (~there).nonzero().tolist():
        elsewhere[b, :, t] = torch.tensor([3.0, 1, -2] * 3)
    torch.testing.assert_close(tok.encoder(elsewhere), z, atol=1e-5, rtol=1e-4)


def test_neighbours_by_hand():
    places = torch.tensor([[[0.0, 0, 0], [4.5, 0, 0], [1.2, 0, 0], [2, 0, 0]]])
    there = torch.tensor([[True, True, False, True]])
    assert nearest(places, there, 3)[0].tolist() == [[0, 3, 1], [1, 3, 0], [3, 0, 1], [3, 0, 1]]
    assert nearest(places, there, 99).shape == (1, 4, 4)


def test_what_a_residue_sees_of_itself_by_hand():
    # in its own frame CA is at 0, C at 2 on the first axis, N at 1 on the second
    atoms = torch.tensor([[[[0.0, 1, 0], [0, 0, 0], [2, 0, 0]]]]) + 5
    seen = edge_features(atoms, torch.zeros(1, 1, 1, dtype=torch.long))[0, 0, 0]
    drawn = [0, 1 / 11, 0, 0, 0, 0, 2 / 12, 0, 0]
    torch.testing.assert_close(seen[:9], torch.tensor(drawn), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[9:18], torch.eye(3).flatten())
    assert seen[18] > 0.99  # the bump at distance 0
    assert seen[20:].max() < 0.02


@torch.no_grad()
def test_decoded_chains_are_ideal_centred_and_the_same_wherever_they_came_from():
    tok, x = tokenizer(), proteins()
    x_hat = tok.decode(tok.encode(x))
    atoms = atoms_of(x_hat)
    there = is_present(atoms)
    n, ca, c = atoms[there].unbind(-2)
    assert (n - ca).norm(dim=-1).sub(1.458).abs().max() < 1e-3
    assert (c - ca).norm(dim=-1).sub(1.525).abs().max() < 1e-3
    for b in range(4):
        assert atoms[b, there[b], 1].mean(0).abs().max() < 1e-3


@torch.no_grad()
def test_hidden_residues_are_at_one_point():
    decoder = tokenizer().decoder
    decoder.last.bias[9] = -5  # all are called missing
    atoms = atoms_of(decoder(torch.randn(1, 7, 32)))
    assert not is_present(atoms).any()
    assert torch.equal(atoms[..., 0, :], atoms[..., 1, :])


@torch.no_grad()
@pytest.mark.parametrize("placement", ["chain", "global"])
def test_a_chain_of_equal_steps_is_a_helix_and_a_global_one_a_point(placement):
    torch.manual_seed(0)
    decoder = ProteinDecoder(4, SIGNAL, 8, 1, 2, placement)
    decoder.last.weight.zero_()  # the same numbers for every residue
    atoms, logits = decoder.structure(torch.randn(1, 6, 4))
    steps = atoms[0, 1:, 1] - atoms[0, :-1, 1]
    size = 0.0 if placement == "global" else 4 * 0.5 * 2**0.5
    torch.testing.assert_close(steps.norm(dim=-1), torch.full((5,), size))
    assert (logits == 2).all()


@torch.no_grad()
def test_attention_reaches_no_further_than_its_window():
    torch.manual_seed(0)
    decoder = ProteinDecoder(4, SIGNAL, 8, 2, 2, "global", window=3)
    z = torch.randn(1, 30, 4)
    atoms, _ = decoder.structure(z)
    z[:, 20:] += 1
    changed = (decoder.structure(z)[0] - atoms).abs().amax((0, 2, 3)) > 1e-6
    assert not changed[:14].any()  # two blocks of three to each side
    assert changed[14:].all()
    with pytest.raises(ConfigError, match="window of 1 or more; got 9, 1 and 0"):
        ProteinDecoder(4, SIGNAL, 8, 1, 2, window=0)


def test_training_hides_nothing_and_learns_what_is_missing():
    tok, x = tokenizer(), proteins()
    made = tok.decoder.training_pass(tok, x, 0)
    assert is_present(atoms_of(made.x_hat)).all()
    _, logits = tok.decoder.structure(made.quantized.z_q)
    there = is_present(atoms_of(x))
    p = logits.sigmoid()
    expected = -torch.where(there, p, 1 - p).log().mean()
    torch.testing.assert_close(made.terms["presence"], expected)
    centre = (atoms_of(made.x_hat)[:, :, 1] * there[..., None]).sum(1)
    assert centre.abs().max() < 1e-2


def test_the_sizes_of_esm3():
    config = read_config("backbone", "protein_esm3")
    with torch.device("meta"):
        decoder = build("decoder", config["decoder"], dim=config["dim"], signal=SIGNAL)
    # a block has 12 w^2 weights, 13 w biases and gains: 30 of width 1,280
    blocks = 30 * (12 * 1280**2 + 13 * 1280)
    ends = 128 * 1280 + 1280 + 2 * 1280 + 1280 * 10 + 10
    assert sum(p.numel() for p in decoder.parameters()) == blocks + ends


def test_mistakes_are_named():
    with pytest.raises(ConfigError) as error:
        ProteinDecoder(4, SIGNAL, 8, 1, 8)
    assert str(error.value) == (
        "protein: expected heads that divide the width into even parts; got 8 heads and width 8. "
        "Correct the backbone config."
    )
    with pytest.raises(ConfigError, match="placement: there is no 'local'; choose one of chain, g"):
        ProteinDecoder(4, SIGNAL, 8, 1, 2, "local")
    with pytest.raises(ConfigError, match="expected a signal of 9 channels"):
        ProteinDecoder(4, SignalSpec("protein", 10), 8, 1, 2)
