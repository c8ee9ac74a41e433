"""What every quantizer head promises, on every registered head and on compositions of them."""

import copy
import math
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from cases import D, all_cases
from torch import nn

from tokenizers_vq import registry
from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.errors import ConfigError, ShapeError

CASES = all_cases()
HEADS = {name: case.config for name, case in CASES.items()}
FIXED_POINT = [name for name, case in CASES.items() if case.fixed_point]
IDENTITY = [name for name, case in CASES.items() if case.identity]
GRAPHS = [name for name, case in CASES.items() if case.graph]
MASKS = [name for name, case in CASES.items() if case.masks]
NOISY = {name for name, case in CASES.items() if case.noisy}
UNMASKED = [name for name, case in CASES.items() if not case.masks]
REACHING = [name for name, case in CASES.items() if not case.sealed]
GRIDS = [(), (7,), (4, 4), (2, 3, 2), (2, 2, 1, 2), (0,), (0, 3)]
heads = pytest.mark.parametrize("name", HEADS)
graphs = pytest.mark.parametrize("name", GRAPHS)
maskable = pytest.mark.parametrize("name", MASKS)
reaching = pytest.mark.parametrize("name", REACHING)


def at(name, *grid):
    """Return ``grid``, or the one that the head is bound to."""
    bound = CASES[name].item_shape
    return grid if bound is None else bound


def latents(name, batch, *grid):
    return torch.randn(batch, *at(name, *grid), D)


def same_draws(*_):
    """Let every forward of a noisy head draw the same numbers: then two of them can be compared."""
    if not torch.compiler.is_compiling():
        torch.manual_seed(2)


def make(name, dim=D):
    torch.manual_seed(1)
    head = registry.build("quantizer", HEADS[name], dim=dim)
    if name in NOISY:
        head.register_forward_pre_hook(same_draws)
    for part in head.modules():
        if "cluster_size" in dict(part.named_buffers(recurse=False)):
            with torch.no_grad():  # a spread codebook: tests need more than one code in use
                part.codebook.copy_(torch.randn_like(part.codebook))
                if part.metric == "cosine":
                    part.codebook.copy_(part.codes())
                if part.codebook_update == "ema":
                    part.cluster_sum.copy_(part.codebook)
    return head


def state(head):
    return {key: value.clone() for key, value in head.state_dict().items()}


def unchanged(head, before):
    after = head.state_dict()
    assert after.keys() == before.keys()
    return all(torch.equal(after[key], before[key]) for key in before)


def test_every_registered_head_is_here():
    assert {config["name"] for config in HEADS.values()} == set(registry.names("quantizer"))


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


@maskable
def test_masked_is_the_call_on_the_valid_positions(name):
    head, twin = make(name), make(name)
    if name in NOISY:  # gathered positions are other items, and draw other numbers
        head.eval(), twin.eval()
    mask = torch.rand(4, 9) > 0.4
    z = torch.randn(4, 9, D)
    full, short = z.clone().requires_grad_(), z[mask].clone().requires_grad_()
    a, b = head(full, mask), twin(short)
    assert torch.equal(a.z_q[mask], b.z_q)
    assert torch.equal(a.indices[mask], b.indices)
    assert bool((a.z_q[~mask] == 0).all())
    assert bool((a.indices[~mask] == -1).all())
    assert torch.equal(a.loss, b.loss)
    assert a.terms.keys() == b.terms.keys()
    for key in a.terms:
        assert torch.equal(a.terms[key], b.terms[key])
    g = torch.randn(4, 9, D)
    ((a.z_q * g).sum() + a.loss).backward()
    ((b.z_q * g[mask]).sum() + b.loss).backward()
    assert torch.equal(full.grad[mask], short.grad)
    assert bool((full.grad[~mask] == 0).all())
    head.train().update(z, a.indices)
    twin.train().update(z[mask], b.indices)
    assert unchanged(head, state(twin))
    head.eval()
    out = head(z, mask)
    assert torch.equal(head.encode(z, mask), out.indices)
    assert torch.equal(head.decode(out.indices), out.z_q)


@maskable
def test_nothing_valid(name):
    out = make(name)(torch.randn(2, 3, D), torch.zeros(2, 3, dtype=torch.bool))
    assert bool((out.indices == -1).all())
    assert bool((out.z_q == 0).all())
    assert float(out.loss.detach()) == 0


@pytest.mark.parametrize("name", UNMASKED)
def test_a_mask_is_refused_where_it_has_no_meaning(name):
    head, z = make(name), latents(name, 2, 8)
    mask = torch.ones(z.shape[:-1], dtype=torch.bool)
    for call in (head, head.encode):
        with pytest.raises(ShapeError) as error:
            call(z, mask)
        expected = f"{type(head).__name__}: expected no mask; got one of shape {tuple(mask.shape)}."
        assert str(error.value).startswith(expected)


