"""What every quantizer head promises about values, on every registered head and compositions."""

import math

import pytest
import torch
from cases import CONTINUOUS
from making import FIXED_POINT, GRIDS, HEADS, NOISY, D, at, heads, latents, make, state, unchanged

from tokenizers_vq import registry


def test_every_registered_head_is_here():
    named = {config["name"] for config in HEADS.values()}
    assert named == set(registry.names("quantizer")) - CONTINUOUS


@heads
def test_shapes_dtypes_and_ranges(name):
    head = make(name)
    for grid in dict.fromkeys(at(name, *grid) for grid in GRIDS):
        for batch in (0, 3):
            check_shapes(name, head, torch.randn(batch, *grid, D, requires_grad=True))


def check_shapes(name, head, z):
    batch, *grid, _ = z.shape
    out = head(z)
    assert out.z_q.shape == z.shape
    assert out.z_q.dtype == z.dtype
    assert out.indices.shape == (batch, *head.index_grid(tuple(grid)), head.num_codebooks)
    assert out.indices.dtype == torch.int64
    sizes = torch.tensor(head.codebook_sizes)
    assert bool(((out.indices >= 0) & (out.indices < sizes)).all())
    assert out.loss.shape == ()
    assert out.loss.dtype == torch.float32
    assert bool(torch.isfinite(out.loss))
    for term in out.terms.values():
        assert term.shape == ()
        assert bool(torch.isfinite(term))
    if out.z_q.numel() == 0:
        assert float(out.loss.detach()) == 0
        before = state(head)
        head.update(z, out.indices)
        assert unchanged(head, before)
    assert name in NOISY or torch.equal(head.encode(z), out.indices)
    assert head.decode(out.indices, tuple(grid)).shape == z.shape
    codes = head.lookup(out.indices, tuple(grid))
    assert codes.shape == (*out.indices.shape[:-1], head.code_dim)


@heads
def test_sizes_and_bits(name):
    head = make(name)
    assert head.vocab_size == math.prod(head.codebook_sizes)
    assert type(head.vocab_size) is int
    assert head.bits_per_position == pytest.approx(math.log2(head.vocab_size))


@heads
def test_digits_multiply_to_the_codebook_sizes(name):
    head = make(name)
    assert tuple(math.prod(radices) for radices in head.digits) == head.codebook_sizes


@heads
def test_decode_of_encode_is_forward_bit_for_bit(name):
    head = make(name)
    z = 2 * latents(name, 3, 5, 7)
    train = head(z).z_q
    head.eval()
    out = head(z)
    assert torch.equal(head.decode(head.encode(z), z.shape[1:-1]), out.z_q)
    assert torch.equal(head.encode(z), out.indices)
    assert name in NOISY or torch.equal(out.z_q, train)


@heads
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name, dtype):
    head = make(name)
    z = latents(name, 3, 11).to(dtype)
    whole, half = head(z.float()), head(z)
    assert torch.equal(whole.indices, half.indices)
    assert half.z_q.dtype == dtype
    assert half.loss.dtype == torch.float32
    assert torch.equal(half.z_q, whole.z_q.to(dtype))
    head = head.to(dtype).eval()
    for x in (z, z.float()):
        out = head(x)
        assert out.z_q.dtype == x.dtype
        decoded = head.decode(out.indices, z.shape[1:-1])
        assert torch.equal(decoded.to(x.dtype), out.z_q.to(dtype).to(x.dtype))
    assert decoded.dtype == dtype


@heads
def test_autocast_changes_nothing(name):
    head = make(name)
    z = latents(name, 3, 11)
    plain, grid = head(z), z.shape[1:-1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = head(z)
        assert torch.equal(head.decode(cast.indices, grid), head.decode(plain.indices, grid))
    assert torch.equal(plain.indices, cast.indices)
    assert torch.equal(plain.z_q, cast.z_q)
    assert torch.equal(plain.loss, cast.loss)


@heads
def test_batch_and_order_do_not_matter_in_evaluation(name):
    head = make(name).eval()
    z = latents(name, 6, 5)
    indices = head.encode(z)
    assert torch.equal(torch.cat([head.encode(item[None]) for item in z]), indices)
    assert torch.equal(head.encode(z.flip(0)), indices.flip(0))


@heads
def test_memory_layout_does_not_matter(name):
    head = make(name)
    z = torch.randn(3, D, *at(name, 4, 5)).movedim(1, -1)
    a, b = head(z), head(z.contiguous())
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(a.indices, b.indices)


@pytest.mark.parametrize("name", FIXED_POINT)
def test_encoding_decoded_indices_gives_them_back(name):
    head = make(name).eval()
    inner = registry.build("quantizer", HEADS[name]) if head.dim != head.code_dim else head
    columns = [torch.randint(size, (1000,)) for size in inner.codebook_sizes]
    indices = torch.stack(columns, dim=-1)
    if inner.vocab_size <= 2**12 and inner.num_codebooks == 1:
        indices = torch.arange(inner.vocab_size)[:, None]
    codes = inner.lookup(indices)
    if name.startswith("fsq"):  # codes are bounded values, latents are not: invert the bound
        if inner.bound == "tanh":
            scaled = codes * inner._width
            codes = torch.atanh((scaled + inner._offset) / inner._half) - inner._shift
        else:
            codes = torch.atanh(codes.clamp(-1 + 1e-6, 1 - 1e-6))
    assert torch.equal(inner.encode(codes), indices)


@pytest.mark.parametrize("name", ["vq", "vq_ema", "vq_cosine", "simvq"])
def test_a_code_is_its_own_nearest(name):
    head = make(name).eval()
    indices = torch.arange(16)[:, None]
    assert torch.equal(head.encode(head.decode(indices)), indices)
