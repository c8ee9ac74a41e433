import pytest
import torch
from golden import C4, X, with_codes

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.ecsq import ECSQ
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.grouped import Grouped
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.quantizers.neighbours import perturb
from tokenizers_vq.quantizers.perturbed import Perturbed
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.vq import VectorQuantizer

VQ = {"name": "vq", "codebook_size": 32, "restart_threshold": 0.0}


def head(inner, **options):
    torch.manual_seed(3)
    return registry.build("quantizer", {"name": "perturbed", "inner": inner, **options}, dim=4)


def changed(quantizer, z):
    """Return where the output is another code than the one of the index."""
    out = quantizer(z)
    return (out.z_q != quantizer.decode(out.indices)).any(-1)


def test_golden_share_of_changed_tokens():
    quantizer = head(VQ, rate=0.6, share=1.0, count=4)
    share = changed(quantizer, torch.randn(4, 10_000, 4)).float().mean()
    assert float(share) == pytest.approx(0.4491, abs=0.01)  # the reference's draw; 0.45 expected
    assert float(share) == pytest.approx(0.6 * (1 - 1 / 4), abs=4 * (0.45 * 0.55 / 40_000) ** 0.5)


def test_the_value_is_one_of_the_nearest_codes_all_equally_often():
    inner = with_codes(VectorQuantizer(2, codebook_size=4, restart_threshold=0.0), C4)
    quantizer = Perturbed(inner=inner, rate=1.0, share=1.0, count=3)
    z = X[:, 1:2].expand(1, 3000, 2)  # (.9, .3): nearest (1, 0), (0, 0) at .9, (0, 1) at 1.3
    values, counts = quantizer(z).z_q.reshape(-1, 2).unique(dim=0, return_counts=True)
    assert values.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert counts.tolist() == pytest.approx([1000] * 3, abs=4 * (3000 * 2 / 9) ** 0.5)


@pytest.mark.parametrize("off", [{"rate": 0.0}, {"share": 0.0}, {"count": 1}])
@pytest.mark.parametrize("inner", [VQ, {**VQ, "code_dim": 2, "estimator": "rotation"}])
def test_without_perturbation_it_is_the_inner_head(inner, off):
    quantizer = head(inner, **{"rate": 1.0, "share": 1.0, "count": 4, **off})
    z = torch.randn(3, 5, 4, requires_grad=True)
    a, b = quantizer(z), quantizer.inner(z)
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.loss, b.loss)
    g = torch.randn(3, 5, 4)
    (got,) = torch.autograd.grad((a.z_q * g).sum() + a.loss, z)
    (expected,) = torch.autograd.grad((b.z_q * g).sum() + b.loss, z)
    assert torch.equal(got, expected)


def test_only_the_first_items_are_touched():
    quantizer = head(VQ, rate=1.0, share=0.29, count=32)
    touched = changed(quantizer, torch.randn(100, 20, 4)).any(1)
    assert bool(touched[:29].all())
    assert not bool(touched[29:].any())
    assert not bool(changed(quantizer, torch.randn(3, 20, 4)).any())


def test_losses_indices_and_gradient_are_those_of_the_chosen_codes():
    quantizer = head({**VQ, "code_dim": 2}, rate=1.0, share=1.0, count=8)
    z = torch.randn(3, 50, 4, requires_grad=True)
    a, b = quantizer(z), quantizer.inner(z)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.loss, b.loss)
    g = torch.randn(3, 50, 4)
    (got,) = torch.autograd.grad(a.z_q, z, g)
    (expected,) = torch.autograd.grad(b.z_q, z, g)
    torch.testing.assert_close(got, expected)


def test_the_map_back_learns_from_the_codes_it_was_given():
    quantizer = head({**VQ, "code_dim": 2}, rate=1.0, share=1.0, count=8)
    out = quantizer(torch.randn(3, 50, 4))
    g = torch.randn(3, 50, 4)
    out.z_q.backward(g)
    layer = quantizer.inner.project_out
    codes = (out.z_q.detach() - layer.bias) @ torch.linalg.pinv(layer.weight).T
    expected = g.reshape(-1, 4).T @ codes.reshape(-1, 2)
    torch.testing.assert_close(layer.weight.grad, expected, atol=1e-4, rtol=1e-3)
    assert quantizer.inner.codebook.grad is None


def test_evaluation_is_the_inner_head():
    quantizer = head(VQ, rate=1.0, share=1.0, count=8).eval()
    z = torch.randn(3, 5, 4)
    assert torch.equal(quantizer(z).z_q, quantizer.inner(z).z_q)


def test_the_codebook_follows_the_chosen_codes():
    inner = {**VQ, "codebook_update": "ema", "decay": 0.5}
    a, b = head(inner, rate=1.0, share=1.0, count=8), head(inner, rate=0.0)
    z = torch.randn(3, 50, 4)
    a.update(z, a(z).indices)
    b.update(z, b(z).indices)
    assert torch.equal(a.inner.codebook, b.inner.codebook)


def test_an_annealed_rate_is_a_plain_number():
    quantizer = head(VQ, rate=1.0, share=1.0, count=8)
    quantizer.rate = 0.0
    assert not bool(changed(quantizer, torch.randn(3, 20, 4)).any())