@heads
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_tokens_that_are_not_finite_disturb_nobody(name, poison):
    head, twin = make(name), make(name)
    z = latents(name, 2, 8)
    bad = torch.zeros(z.shape[:-1], dtype=torch.bool)
    bad.view(2, -1)[0, 3] = bad.view(2, -1)[1, 7] = True
    poisoned = z.clone()
    poisoned[bad, 1] = poison
    poisoned.requires_grad_()
    if name in NOISY:  # fewer rows draw other numbers
        head.eval(), twin.eval()
    if CASES[name].masks:
        out, clean = head(poisoned), twin(z, ~bad)
        assert torch.equal(out.indices[~bad], clean.indices[~bad])
        torch.testing.assert_close(out.z_q[~bad], clean.z_q[~bad])
        torch.testing.assert_close(out.loss, clean.loss)
    else:  # a token may stand for several positions: they have zeros at the bad ones
        out, clean = head(poisoned), twin(torch.where(bad[..., None], 0.0, z))
        assert torch.equal(out.indices, clean.indices)
        assert torch.equal(out.z_q, clean.z_q)
        assert bool(torch.isfinite(out.loss))
    sizes = torch.tensor(head.codebook_sizes)
    assert bool(((out.indices >= 0) & (out.indices < sizes)).all())
    assert bool(torch.isfinite(out.z_q).all())
    assert float(out.terms["nonfinite"]) == 2
    (out.z_q.sum() + out.loss).backward()
    if not CASES[name].sealed:
        assert bool(torch.isfinite(poisoned.grad).all())
        assert bool((poisoned.grad[bad] == 0).all())
    for parameter in head.parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())
    head.train().update(poisoned, out.indices)
    assert all(bool(torch.isfinite(value).all()) for value in head.state_dict().values())
    counted = [value for key, value in head.state_dict().items() if key.endswith("nonfinite")]
    assert all(float(value) == 2 for value in counted if head.has_state)


@heads
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad", "inference_mode"])
def test_forward_encode_and_decode_change_no_state(name, mode):
    head = make(name).train(mode != "eval")
    before = state(head)
    z = latents(name, 3, 5)
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    with context.get(mode, torch.enable_grad)():
        head.decode(head.encode(z), z.shape[1:-1])
        head(z)
    assert unchanged(head, before)


@heads
def test_update_changes_state_in_training_only(name):
    head = make(name)
    z = latents(name, 3, 40)
    before = state(head)
    indices = head(z).indices
    head.eval().update(z, indices)
    assert unchanged(head, before)
    head.train().requires_grad_(False).update(z, indices)
    assert unchanged(head, before)
    head.requires_grad_(True).update(z, indices)
    assert unchanged(head, before) != head.has_state


@pytest.mark.parametrize("name", ["rvq", "group_rvq"])
@pytest.mark.parametrize("how", ["frozen", "evaluation"])
def test_a_part_can_be_kept_from_changing_alone(name, how):
    head = make(name)
    first, second = head.stages if name == "rvq" else head.groups
    if how == "frozen":
        first.requires_grad_(False)
    else:
        first.eval()
    z = torch.randn(3, 40, D)
    before, others = state(first), state(second)
    head.update(z, head(z).indices)
    assert unchanged(first, before)
    assert not unchanged(second, others)


@reaching
def test_a_recomputed_forward_is_the_same(name):
    head = make(name)
    z = latents(name, 3, 5).requires_grad_()
    out = torch.utils.checkpoint.checkpoint(lambda x: head(x).z_q, z, use_reentrant=False)
    g = torch.randn_like(out)
    (again,) = torch.autograd.grad(out, z, g)
    (once,) = torch.autograd.grad(head(z).z_q, z, g)
    assert torch.equal(again, once)


@pytest.mark.parametrize("name", IDENTITY)
def test_the_estimator_has_identity_gradient(name):
    z = latents(name, 3, 5).requires_grad_()
    g = torch.randn_like(z)
    make(name)(z).z_q.backward(g)
    assert torch.equal(z.grad, g)


@reaching
def test_codes_that_were_not_chosen_learn_from_the_output_only_where_promised(name):
    head = make(name)
    z = latents(name, 1, 2).requires_grad_()
    out = head(z)
    out.z_q.square().sum().backward()
    table = dict(head.named_parameters()).get("codebook")
    grad = None if table is None else table.grad
    reached = 0 if grad is None else int((grad.abs().sum(-1) > 0).sum())
    chosen = out.indices.numel() if head.on_grid else out.indices.unique().numel()
    assert (reached > chosen) == CASES[name].soft


