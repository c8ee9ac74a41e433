"""Properties of the contract that take two processes."""

import tempfile
from datetime import timedelta
from pathlib import Path

import torch
from adapter import Adapter
from properties import same
from torch import distributed as dist
from torch import multiprocessing

SECONDS = 20  # that a rank waits for the other
STEPS = 3


def two_ranks(work, head: Adapter, **options: object) -> list[dict[str, torch.Tensor]]:
    """Run ``work(head, rank, **options)`` in two processes; return what each returned."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = (type(head), head.name, head.changes)
        context = multiprocessing.spawn(
            rank_main, args=(folder, work, recipe, options), nprocs=2, join=False
        )
        try:
            for _ in range(60):  # each join waits for one process to end, at most 2 seconds
                if context.join(timeout=2):
                    break
            else:
                raise AssertionError("the ranks wait for each other")
        except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException):
            raise AssertionError(first_error(Path(folder))) from None
        finally:
            for process in context.processes:
                process.kill()
        paths = [Path(folder) / f"{rank}.pt" for rank in range(2)]
        return [torch.load(path, weights_only=True) for path in paths]


def first_error(folder: Path) -> str:
    """Return the kind of error that ended a rank."""
    for path in sorted(folder.glob("*.error")):
        return path.read_text()
    return "a rank ended"


def rank_main(rank, folder, work, recipe, options) -> None:
    torch.set_num_threads(1)
    kind, name, changes = recipe
    options = dict(options)
    head = kind(name, **changes) if options.pop("early", False) else None
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=SECONDS),
    )
    head = head or kind(name, **changes)
    try:
        torch.save(work(head, rank, **options), f"{folder}/{rank}.pt")
    except Exception as error:
        waited = "imed out" in str(error) or "onnection closed" in str(error)
        text = "the other rank waits in vain" if waited else type(error).__name__
        Path(folder, f"{rank}.error").write_text(text)
        raise
    dist.destroy_process_group()


def learn(head: Adapter, rank: int, sizes: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Take a few steps on this rank's part of each batch; return the state."""
    for step in range(STEPS):
        head.learn(head.latents(batch=sum(sizes), seed=step).split(sizes)[rank])
    return head.state()


def agree(head: Adapter, sizes: tuple[int, int] = (4, 4), **options: object) -> None:
    first, second = two_ranks(learn, head, sizes=sizes, **options)
    apart = [key for key in first if not torch.equal(first[key], second[key])]
    assert not apart, f"different on the ranks: {apart[0]}"


def two_ranks_learn_one_codebook(head: Adapter) -> None:
    """After steps on different batches, state is bit for bit the same on both ranks."""
    agree(head)


def two_ranks_agree_if_built_early(head: Adapter) -> None:
    """The same when the head was built before the process group, as Lightning does."""
    agree(head, early=True)


def an_empty_rank_stalls_nobody(head: Adapter) -> None:
    """The same when one rank has no tokens."""
    agree(head, sizes=(8, 0))


def entropy(head: Adapter, rank: int) -> dict[str, torch.Tensor]:
    """Return the loss of this rank's half of a batch."""
    z = 0.02 * head.latents(batch=8)
    return {"loss": head.forward(z.split((4, 4))[rank]).loss.detach()}


def two_ranks_know_one_entropy(head: Adapter) -> None:
    """The mean loss of two ranks is that of one process with the joined batch."""
    first, second = two_ranks(entropy, head)
    got, expected = (first["loss"] + second["loss"]) / 2, entropy_alone(head)
    assert same(got, expected), f"{float(got):.4g}, not {float(expected):.4g}"


def entropy_alone(head: Adapter) -> torch.Tensor:
    return head.forward(0.02 * head.latents(batch=8)).loss.detach()


RANK_PROPERTIES = {
    two_ranks_know_one_entropy: "binary",
    two_ranks_learn_one_codebook: "statistics",
    two_ranks_agree_if_built_early: "statistics",
    an_empty_rank_stalls_nobody: "statistics",
}
