import pytest
import torch
from golden import close, with_codes
from torch import nn
from torch.nn import functional as F

from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError, DataError, ShapeError
from tokenizers_vq.quantizers.grouped import Grouped
from tokenizers_vq.quantizers.per_position import PerPosition
from tokenizers_vq.quantizers.vq import VectorQuantizer
from tokenizers_vq.tokenizer import Tokenizer


def head(tokens=6, size=5, **options):
    torch.manual_seed(0)
    return PerPosition(3, grid=[2, 4], tokens=tokens, codebook_size=size, **options)


def message(call, error=ConfigError):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_one_token_is_vector_quantization_of_the_folded_vector():
    one = head(tokens=1)
    plain = with_codes(VectorQuantizer(24, codebook_size=5), one.codebook[0].detach())
    z = torch.randn(7, 2, 4, 3)
    folded = z.movedim(-1, 1).reshape(7, 24)
    a, b = one(z), plain(folded)
    assert torch.equal(a.indices[:, 0], b.indices)
    assert torch.equal(a.z_q.movedim(-1, 1).reshape(7, 24), b.z_q)
    close(a.loss, float(b.terms["codebook"]))


def test_every_token_has_the_nearest_code_of_its_own_codebook():
    many = head()
    z = torch.randn(7, 2, 4, 3)
    pieces = z.movedim(-1, 1).reshape(7, 6, 4)
    for t in range(6):
        nearest = torch.cdist(pieces[:, t], many.codebook[t]).argmin(1)
        assert torch.equal(many.encode(z)[:, t, 0], nearest)


def test_only_the_codebooks_learn():
    z = torch.randn(2, 2, 4, 3, requires_grad=True)
    out = head(codebook_weight=2.0)(z)
    assert not out.z_q.requires_grad
    out.loss.backward()
    assert z.grad is None
    close(out.loss, 2 * float((z - out.z_q).detach().square().mean()))
    assert torch.equal(*[torch.autograd.grad(head(gradient=True)(z).z_q.sum(), z)[0],
                         torch.ones_like(z)])  # fmt: skip


def test_the_codebooks_follow_the_latents():
    torch.manual_seed(0)
    many = head(tokens=12, size=8)
    z = torch.randn(256, 2, 4, 3)
    before = float(many(z).terms["codebook"])
    for _ in range(30):
        (gradient,) = torch.autograd.grad(many(z).loss, many.codebook)
        with torch.no_grad():
            many.codebook -= 40 * gradient
    assert float(many(z).terms["codebook"]) < 0.7 * before


def test_unused_codes_are_reset_after_some_updates():
    many = head(tokens=2, size=4, restart_every=2, restart_share=0.5, restart_noise=0.01)
    with torch.no_grad():
        many.codebook[:, 2:] = 100
    before = many.codebook.detach().clone()
    z = torch.randn(50, 2, 4, 3)
    many.update(z, many(z).indices)
    assert torch.equal(many.codebook, before)
    assert float(many.counts.sum()) == 100
    many.update(z, many(z).indices)
    assert float(many.counts.sum()) == 0
    assert torch.equal(many.codebook[:, :2], before[:, :2])
    distance = torch.cdist(many.codebook[:, 2:], before[:, :2]).amin(-1)
    assert bool((distance < 0.2).all())


def test_a_piece_with_a_number_that_is_not_finite_is_not_counted():
    many, z = head(), torch.randn(2, 2, 4, 3)
    z[0, 0, 0] = torch.inf
    many.update(z, many(z).indices)
    assert float(many.counts.sum()) == 12 - 3  # one position of each channel, half a channel each


def test_the_rectifier_sees_decoded_latents_and_learns_from_the_output():
    many = head(rectifier="conv")
    z = torch.randn(2, 2, 4, 3)
    out = many(z)
    assert torch.equal(out.z_q, head()(z).z_q)  # it starts as the identity
    F.mse_loss(out.z_q, z).backward()
    assert float(many.rectifier.conv2.weight.grad.abs().sum()) > 0
    assert many.codebook.grad is None


def test_a_module_of_ones_own_can_rectify():
    many = head(rectifier=nn.Conv2d(3, 3, 1))
    out = many(torch.randn(2, 2, 4, 3))
    assert torch.equal(many.decode(out.indices), out.z_q)
    assert not torch.equal(out.z_q, head()(torch.randn(2, 2, 4, 3)).z_q)


def test_codes_of_a_tokenizer_survive_compression():
    quantizer = {**read_config("quantizer", "revq"), "codebook_size": 16}
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": quantizer}
    tokenizer = Tokenizer.from_config(config).eval()
    assert tokenizer.quantizer.code_dim == 4
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    codes = tokenizer.encode(x)
    assert codes.indices.shape == (2, 512, 1)
    assert torch.equal(tokenizer.decompress(tokenizer.compress(x)), tokenizer.decode(codes))
    assert tokenizer.decode(codes.indices).shape == x.shape


def test_other_grids_are_refused():
    many = head()
    expected = (
        "expected latents on (2, 4), the grid its codebooks are for; got (4, 2). "
        "Crop or resize the signal."
    )
    assert message(lambda: many(torch.zeros(1, 4, 2, 3)), ShapeError) == f"PerPosition: {expected}"
    indices = torch.zeros(1, 6, 1, dtype=torch.int64)
    assert message(lambda: many.decode(indices, (4, 2)), ShapeError) == f"decode: {expected}"
    assert message(lambda: many.decode(indices[:, :5]), ShapeError) == (
        "PerPosition: expected indices of 6 tokens; got a grid of (5,). Keep all tokens of an item."
    )


def test_tokens_that_do_not_divide_the_latents_are_refused():
    assert message(lambda: head(tokens=7)) == (
        "PerPosition: expected tokens that divide the 24 numbers of latents of width 3 on (2, 4), "
        "a grid of 1 to 3 axes; got 7. Choose a divisor."
    )


def test_an_unknown_rectifier_is_named():
    assert message(lambda: head(rectifier="vit")) == (
        "PerPosition rectifier: there is no 'vit'; choose one of conv."
    )


def test_it_is_no_part_of_another_head():
    assert message(lambda: Grouped(3, groups=[head()])) == (
        "Grouped: expected parts that quantize each position by itself; got PerPosition. "
        "Make that the outermost head."
    )


def test_codebooks_can_start_at_latents():
    torch.manual_seed(0)
    head = PerPosition(4, grid=[2, 2], tokens=8, codebook_size=16)
    z = 5 + 0.05 * torch.randn(6, 2, 2, 4)
    before = float((head(z).z_q - z).square().mean())
    z[3, 0, 0, 0] = torch.nan
    head.fit(z)
    assert bool(torch.isfinite(head.codebook).all())
    z = z[[0, 1, 2, 4, 5]]
    close(head(z).z_q, z, atol=5e-3)  # five items, sixteen codes: each item is there
    assert all(table.unique(dim=0).shape[0] == 16 for table in head.codebook.detach())
    assert before > 1
    with pytest.raises(DataError) as error:
        head.fit(z[:0])
    assert str(error.value) == (
        "PerPosition.fit: expected at least one finite item; got none. "
        "Pass latents (B, *grid, D) of what the encoder makes."
    )