@heads
def test_gradients_reach_the_encoder_and_every_parameter(name):
    head = make(name)
    z = 0.5 * latents(name, 4, 30)
    z.requires_grad_()
    out = head(z)
    (out.z_q.square().sum() + out.loss).backward()
    if CASES[name].sealed:
        assert z.grad is None or bool((z.grad == 0).all())
    else:
        assert float(z.grad.abs().sum()) > 0
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all())


@heads
def test_the_loss_is_a_fresh_tensor(name):
    head = make(name)
    z = latents(name, 2, 3)
    with torch.no_grad():
        first = head(z).loss
        value = float(first)
        first += 5
        assert float(head(z).loss) == value
    assert not head.eval()(z.detach()).terms["nonfinite"].requires_grad


@heads
def test_the_state_dict_reproduces_outputs_bit_for_bit(name):
    head = make(name)
    z = latents(name, 3, 20)
    head.update(z, head(z).indices)
    twin = registry.build("quantizer", HEADS[name], dim=D)
    twin.load_state_dict(head.state_dict(), strict=True)
    a, b = head.eval()(z), twin.eval()(z)
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.loss, b.loss)


@heads
def test_copies_and_pickles_are_equal_and_independent(name):
    head = make(name)
    z = latents(name, 3, 20)
    out = head(z)
    for twin in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):  # noqa: S301 - our own bytes
        before = state(head)
        assert torch.equal(twin(z).z_q, out.z_q)
        twin.update(z, out.indices)
        assert unchanged(head, before)


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


# Graphs -----------------------------------------------------------------------------------------


