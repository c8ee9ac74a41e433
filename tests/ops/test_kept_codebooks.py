"""Packed codebooks are kept while they do not change, and no write to one is ever missed."""

import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn

from tokenizers_vq.functional import nearest
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.ops.nearest_code import KERNELS


def counts():
    """Hits, misses and bytes; without kernels there are none, and every call is a miss."""
    if not KERNELS.names:
        return None
    return importlib.import_module("tokenizers_vq.ops._C").cache()


def hit_after(x, codebook):
    """Search, hold the answer to the torch form, and say whether a kept codebook was used."""
    before = counts()
    found = nearest_code(x, codebook)
    for mine, its in zip(found, nearest.nearest_code(x, codebook), strict=True):
        assert torch.equal(mine, its)
    return before and counts()[0] - before[0] == 1


def test_an_unchanged_codebook_is_packed_once():
    x, codebook = torch.randn(20, 6), torch.randn(300, 6)
    assert not hit_after(x, codebook)
    for same in (codebook, codebook[:], codebook.detach(), codebook.clone(), codebook.T.clone().T):
        assert hit_after(x, same) or not KERNELS.names


WRITES = {
    "in place": lambda c: c.mul_(-3),  # each write its own numbers: equal ones may be kept
    "through a view": lambda c: c[3:9].copy_(torch.randn(6, 6)),
    "one number": lambda c: c[299, 5].add_(3),
    "through .data, which no version counter sees": lambda c: c.data[7].neg_(),
    "through numpy, which no version counter sees": lambda c: c.numpy().__setitem__(11, 9.0),
    "through memory shared with another tensor": lambda c: torch.frombuffer(
        c.numpy(), dtype=torch.float32
    ).neg_(),
    "the sign of a zero, which changes nothing": lambda c: c[5].zero_().neg_(),
}


@pytest.mark.parametrize("write", WRITES)
def test_no_write_is_missed(write):
    x, codebook = torch.randn(50, 6), torch.randn(300, 6)
    hit_after(x, codebook)
    WRITES[write](codebook)
    assert not hit_after(x, codebook)
    assert hit_after(x, codebook) or not KERNELS.names


def test_memory_used_again_for_another_codebook_is_not_taken_for_the_old_one():
    x = torch.randn(50, 6)
    for _ in range(20):
        codebook = 7 * torch.randn(300, 6)  # freed and made again at the same address
        assert not hit_after(x, codebook)


def test_an_optimizer_step_is_seen():
    x, codebook = torch.randn(50, 6), nn.Parameter(torch.randn(300, 6))
    for optimizer in (torch.optim.SGD([codebook], 0.5), torch.optim.Adam([codebook], 0.5)):
        for _ in range(3):
            nearest_code(x, codebook)[0].sum().backward()
            optimizer.step()
            assert not hit_after(x, codebook)


def test_inference_tensors_have_no_version_counter_and_work():
    x = torch.randn(50, 6)
    with torch.inference_mode():
        codebook = torch.randn(300, 6)
        hit_after(x, codebook)
        codebook.mul_(5)  # numbers that no other test makes: equal ones may be kept
        assert not hit_after(x, codebook)


def test_strides_widths_and_instruction_sets_are_kept_apart(monkeypatch):
    numbers = torch.randn(600)
    for rows, width in ((100, 6), (50, 12), (100, 3)):
        codebook = torch.as_strided(numbers, (rows, width), (6, 1) if width == 3 else (width, 1))
        for isa in KERNELS.names:
            monkeypatch.setenv("TOKENIZERS_VQ_ISA", isa)
            hit_after(torch.randn(20, width), codebook)
            assert hit_after(torch.randn(20, width), codebook)


def test_what_is_kept_is_bounded():
    for size in range(1000, 1030):
        hit_after(torch.randn(3, 256), torch.randn(size, 256))
    if KERNELS.names:
        assert 0 < counts()[2] <= 32 * 2**20


def test_of_small_codebooks_only_so_many_are_kept():
    x, codebooks = torch.randn(2, 2), [torch.randn(3, 2) for _ in range(200)]
    for codebook in codebooks:
        assert not hit_after(x, codebook)
    assert hit_after(x, codebooks[-1]) or not KERNELS.names
    assert not hit_after(x, codebooks[0])


FORKS = """
import os, threading, torch
from tokenizers_vq.ops import nearest_code
torch.set_num_threads(1)
x, codebook = torch.randn(2, 256), torch.randn(1000, 256)
nearest_code(x, codebook)  # what torch sets up in a first call does not survive a fork amid it
def search():
    while True:
        nearest_code(x, codebook)
threading.Thread(target=search, daemon=True).start()
for _ in range(40):
    child = os.fork()
    if not child:
        nearest_code(x, codebook)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""


def test_a_process_forked_while_another_thread_searches_can_search():
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rows", [1, 100, 700])
def test_large_codebooks_are_packed_bit_by_bit_or_whole(rows):
    x, codebook = torch.randn(rows, 48), torch.randn(12_000, 48)
    assert codebook.nbytes > 2 * 2**20  # more than is kept
    codebook[:6000] *= 1e-3  # the bound grows while codes are read
    codebook[11_000:] *= 100
    for _ in range(2):
        assert not hit_after(x, codebook)
