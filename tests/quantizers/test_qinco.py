import pytest
import torch
from golden import close, with_codes

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers import qinco
from tokenizers_vq.quantizers.qinco import QINCo
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.vq import VectorQuantizer


def moved(**options):
    """Return a head whose networks do something."""
    head = QINCo(4, codebook_size=8, depth=3, hidden=5, **options)
    with torch.no_grad():
        for parameter in head.networks.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return head


def by_hand(head, z):
    """Return indices and sums by trying every code of every stage, token by token."""
    found, sums = [], []
    for x in z.double():
        total, path = torch.zeros(4, dtype=torch.float64), []
        for stage in range(3):
            choices = head.codebook[stage].double()
            if stage > 0:
                net = head.networks[stage - 1].double()
                joined = torch.cat([choices, total.expand_as(choices)], dim=1)
                weight = torch.cat([net.from_code.weight, net.from_sum.weight], dim=1)
                choices = choices + joined @ weight.T + net.from_code.bias + net.from_sum.bias
                for up, down in zip(net.up, net.down, strict=True):
                    choices = choices + (choices @ up.T).clamp(min=0) @ down.T
            path.append(int((x - total - choices).square().sum(1).argmin()))
            total = total + choices[path[-1]]
        found.append(path)
        sums.append(total)
    return torch.tensor(found), torch.stack(sums)


def test_with_networks_at_zero_it_is_residual_quantization():
    head = QINCo(4, codebook_size=8, depth=3, hidden=5)
    stages = [VectorQuantizer(4, codebook_size=8) for _ in range(3)]
    for stage, codes in zip(stages, head.codebook.detach(), strict=True):
        with_codes(stage, codes)
    z = torch.randn(50, 4)
    a, b = head(z), Residual(stages=stages)(z)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.z_q, b.z_q)
    for i in range(3):
        close(a.terms[f"commitment/{i}"], float(b.terms[f"commitment/{i}"]))
    close(a.loss, float(b.loss.detach()))


def test_every_code_tried_token_by_token():
    head, z = moved(), torch.randn(30, 4)
    out = head(z)
    copy = moved()
    copy.load_state_dict(head.state_dict())
    indices, sums = by_hand(copy, z)
    assert torch.equal(out.indices, indices)
    close(out.z_q, sums.detach().float())


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_search_holds_a_bounded_part_at_a_time(monkeypatch, rows):
    head, z = moved(), torch.randn(40, 4)
    whole = head.encode(z)
    monkeypatch.setattr(qinco, "CHUNK", {"cpu": rows * 8 * 5})
    seen = []
    for network in head.networks:
        network.register_forward_hook(lambda _, given, out: seen.append(out.shape))
    assert torch.equal(head.encode(z), whole)
    searched = [shape for shape in seen if len(shape) == 3]
    assert max(shape[0] for shape in searched) == min(rows, 40)


def test_a_prefix_decodes_to_the_sum_whose_error_was_reported():
    head, z = moved(), torch.randn(30, 4)
    out = head(z)
    for count in (1, 2, 3):
        error = (head.decode(out.indices[:, :count]) - z).square().mean()
        close(error, float(out.terms[f"codebook/{count - 1}"]))
    assert torch.equal(head.decode(out.indices), out.z_q)


def test_a_stage_teaches_the_stages_before_it_through_the_chosen_path_only():
    head, z = moved(), torch.randn(5, 4)
    out = head(z)
    sums = head._sums(out.indices)
    (gradient,) = torch.autograd.grad((sums[2] - z).square().sum(), head.codebook)
    used = [set(column.tolist()) for column in out.indices.T]
    for stage in range(3):
        touched = gradient[stage].abs().sum(1).nonzero()[:, 0].tolist()
        assert set(touched) == used[stage]


def test_the_encoder_gradient_is_the_identity_and_every_stage_commits():
    head = moved(stage_dropout=0.5)
    z = torch.randn(20, 4, requires_grad=True)
    head(z).z_q.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))
    assert all(parameter.grad is None for parameter in head.parameters())


def test_dropped_stages_have_no_index_and_no_output():
    head = moved(stage_dropout=1.0)
    z = torch.randn(64, 3, 4)
    out = head(z)
    depth = (out.indices >= 0).sum(-1)
    assert bool((depth == depth[:, :1]).all())
    assert set(depth.flatten().tolist()) == {1, 2, 3}
    assert torch.equal(head.decode(out.indices), out.z_q)
    assert torch.equal(out.indices[depth == 2][:, :2], head.encode(z)[depth == 2][:, :2])
    last = (out.z_q.detach() - z)[depth == 3].square().mean()
    close(out.terms["codebook/2"], float(last))


