"""The contract as properties: each is a function that takes a head and raises AssertionError.

They are written against ``Adapter``, so that the same lines judge any library's heads. A property
says in its first line what it promises; ``NotOffered`` means that the head has no such option.
"""

import copy
import pickle
import resource

import torch
from adapter import Adapter, NotOffered
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CLOSE = 1e-5
MEMORY = 2**30  # bytes that the 18-bit entropy may take


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.isclose(a, b, atol=CLOSE, rtol=CLOSE).all())


def unchanged(head: Adapter, before: dict[str, Tensor]) -> list[str]:
    """Return the names of what has changed."""
    after = head.state()
    return [key for key in before if not torch.equal(after[key], before[key])]


def in_range(indices: Tensor, size: int) -> bool:
    return not indices.is_floating_point() and bool(((indices >= 0) & (indices < size)).all())


# Round trip -------------------------------------------------------------------------------------


def layouts_round_trip(head: Adapter, **changes: bool) -> None:
    failures = []
    for layout in head.layouts:
        try:
            it = head.like(layout=layout, **changes).evaluate()
            z = it.latents()
            with torch.no_grad():
                out = it.forward(z)
                back = it.decode(it.encode(z))
        except NotOffered:
            raise
        except Exception as error:
            failures.append(f"{layout}: {type(error).__name__}")
            continue
        if back.shape != out.z_q.shape:
            failures.append(f"{layout}: shape {tuple(back.shape)} for {tuple(out.z_q.shape)}")
        elif not same(back, out.z_q):
            failures.append(f"{layout}: off by {float((back - out.z_q).abs().max()):.2g}")
    assert not failures, "; ".join(failures)


def decode_is_forward_in_every_layout(head: Adapter) -> None:
    """Decoding the indices gives what evaluation gave, in every documented layout."""
    layouts_round_trip(head)


def decode_is_forward_with_projection(head: Adapter) -> None:
    """The same when latents are wider than codes."""
    layouts_round_trip(head, projected=True)


def codes_are_their_own_nearest(head: Adapter) -> None:
    """Encoding a decoded index gives that index back, for all of them."""
    head.evaluate()
    z = head.decode(torch.arange(head.size)[None, :, None])
    assert torch.equal(head.encode(z).flatten(), torch.arange(head.size))


def prefixes_decode(head: Adapter) -> None:
    """The first columns of a residual stack decode to the sum of their codes."""
    it = head.like(prefix=True).evaluate()
    z = it.latents()
    out = it.forward(z)
    count = out.indices.shape[-1] // prefix_groups(it)
    if prefix_groups(it) == 1:
        for k in range(1, count):
            short = it.decode(out.indices[..., :k])
            filled = out.indices.clone()
            filled[..., k:] = -1
            assert same(short, it.decode(filled)), f"{k} columns"
    assert same(it.decode(out.indices), out.z_q)


def prefix_groups(head: Adapter) -> int:
    return 2 if head.name.startswith("grouped") else 1


def bad_indices_are_refused(head: Adapter) -> None:
    """Decoding an index outside the codebook is an error, not another code."""
    good = head.encode(head.latents())
    for bad in (head.size, -2):
        indices = good.clone()
        indices[0, 0] = bad
        try:
            head.decode(indices)
        except Exception:  # noqa: S112 - refusing is what is asked for, whatever the error is called
            continue
        raise AssertionError(f"index {bad} of 0..{head.size - 1} decodes silently")


def indices_stay_in_range(head: Adapter) -> None:
    """Infinite, huge and tiny latents get an index of the codebook."""
    head.evaluate()
    for value in (float("inf"), -float("inf"), 1e30, -1e30, 1e-40):
        z = head.latents()
        z[0, 0] = value
        z[1, 1, 0] = value
        assert in_range(head.encode(z), head.size), f"a latent of {value:g}"


# What disturbs whom -----------------------------------------------------------------------------


