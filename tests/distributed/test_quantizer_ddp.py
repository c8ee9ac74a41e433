"""Two processes with parts of a batch learn what one process learns from all of it."""

import copy

import pytest
import torch
from reference.ranks import join_group, run_ranks
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tokenizers_vq import registry

D = 4
EMA = {"name": "vq", "codebook_size": 16, "codebook_update": "ema", "decay": 0.8}
LFQ = {"name": "lfq", "bits": 8, "inverse_temperature": 1.0, "entropy_weight": 1.0}
HEADS = {
    "ema": {**EMA, "restart_threshold": 0.0},
    "ema_kmeans_restart": {**EMA, "kmeans_init": "plusplus", "restart_threshold": 0.3},
    "gradient_restart": {"name": "vq", "codebook_size": 16, "restart_threshold": 0.3},
    "vq_entropy": {"name": "vq", "codebook_size": 16, "entropy_weight": 1.0},
    "affine_cvq": {"name": "vq", "codebook_size": 16, "affine": True, "restart": "cvq"},
    "rvq": {
        "name": "residual",
        "stages": {"repeat": 2, "of": {**EMA, "metric": "cosine", "kmeans_init": "random"}},
    },
    "rq_vae": {"name": "residual", "stages": [{**EMA, "kmeans_init": "random"}], "repeat": 3},
    "mcrvq": {
        "name": "mcrvq",
        "stages": {"repeat": 3, "of": {**EMA, "kmeans_init": "random"}},
        "parts": 2,
    },
    "qinco": {
        "name": "qinco",
        "codebook_size": 16,
        "depth": 2,
        "kmeans_init": "random",
        "restart_threshold": 0.9,
    },
    "shared_index": {**EMA, "name": "shared_index", "parts": [3, 1], "kmeans_init": "random"},
    "perturbed": {
        "name": "perturbed",
        "rate": 1.0,
        "share": 1.0,
        "count": 4,
        "inner": {**EMA, "kmeans_init": "random"},
    },
    "projected": {"name": "projected", "hidden": 8, "inner": {**EMA, "restart_threshold": 0.0}},
    "disentangled": {
        "name": "grouped",
        "groups": {"repeat": 2, "of": {**EMA, "metric": "cosine", "restart_threshold": 0.0}},
        "disentangle_weight": 1.0,
    },
    "lfq": LFQ,
    "lfq_bound": {**LFQ, "bits": 26},
    "ibq": {"name": "ibq", "codebook_size": 16, "inverse_temperature": 1.0, "entropy_weight": 1.0},
    "ecsq": {"name": "ecsq", "channels": 3, "rate_weight": 1.0},
    "fsp": {
        "name": "fsp",
        "levels": [5, 4, 3],
        "quantize_rate": 1.0,
        "moment_weights": [1.0, 1.0, 1.0, 1.0],
    },
    "multi_scale": {
        "name": "multi_scale",
        "axes": 1,
        "scales": [1, 3],
        "inner": {**EMA, "kmeans_init": "plusplus", "restart_threshold": 0.3},
    },
    "multi_scale_each": {
        "name": "multi_scale",
        "axes": 1,
        "scales": [1, 3],
        "inner": {"repeat": 2, "of": {**EMA, "restart_threshold": 0.3}},
    },
    "mcquic": {  # sure of the nearest code: a draw would be another one on each rank
        "name": "mcquic",
        "axes": 1,
        "levels": 2,
        "codebook_size": 16,
        "temperature": 1e6,
    },
    "per_position": {
        "name": "per_position",
        "grid": [3],
        "tokens": 6,
        "codebook_size": 16,
        "gradient": True,
        "restart_every": 2,
        "restart_threshold": 0.3,
    },
}
SPLITS = {"even": (10, 10), "uneven": (13, 7), "empty": (20, 0)}
STEPS = 5


def batches():
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(20, 3, D, generator=generator) for _ in range(STEPS)]


def build(name):
    torch.manual_seed(1)
    return registry.build("quantizer", HEADS[name], dim=D)


def learn_codebook(head, parts):
    """Run a few training steps without an optimizer; return everything that changed."""
    for z in parts:
        head.update(z, head(z).indices)
    return head.state_dict()


def learn_accumulated(head, parts):
    """The same with two forwards per step and one update of both: what the trainer does."""
    for z in parts:
        indices = [head(half).indices for half in z.tensor_split(2)]
        head.update(z, torch.cat(indices))
    return head.state_dict()


def learn_checkpointed(head, parts):
    """The same with a forward that the backward computes again."""
    for part in parts:
        z = part.clone().requires_grad_()
        z_q, indices = checkpoint(outputs, head, z, use_reentrant=False)
        z_q.square().sum().backward()
        head.update(z, indices)
    return head.state_dict()