@pytest.mark.parametrize(
    ("inner", "step"),
    [
        (FSQ(levels=[8, 5, 5]), lambda digits: digits.abs().sum(-1)),
        (LFQ(bits=6), lambda digits: digits.abs().sum(-1)),
        (ECSQ(channels=3, max_level=2), lambda digits: digits.abs().sum(-1)),
    ],
)
def test_on_a_grid_one_digit_moves_by_one(inner, step):
    torch.manual_seed(0)
    columns = [torch.randint(size, (1, 4000)) for size in inner.codebook_sizes]
    indices = torch.stack(columns, dim=-1)
    other = perturb(inner, indices, rate=1.0, count=4)
    sizes = [radix for radices in inner.digits for radix in radices]
    before, after = (_digits(x, inner.digits) for x in (indices, other))
    moved = step(after - before)
    assert set(moved.unique().tolist()) == {0, 1}
    assert float((moved == 1).float().mean()) == pytest.approx(3 / 4, abs=0.03)
    assert bool((after >= 0).all())
    assert bool((after < torch.tensor(sizes)).all())
    hits = (after != before).sum((0, 1)).float()
    assert float(hits.min()) > 0.5 * float(hits.max())  # every digit has its turn


def _digits(indices, digits):
    columns = []
    for k, radices in enumerate(digits):
        index = indices[..., k]
        for radix in radices:
            columns.append(index % radix)
            index = index // radix
    return torch.stack(columns, dim=-1)


def test_a_grid_can_be_perturbed_in_training():
    quantizer = Perturbed(inner=LFQ(bits=6), rate=1.0, share=1.0, count=100)
    z = torch.randn(2, 3000, 6)
    out = quantizer(z)
    wrong = (out.z_q != quantizer.decode(out.indices)).sum(-1)
    assert set(wrong.unique().tolist()) == {0, 1}
    assert float(wrong.float().mean()) == pytest.approx(6 / 7, abs=0.02)  # itself and 6 flips


def test_a_stack_is_perturbed_in_each_of_its_parts():
    stack = {"name": "residual", "stages": {"repeat": 3, "of": VQ}, "stage_dropout": 0.5}
    quantizer = head(stack, rate=1.0, share=1.0, count=8)
    z = torch.randn(40, 20, 4)
    assert float(changed(quantizer, z).float().mean()) > 0.9
    torch.manual_seed(0)
    indices = quantizer(z).indices
    assert bool((indices == -1).any())
    other = perturb(quantizer, indices, rate=1.0, count=8)
    assert torch.equal(other == -1, indices == -1)
    assert bool((other != indices).any((0, 1)).all())


def test_chosen_columns_change_alone():
    stages = [VectorQuantizer(4, codebook_size=16) for _ in range(3)]
    indices = torch.randint(16, (5, 20, 3))
    other = perturb(Residual(stages=stages), indices, rate=1.0, count=4, columns=[1])
    assert torch.equal(other[..., [0, 2]], indices[..., [0, 2]])
    assert not torch.equal(other[..., 1], indices[..., 1])


def test_neighbours_of_tokens_are_the_nearest_codes_of_their_code():
    inner = with_codes(VectorQuantizer(2, codebook_size=4), C4)
    indices = torch.full((1, 500, 1), 3)  # (2, 2); next (1, 0) and (0, 1) at 5, (0, 0) at 8
    other = perturb(Grouped(groups=[inner]), indices, rate=1.0, count=3)
    assert other.unique().tolist() == [1, 2, 3]


def test_a_generator_decides_the_draw():
    quantizer = VectorQuantizer(4, codebook_size=16)
    indices = torch.randint(16, (2, 30, 1))
    indices[0, :5] = -1

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return perturb(quantizer, indices, rate=0.5, count=4, generator=generator)

    before = torch.get_rng_state()
    first = draw(1)
    assert torch.equal(first, draw(1))
    assert not torch.equal(first, draw(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert bool((first[0, :5] == -1).all())
    assert torch.equal(perturb(quantizer, indices, rate=0.0, count=4), indices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rate": 1.5},
            "Perturbed: expected a rate from 0 to 1; got 1.5. It is a probability.",
        ),
        (
            {"share": "all"},
            "Perturbed: expected a share from 0 to 1; got 'all'. It is a probability.",
        ),
        (
            {"count": 0},
            "Perturbed: expected a count of at least 1; got 0. "
            "It is the number of neighbours, the code itself included.",
        ),
        (
            {"inner": {"name": "perturbed", "inner": VQ}},
            "Perturbed: expected parts that are not perturbed; got one that is. "
            "Perturb once, around the outermost stack.",
        ),
        (
            {"inner": "vq"},
            "Perturbed: expected one inner quantizer; got 'vq'. Give inner a mapping with a name.",
        ),
        (
            {"inner": {**VQ, "dim": 6}},
            "Perturbed: expected an inner quantizer of width 4; got 6. Leave its dim out.",
        ),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ConfigError) as error:
        head(**{"inner": VQ, **options})
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("title", "config"),
    [
        ("Residual", {"name": "residual", "stages": {"repeat": 2, "of": {}}}),
        ("MultiScale", {"name": "multi_scale", "inner": {}, "scales": [1, 2]}),
    ],
)
def test_a_stage_is_not_perturbed(title, config):
    stage = {"name": "perturbed", "inner": VQ}
    if title == "Residual":
        config["stages"]["of"] = {"name": "grouped", "groups": [stage]}
    else:
        config["inner"] = stage
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", config, dim=4)
    assert str(error.value) == (
        f"{title}: expected parts that are not perturbed; got one that is. "
        "Perturb once, around the outermost stack."
    )


def test_tokens_of_another_head_are_refused():
    with pytest.raises(ShapeError):
        perturb(LFQ(bits=4), torch.full((1, 2, 1), 16), rate=1.0, count=2)
    with pytest.raises(ConfigError) as error:
        perturb(LFQ(bits=4), torch.zeros(1, 2, 1, dtype=torch.int64), rate=-1, count=2)
    assert str(error.value) == (
        "perturb: expected a rate from 0 to 1; got -1. It is a probability."
    )