def nan_tokens_disturb_nobody(head: Adapter) -> None:
    """A NaN token changes no other token, gets an index in range, and leaves the state finite."""
    z = head.latents(tokens=20)
    poisoned = z.clone()
    poisoned[0, 3] = float("nan")
    others = torch.ones(z.shape[:2], dtype=torch.bool)
    others[0, 3] = False
    clean = head.like().forward(z)
    out = head.learn(poisoned)
    assert same(out.z_q[others], clean.z_q[others]), "other tokens changed"
    assert in_range(out.indices, head.size), f"index {int(out.indices[0, 3, 0])}"
    broken = [key for key, value in head.state().items() if not bool(torch.isfinite(value).all())]
    assert not broken, f"not finite afterwards: {broken[0]}"
    later = head.forward(head.latents(tokens=20, seed=1))
    assert bool(torch.isfinite(later.z_q).all()), "the next batch is not finite"


def nan_tokens_stay_out_of_the_loss(head: Adapter) -> None:
    """The loss of a batch with a NaN token is finite."""
    z = head.latents()
    z[0, 3] = float("nan")
    assert bool(torch.isfinite(head.forward(z).loss)), "loss is not finite"


def an_empty_batch_is_harmless(head: Adapter) -> None:
    """No tokens give empty outputs, a finite loss, and no change of state."""
    before = head.state()
    out = head.learn(head.latents(batch=0))
    assert out.z_q.shape == (0, 10, head.dim)
    assert bool(torch.isfinite(out.loss)), "loss is not finite"
    assert not unchanged(head, before), f"changed: {unchanged(head, before)[0]}"


def masked_is_gathered(head: Adapter) -> None:
    """A masked call is the call on the valid tokens: outputs, indices, loss, statistics."""
    z = head.latents(batch=4, tokens=12)
    mask = torch.arange(12)[None] < torch.tensor([12, 5, 8, 1])[:, None]
    twin = head.like()
    out, short = head.forward(z, mask), twin.forward(z[mask][None])
    assert torch.equal(out.indices[mask], short.indices[0]), "indices"
    assert same(out.z_q[mask], short.z_q[0]), "outputs"
    assert same(out.loss, short.loss), f"loss {float(out.loss):.4g}, not {float(short.loss):.4g}"
    head.update(z, out.indices)
    twin.update(z[mask][None], short.indices)
    mine, its = head.state(), twin.state()
    assert all(same(mine[key].float(), its[key].float()) for key in mine), "statistics"


def batches_do_not_mix(head: Adapter) -> None:
    """In evaluation an item's indices do not depend on the rest of its batch."""
    z = head.latents(batch=5)
    whole = head.encode(z)
    assert torch.equal(torch.cat([head.encode(item[None]) for item in z]), whole)


# When state changes -----------------------------------------------------------------------------


def evaluation_changes_nothing(head: Adapter) -> None:
    """Forward, encode and decode in evaluation leave the state as it is."""
    head.evaluate()
    before = head.state()
    z = head.latents()
    head.forward(z)
    head.decode(head.encode(z))
    assert not unchanged(head, before), f"changed: {unchanged(head, before)[0]}"


def kmeans_waits_for_training(head: Adapter) -> None:
    """A codebook that starts from data does not start from evaluation data."""
    evaluation_changes_nothing(head.like(kmeans=True))


def no_grad_changes_nothing(head: Adapter) -> None:
    """A forward in training mode without gradients (a sanity check, a warm-up) changes nothing."""
    before = head.state()
    with torch.no_grad():
        head.forward(head.latents())
    assert not unchanged(head, before), f"changed: {unchanged(head, before)[0]}"


def freezing_stops_learning(head: Adapter) -> None:
    """A frozen codebook stays as it is in training mode."""
    head.freeze()
    before = head.state()
    head.learn(head.latents())
    assert not unchanged(head, before), f"changed: {unchanged(head, before)[0]}"


def recomputing_counts_once(head: Adapter) -> None:
    """Activation checkpointing, which runs forward twice, learns what one forward learns."""
    plain = head.like()
    z = head.latents()
    plain.learn(z)
    x = z.clone().requires_grad_()
    checkpoint(lambda y: head.forward(y).z_q, x, use_reentrant=False).sum().backward()
    head.update(z, plain.like().forward(z).indices)
    mine, its = head.state(), plain.state()
    different = [key for key in mine if not same(mine[key].float(), its[key].float())]
    assert not different, f"different: {different[0]}"