@graphs
def test_it_compiles_without_graph_breaks(name):
    torch._dynamo.reset()
    head = make(name)
    z = latents(name, 2, 5).requires_grad_()
    out, grid = head(z), at(name, 5)
    (expected,) = torch.autograd.grad(out.z_q.square().sum() + out.loss, z)
    forward = torch.compile(head, fullgraph=True, backend="eager")
    same_draws()
    traced = forward(z)
    assert torch.equal(traced.indices, out.indices)
    torch.testing.assert_close(traced.z_q, out.z_q)
    torch.testing.assert_close(traced.loss, out.loss)
    (got,) = torch.autograd.grad(traced.z_q.square().sum() + traced.loss, z)
    torch.testing.assert_close(got, expected)
    torch._dynamo.reset()
    code = torch.compile(
        lambda x: head.decode(head.encode(x), grid), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(code(z.detach()), head.decode(head.encode(z), grid))


@pytest.mark.parametrize("name", ["lfq", "group_rvq"])
def test_a_compiled_mask_means_the_same(name):
    torch._dynamo.reset()
    head = make(name)
    z, mask = torch.randn(2, 5, D), torch.rand(2, 5) > 0.3
    masked = head(z, mask)
    traced = torch.compile(head, fullgraph=True, backend="eager")(z, mask)
    assert torch.equal(traced.indices, masked.indices)
    torch.testing.assert_close(traced.z_q, masked.z_q)
    torch.testing.assert_close(traced.loss, masked.loss)
    assert float(traced.terms["nonfinite"]) == 0


def test_it_compiles_to_machine_code():
    torch._dynamo.reset()
    head = make("fsq_natural").eval()
    z = torch.randn(2, 5, D)
    out = head(z)
    with torch.no_grad():
        traced = torch.compile(head, fullgraph=True)(z)
    assert torch.equal(traced.indices, out.indices)
    assert torch.equal(traced.z_q, out.z_q)


def test_many_training_steps_of_a_compiled_head_do_not_recompile():
    torch._dynamo.reset()
    head = make("vq")
    step = torch.compile(head, fullgraph=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            step(torch.randn(2, 5, D))


class Method(nn.Module):
    """Export takes modules; this makes one of a method."""

    def __init__(self, head, method, grid):
        super().__init__()
        self.head, self.method, self.grid = head, method, grid

    def forward(self, x):
        if self.method == "decode":
            return self.head.decode(x, self.grid)
        out = self.head(x)
        return out.z_q, out.indices, self.head.encode(x)


@graphs
def test_it_exports_with_a_dynamic_batch(name):
    torch._dynamo.reset()
    head = make(name).eval()
    batch = torch.export.Dim("batch", min=1, max=512)
    z, grid = latents(name, 3, 4), at(name, 4)
    indices = head.encode(z)
    for method, example in (("decode", indices), ("forward", z)):
        program = torch.export.export(
            Method(head, method, grid), (example,), dynamic_shapes=({0: batch},), strict=False
        )
        for x in (example, torch.cat([example, example[:2]])):
            expected, got = Method(head, method, grid)(x), program.module()(x)
            torch.testing.assert_close(got, expected)


# Mistakes ---------------------------------------------------------------------------------------


@heads
def test_wrong_inputs_are_named(name):
    head, grid = make(name), at(name, 3)
    title = type(head).__name__
    cases = [
        (
            lambda: head(torch.zeros(8, D + 1, 16, 16)),
            f"{title}: expected z of shape (B, *grid, {D}); got (8, {D + 1}, 16, 16). "
            "Channels go last; did you forget 'b d h w -> b h w d'?",
        ),
        (
            lambda: head.encode(torch.zeros(2, D, dtype=torch.int64)),
            f"{title}: expected z of a floating dtype; got torch.int64. Call .float().",
        ),
        (
            lambda: head(torch.zeros(2, *grid, D), torch.ones(2, 4, dtype=torch.bool)),
            f"{title}: expected a bool mask of shape {(2, *grid)}; got torch.bool (2, 4). "
            "True marks the positions that count.",
        ),
        (
            lambda: head.decode(torch.zeros(2, 3, head.num_codebooks)),
            "decode: expected int64 indices; got torch.float32. Call .long().",
        ),
        (
            lambda: head.decode(
                torch.full((2, head.num_codebooks), head.codebook_sizes[0], dtype=torch.int64)
            ),
            f"decode: index {head.codebook_sizes[0]} in codebook 0 is outside "
            f"0..{head.codebook_sizes[0] - 1}.",
        ),
        (
            lambda: head.lookup(torch.full((2, head.num_codebooks), -2)),
            f"lookup: index -2 in codebook 0 is outside 0..{head.codebook_sizes[0] - 1}.",
        ),
        (
            lambda: head.decode(torch.zeros(2, head.num_codebooks + 1, dtype=torch.int64)),
            f"decode: expected shape (*grid, {head.num_codebooks}); "
            f"got (2, {head.num_codebooks + 1}). The last axis is the codebook axis K.",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ShapeError) as error:
            call()
        assert str(error.value).splitlines()[0] == message


@pytest.mark.parametrize("name", ["vq", "vq_ema", "factorized", "simvq"])
@pytest.mark.parametrize("size", [0, -1, 2.5, "many"])
def test_a_codebook_size_below_one_is_named(name, size):
    config = {**HEADS[name], "codebook_size": size}
    title = type(make(name)).__name__
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", config, dim=D)
    assert str(error.value) == (
        f"{title}: expected a codebook_size of at least 1; got {size!r}. "
        "Give a positive whole number."
    )


@heads
def test_a_width_below_one_is_named(name):
    with pytest.raises(ConfigError):
        registry.build("quantizer", HEADS[name], dim=-1)


def test_an_update_with_other_indices_is_named():
    head = make("vq_ema")
    with pytest.raises(ShapeError) as error:
        head.update(torch.zeros(2, 3, D), torch.zeros(2, 4, 1, dtype=torch.int64))
    assert str(error.value) == (
        "update: expected indices of shape (2, 3, 1); got (2, 4, 1). "
        "Pass the z and the indices of the same forward."
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [("vq_ema", "VectorQuantizer"), ("rvq", "Residual"), ("qinco_beam", "QINCo")],
)
def test_a_forgotten_update_warns_once(name, title):
    head = make(name)
    z = torch.randn(1, 2, D)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(250):
            head(z)
    assert [str(warning.message) for warning in caught] == [
        f"{title}: 100 training steps without update(); codebooks start from k-means, follow "
        "averages and restart only there. "
        "Call quantizer.update(z, out.indices) after optimizer.step()."
    ]


@pytest.mark.parametrize("name", ["vq", "vq_ema", "fsq"])
def test_no_warning_where_nothing_was_forgotten(name):
    head = make(name)
    z = torch.randn(1, 2, D)
    for i in range(150):
        out = head(z)
        if i % 50 == 0:
            head.update(z, out.indices)


# Configs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", config_names("quantizer"))
def test_the_comment_of_a_config_says_its_bits(name):
    head = registry.build("quantizer", read_config("quantizer", name), dim=64)
    path = Path(__file__).resolve().parents[2] / "conf" / "quantizer" / f"{name}.yaml"
    first = path.read_text().splitlines()[0]
    bits = f"{head.bits_per_position:.2f}".rstrip("0").rstrip(".")
    assert first.startswith("# ")
    assert f", {bits} bits" in first
    codes = f"{head.codebook_sizes[0]:,} codes"
    count = "" if head.num_codebooks == 1 else f"{head.num_codebooks} x "
    assert first.startswith(f"# {count}{codes}")