def outputs(head, z):
    out = head(z)
    return out.z_q, out.indices


def learn_frozen(head, parts):
    """The same with a head that must not change."""
    return learn_codebook(head.requires_grad_(False), parts)


HABITS = {
    "accumulated": learn_accumulated,
    "checkpointed": learn_checkpointed,
    "frozen": learn_frozen,
}
STATEFUL = [name for name in HEADS if build(name).has_state]


def gradients(module, head, z):
    """Return the gradient of a loss at every parameter, and the loss."""
    out = module(z)
    loss = out.loss + out.z_q.square().mean()  # all parameters take part, as in training
    loss.backward()
    grads = {key: p.grad.clone() for key, p in head.named_parameters() if p.grad is not None}
    return grads | {"loss": loss.detach()}


def work(rank, folder, early):
    """One rank: everything the tests compare, in one process start (they cost seconds)."""
    join_group(rank, folder, seconds=60)
    results = {}
    for split, sizes in SPLITS.items():
        for name in HEADS:
            head = copy.deepcopy(early[name])  # built before the process group, as Lightning does
            parts = [z.split(sizes)[rank] for z in batches()]
            results[split, name] = learn_codebook(head, parts)
    for habit, learn in HABITS.items():
        for name in STATEFUL:
            parts = [z.split(SPLITS["uneven"])[rank] for z in batches()]
            results[habit, name] = learn(copy.deepcopy(early[name]), parts)
    for name in HEADS:
        head = copy.deepcopy(early[name])
        if not list(head.parameters()):
            continue
        module = DistributedDataParallel(head)
        results["gradient", name] = gradients(module, head, batches()[0].split((10, 10))[rank])
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    early = {name: build(name) for name in HEADS}
    run_ranks(work, folder, early)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", HEADS)
def test_codebooks_are_bit_identical_over_ranks(ranks, name, split):
    first, second = (rank[split, name] for rank in ranks)
    for key in first:
        assert torch.equal(first[key], second[key]), key


@pytest.mark.parametrize("habit", ["accumulated", "checkpointed"])
@pytest.mark.parametrize("name", STATEFUL)
def test_habits_of_training_change_nothing(ranks, name, habit):
    for rank in ranks:
        for key, value in rank["uneven", name].items():
            assert torch.equal(rank[habit, name][key], ranks[0][habit, name][key]), key
            if "stage_dropout" not in HEADS[name]:  # other forwards draw other depths
                torch.testing.assert_close(rank[habit, name][key], value)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_frozen_head_stays_as_it_is_on_every_rank(ranks, name):
    before = build(name).state_dict()
    for rank in ranks:
        for key, value in before.items():
            assert torch.equal(rank["frozen", name][key], value), key


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", HEADS)
def test_codebooks_are_those_of_one_process_with_the_joined_batch(ranks, name, split):
    expected = learn_codebook(build(name), batches())
    for key, value in expected.items():
        torch.testing.assert_close(ranks[0][split, name][key], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["gradient_restart", "vq_entropy", "lfq", "lfq_bound", "ibq", "ecsq", "fsp"]
)
def test_loss_and_gradient_are_those_of_one_process_with_the_joined_batch(ranks, name):
    head = build(name)
    expected = gradients(head, head, batches()[0])
    first, second = (rank["gradient", name] for rank in ranks)
    loss = (first.pop("loss") + second["loss"]) / 2
    torch.testing.assert_close(loss, expected.pop("loss"))
    assert first.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(first[key], value, atol=1e-6, rtol=1e-4)


def validate(rank, folder, heads):
    """One rank with its own number of validation batches, then a step both take part in."""
    join_group(rank, folder, seconds=20)
    results = {}
    for name, head in heads.items():
        z = batches()[rank]
        with torch.no_grad():
            for _ in range(1 + rank):
                results[name] = head.eval()(z).loss
        head.train()(z)
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_ranks_may_validate_different_numbers_of_batches(tmp_path):
    group = {"name": "grouped", "groups": {"repeat": 2, "of": {**LFQ, "bits": 2}}}
    configs = {
        "lfq": LFQ,
        "lfq_bound": HEADS["lfq_bound"],
        "bsq": {"name": "bsq", "bits": 8},
        "group": group,
    }
    heads = {name: registry.build("quantizer", config, dim=D) for name, config in configs.items()}
    run_ranks(validate, tmp_path, heads)
    for rank in range(2):
        losses = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for name, head in heads.items():
            torch.testing.assert_close(losses[name], head.eval()(batches()[rank]).loss.detach())