# Gradients and losses ---------------------------------------------------------------------------


def gradient_is_identity(head: Adapter) -> None:
    """With the straight-through estimator, the encoder gets the gradient at the output."""
    it = head.like(straight_through=True)
    z = 0.3 * it.latents()
    z.requires_grad_()
    g = torch.randn_like(z)
    it.forward(z).z_q.backward(g)
    scale = float((z.grad * g).sum() / (g * g).sum())
    assert same(z.grad, g), f"{scale:.2f} times the gradient"


def every_level_commits(head: Adapter) -> None:
    """The commitment of every level of a residual stack reaches the encoder."""
    z = (0.3 * head.latents()).requires_grad_()
    dead = []
    for level, loss in enumerate(head.level_losses(z)):
        (grad,) = torch.autograd.grad(loss, z, retain_graph=True)
        if float(grad.abs().sum()) == 0:
            dead.append(level)
    assert not dead, f"no gradient from levels {dead}"


def the_loss_is_fresh(head: Adapter) -> None:
    """Adding to the returned loss in place does not change what later calls return."""
    z = head.latents()
    for mode in (True, False):
        it, twin = head.like(), head.like()  # the twin learns in forward what it learns in forward
        for one in (it, twin):
            one.module.train(mode)
        with torch.no_grad():
            it.forward(z).given.add_(5)
            twin.forward(z)
            got, expected = it.forward(z).loss, twin.forward(z).loss
        where = "training" if mode else "evaluation"
        assert same(got, expected), f"{where}: {float(got):g} instead of {float(expected):g}"


# Precision --------------------------------------------------------------------------------------


def half_inputs_keep_indices(head: Adapter) -> None:
    """bfloat16 latents get the indices of the same values in float32."""
    z = head.latents(tokens=200).bfloat16()
    half, whole = head.encode(z), head.encode(z.float())
    changed = float((half != whole).float().mean())
    assert torch.equal(half, whole), f"{changed:.1%} of the indices changed"