def test_a_beam_is_never_worse():
    head, z = moved(), torch.randn(200, 4)
    wide = moved(beam=4)
    wide.load_state_dict(head.state_dict())
    errors = [(one.decode(one.encode(z)) - z).detach().square().sum(-1) for one in (head, wide)]
    assert bool((errors[1] <= errors[0]).all())
    assert float(errors[1].mean()) < float(errors[0].mean())
    assert torch.equal(wide(z).indices, wide.encode(z))


def test_kmeans_starts_every_stage_on_its_own_residuals():
    head = QINCo(4, codebook_size=8, depth=3, hidden=5, kmeans_init="plusplus")
    z = torch.randn(2, 200, 4)
    head.update(z, head(z).indices)
    errors = [float(head(z).terms[f"codebook/{i}"]) for i in range(3)]
    assert errors[0] > errors[1] > errors[2]
    before = head.codebook.clone()
    head.update(z, head(z).indices)
    assert torch.equal(head.codebook, before)


def far(**options):
    """Return a head of which every stage has one code near the latents and seven far away."""
    head = QINCo(4, codebook_size=8, depth=2, hidden=5, **options)
    with torch.no_grad():
        head.codebook.fill_(100)
        head.codebook[:, 0] = 0
    return head


def test_dead_codes_of_every_stage_restart_until_all_are_used():
    head, z = far(), torch.randn(4000, 4)
    assert [len(column.unique()) for column in head.encode(z).T] == [1, 1]
    for _ in range(20):
        head.update(z, head(z).indices)
    assert [len(column.unique()) for column in head.encode(z).T] == [8, 8]
    assert head.has_state
    assert not head.learns_by_update


def test_a_restarted_code_is_what_a_latent_left_over_and_outlives_the_step():
    head, z = far(), torch.randn(50, 4)
    with torch.no_grad():
        head.codebook[0, 0] = 1  # so that stage 1 sees z - 1
        head.counts[:, 1:3] = 0
    head.update(z, head(z).indices)
    for stage, rest in enumerate((z, z - 1)):
        gaps = torch.cdist(head.codebook[stage, 1:].detach(), rest).min(1).values
        assert (gaps < 0.1).tolist() == [True, True, *[False] * 5]
    mean = 0.99 * 6 / 8 + 0.01 * 50 / 8
    close(head.counts[:, 1:3], torch.full((2, 2), mean))
    before = head.codebook.clone()
    head.update(z, head(z).indices)
    assert torch.equal(head.codebook, before)


def test_without_a_threshold_or_for_dropped_stages_nothing_restarts():
    head, z = far(restart_threshold=0.0), torch.randn(4000, 4)
    before = head.codebook.clone()
    for _ in range(10):
        head.update(z, head(z).indices)
    assert torch.equal(head.codebook, before)
    assert not head.has_state
    head = far()
    for _ in range(10):
        head.update(z, head(z).indices * torch.tensor([1, 0]) - torch.tensor([0, 1]))
    assert torch.equal(head.codebook[1], before[1])
    assert not torch.equal(head.codebook[0], before[0])


def test_training_the_networks_helps():
    torch.manual_seed(0)
    head = QINCo(4, codebook_size=8, depth=3, hidden=16, kmeans_init="random")
    z = torch.randn(500, 4)
    head.update(z, head(z).indices)
    start = float(head(z).terms["codebook/2"])
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        head(z).loss.backward()
        optimizer.step()
    assert float(head(z).terms["codebook/2"]) < 0.9 * start


@pytest.mark.parametrize("option", ["depth", "hidden", "blocks", "beam"])
def test_counts_below_one(option):
    with pytest.raises(ConfigError) as error:
        QINCo(4, **{"codebook_size": 8, "depth": 2, option: 0})
    assert str(error.value) == (
        f"QINCo: expected {option} of at least 1; got 0. Give a positive whole number."
    )


def test_no_width_and_no_such_seeding():
    with pytest.raises(ConfigError) as error:
        QINCo(codebook_size=8, depth=2)
    assert str(error.value) == "QINCo: expected dim or code_dim; got neither. Set one of them."
    with pytest.raises(ConfigError) as error:
        QINCo(4, codebook_size=8, depth=2, kmeans_init="best")
    assert str(error.value) == (
        "QINCo kmeans_init: there is no 'best'; choose one of none, plusplus, random."
    )


def test_a_prefix_has_at_least_one_column():
    with pytest.raises(ShapeError) as error:
        moved().decode(torch.zeros(2, 0, dtype=torch.int64))
    assert str(error.value) == "decode: expected indices of shape (B, *grid, 1 to 3); got (2, 0)."
