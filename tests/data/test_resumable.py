import itertools
import multiprocessing

import pytest
import torch
import torch.distributed as dist

from tokenizers_vq.data import resumable
from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.resumable import ResumableLoader, rank_and_world
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.types import SignalSpec


class Numbers(SignalDataset):
    """Item (index, epoch), so that a batch shows what was drawn."""

    def __init__(self, n):
        super().__init__([f"{i:04d}" for i in range(n)], SignalSpec("image"))

    def item(self, index, epoch):
        return torch.tensor([index, epoch], dtype=torch.float32)


def stream(loader, count):
    """The next ``count`` batches over as many epochs as that takes."""
    epochs = (batch for _ in itertools.count() for batch in loader)
    return [batch.int().tolist() for batch in itertools.islice(epochs, count)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_stopped_and_resumed_is_the_same_as_straight(workers, stop):
    options = {"dataset": Numbers(17), "batch_size": 4, "seed": 3, "num_workers": workers}
    straight = stream(ResumableLoader(**{**options, "num_workers": 0}), 10)
    first = ResumableLoader(**options)
    begun = stream(first, stop)
    second = ResumableLoader(**options)
    second.load_state_dict(first.state_dict())
    assert begun + stream(second, 10 - stop) == straight


def test_each_epoch_has_each_item_once_in_a_new_order():
    loader = ResumableLoader(Numbers(12), batch_size=4)
    assert len(loader) == 3
    epochs = [torch.cat(list(loader)).int() for _ in range(3)]
    for number, epoch in enumerate(epochs):
        assert sorted(epoch[:, 0].tolist()) == list(range(12))
        assert set(epoch[:, 1].tolist()) == {number}
    assert len({tuple(epoch[:, 0].tolist()) for epoch in epochs}) == 3
    other = ResumableLoader(Numbers(12), batch_size=4, seed=1)
    assert stream(other, 1) != [epochs[0][:4].tolist()]


def test_setting_up_iterators_moves_nothing():
    loader = ResumableLoader(Numbers(8), batch_size=4)
    before = loader.state_dict()
    iter(loader)
    iter(loader)
    assert loader.state_dict() == before
    assert len(list(loader)) == 2
    iter(loader)
    assert loader.state_dict()["given"] == 8


def test_a_loop_that_was_left_goes_on_where_it_was():
    loader = ResumableLoader(Numbers(12), batch_size=4)
    straight = stream(ResumableLoader(Numbers(12), batch_size=4), 3)
    next(iter(loader))
    assert [batch.int().tolist() for batch in loader] == straight[1:]


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    list(ResumableLoader(Numbers(8), batch_size=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_shuffle_all_items_come_in_order_and_the_last_batch_is_smaller():
    loader = ResumableLoader(Numbers(10), batch_size=4, shuffle=False)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.cat(batches)[:, 0].tolist() == list(range(10))
    assert len(loader) == 3


def test_small_sets_are_repeated_with_other_draws():
    loader = ResumableLoader(Numbers(3), batch_size=8)
    assert (loader.repeat, len(loader)) == (3, 1)
    epoch = torch.cat(list(loader)).int()
    assert len({tuple(row) for row in epoch.tolist()}) == 8
    many = ResumableLoader(Numbers(3), batch_size=4, repeat=8)
    assert len(many) == 6
    rows = [tuple(row) for row in torch.cat(list(many) + list(many)).int().tolist()]
    assert len(set(rows)) == 48  # 2 epochs x 3 items x 8 draws


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_see_together_what_one_process_sees(monkeypatch, world, drop_last):
    def batches(rank, size, batch):
        monkeypatch.setattr(resumable, "rank_and_world", lambda: (rank, size))
        loader = ResumableLoader(Numbers(28), batch, drop_last=drop_last, seed=5)
        return list(loader), len(loader)

    joined, length = batches(0, 1, 4 * world)
    ranks = [batches(rank, world, 4)[0] for rank in range(world)]
    assert {len(one) for one in ranks} == {length}
    for k, whole in enumerate(joined):
        assert torch.equal(torch.cat([one[k] for one in ranks]), whole)


def test_a_last_batch_smaller_than_the_world_is_given_twice_rather_than_missing(monkeypatch):
    seen = []
    for rank in range(3):
        monkeypatch.setattr(resumable, "rank_and_world", lambda rank=rank: (rank, 3))
        seen.append(list(ResumableLoader(Numbers(7), 2, shuffle=False)))
    assert [[batch[:, 0].tolist() for batch in one] for one in seen] == [
        [[0, 1], [6]], [[2, 3], [6]], [[4, 5], [6]]
    ]  # fmt: skip


def test_a_state_of_one_process_goes_on_with_two(monkeypatch):
    straight = stream(ResumableLoader(Numbers(16), batch_size=4), 4)
    first = ResumableLoader(Numbers(16), batch_size=4)
    stream(first, 2)
    rest = []
    for rank in range(2):
        monkeypatch.setattr(resumable, "rank_and_world", lambda rank=rank: (rank, 2))
        loader = ResumableLoader(Numbers(16), batch_size=2)
        loader.load_state_dict(first.state_dict())
        rest.append([batch.int().tolist() for batch in loader])
    assert [a + b for a, b in zip(*rest, strict=True)] == straight[2:]


def test_a_process_group_that_starts_after_the_loader_is_built_counts():
    loader = ResumableLoader(Numbers(8), batch_size=4)
    assert rank_and_world() == (0, 1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert rank_and_world() == (dist.get_rank(), dist.get_world_size())
        assert len(list(loader)) == 2
    finally:
        dist.destroy_process_group()


def test_a_state_of_other_data_is_refused():
    state = ResumableLoader(Numbers(8), batch_size=4).state_dict()
    with pytest.raises(DataError) as error:
        ResumableLoader(Numbers(9), batch_size=4).load_state_dict(state)
    assert str(error.value) == (
        "ResumableLoader: expected a state with items=9; got items=8. "
        "Resume with the data and options of the first run."
    )


def test_sizes_below_one_are_errors():
    with pytest.raises(ConfigError) as error:
        ResumableLoader(Numbers(8), batch_size=0)
    assert str(error.value) == (
        "ResumableLoader: expected batch_size and repeat of 1 or more; "
        "got batch_size=0, repeat=None."
    )


def give_epoch(rank, store, queue):
    loader = ResumableLoader(Numbers(8), batch_size=2)  # built before the process group
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    queue.put((rank, [x.int().tolist() for batch in loader for x in batch]))
    dist.destroy_process_group()


def test_two_real_processes_share_an_epoch(tmp_path):
    context = multiprocessing.get_context("fork")  # spares two imports of torch
    queue = context.Queue()
    runs = [
        context.Process(target=give_epoch, args=(rank, tmp_path / "store", queue))
        for rank in range(2)
    ]
    for run in runs:
        run.start()
    one, two = (rows for _, rows in sorted(queue.get(timeout=60) for _ in runs))
    for run in runs:
        run.join(timeout=60)
    whole = stream(ResumableLoader(Numbers(8), batch_size=4), 2)
    assert [one[:2] + two[:2], one[2:] + two[2:]] == whole