def autocast_keeps_indices(head: Adapter) -> None:
    """Under autocast the indices are those without it."""
    z = head.latents(tokens=200)
    plain = head.encode(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = head.encode(z)
    changed = float((cast != plain).float().mean())
    assert torch.equal(cast, plain), f"{changed:.1%} of the indices changed"


def a_half_module_learns(head: Adapter) -> None:
    """Cast to bfloat16, moving averages (decay 0.99) follow most of a drift."""
    whole, half = head.like(decay=0.99), head.like(decay=0.99)
    half.module.bfloat16()
    z = (2 + 0.1 * whole.latents(tokens=40)).bfloat16()
    moved = (z.float() * torch.tensor([1.1, 0.9] * (z.shape[-1] // 2))).bfloat16()
    ends = []
    for it, dtype in ((whole, torch.float32), (half, torch.bfloat16)):
        for data in (z, moved):  # settle, then follow a drift of one part in ten
            it.module.train()
            for _ in range(150):
                it.learn(data.to(dtype))
            ends.append(it.decode(it.encode(data.to(dtype))).float().mean((0, 1)))
    way, got = ends[1] - ends[0], ends[3] - ends[2]
    gap = float((got - way).norm() / way.norm())
    assert gap < 0.5, f"misses {gap:.0%} of the drift"


# Copies and graphs ------------------------------------------------------------------------------


def copies_are_equal_and_independent(head: Adapter) -> None:
    """deepcopy and pickle give an equal head whose training leaves the first one alone."""
    for way in (copy.deepcopy, lambda head: pickle.loads(pickle.dumps(head))):  # noqa: S301 - ours
        try:
            twin = head.like()
            twin.module = way(head.module)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise AssertionError(f"{type(error).__name__}: {error}") from error
        before = head.state()
        z = head.latents()
        assert torch.equal(twin.like().encode(z), twin.encode(z)), "another head"
        twin.module.train()
        twin.learn(z)
        assert not unchanged(head, before), "the copy trains the original"


def the_state_dict_is_whole(head: Adapter) -> None:
    """Loaded into a new head, the state reproduces outputs bit for bit."""
    z = head.latents()
    head.learn(z)
    other = head.like(seed=2)
    other.module.load_state_dict(head.module.state_dict(), strict=True)
    a, b = head.evaluate().forward(z), other.evaluate().forward(z)
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(a.indices, b.indices)


class Graph(nn.Module):
    """The forward of a head as a module of tensors."""

    def __init__(self, head: Adapter) -> None:
        super().__init__()
        self.module = head.module
        self.head = head

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        out = self.head.forward(z)
        return out.z_q, out.indices


def it_compiles_in_one_graph(head: Adapter) -> None:
    """torch.compile(fullgraph=True) takes forward in training and in evaluation."""
    for mode in (True, False):
        torch._dynamo.reset()
        twin, it = head.like(), head.like()
        twin.module.train(mode)
        it.module.train(mode)
        z = it.latents()
        expected = twin.forward(z).z_q
        where = "training" if mode else "evaluation"
        try:
            got, _ = torch.compile(Graph(it), fullgraph=True, backend="eager")(z)
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}") from error
        assert same(got, expected), f"{where}: another value"


def it_exports_with_any_batch(head: Adapter) -> None:
    """torch.export takes the evaluation forward with a batch of any size."""
    torch._dynamo.reset()
    head.evaluate()
    z = head.latents()
    batch = torch.export.Dim("batch", min=1, max=512)
    try:
        program = torch.export.export(Graph(head), (z,), dynamic_shapes=({0: batch},), strict=False)
        larger = head.latents(batch=5)
        got, indices = program.module()(larger)
    except Exception as error:
        raise AssertionError(type(error).__name__) from error
    expected = head.forward(larger)
    assert same(got, expected.z_q)
    assert torch.equal(indices, expected.indices)


# Size -------------------------------------------------------------------------------------------


def the_entropy_of_18_bits_fits(head: Adapter) -> None:
    """A training step of 8,192 tokens with 2**18 codes takes less than 1 GiB."""
    it = head.like(bits=18)
    z = (0.1 * it.latents(batch=8, tokens=1024)).requires_grad_()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (virtual_bytes() + MEMORY, hard))
    try:
        it.forward(z).loss.backward()
    except (RuntimeError, MemoryError) as error:
        words = str(error).partition("tried to allocate")[2].split()
        asked = f": asked for {int(words[0]) / 2**30:.0f} GiB at once" if words else ""
        raise AssertionError(f"does not fit{asked}") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert bool(torch.isfinite(z.grad).all())


def virtual_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


GRAPHS = (it_compiles_in_one_graph, it_exports_with_any_batch)
PROPERTIES = {  # the trait that a property concerns (any head: ""), in the order of the table
    decode_is_forward_in_every_layout: "",
    decode_is_forward_with_projection: "",
    codes_are_their_own_nearest: "fixed_point",
    prefixes_decode: "residual",
    bad_indices_are_refused: "",
    indices_stay_in_range: "",
    nan_tokens_disturb_nobody: "",
    nan_tokens_stay_out_of_the_loss: "loss",
    an_empty_batch_is_harmless: "",
    masked_is_gathered: "",
    batches_do_not_mix: "",
    evaluation_changes_nothing: "",
    kmeans_waits_for_training: "statistics",
    no_grad_changes_nothing: "",
    freezing_stops_learning: "statistics",
    recomputing_counts_once: "statistics",
    gradient_is_identity: "identity",
    every_level_commits: "commits",
    the_loss_is_fresh: "loss",
    half_inputs_keep_indices: "",
    autocast_keeps_indices: "",
    a_half_module_learns: "statistics",
    copies_are_equal_and_independent: "",
    the_state_dict_is_whole: "",
    it_compiles_in_one_graph: "",
    it_exports_with_any_batch: "",
    the_entropy_of_18_bits_fits: "binary",
}
