"""The contract as measurements: each property of a tokenizer gives a verdict and a figure.

A tokenizer is tried on itself; nothing here needs trained weights, and none of it says whether the
pictures or sounds are good. The thresholds are in ``LIMITS`` and in every receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from tokenizers_vq.bitstream import from_bytes, to_bytes
from tokenizers_vq.types import Codes
from tokenizers_vq.verify.subject import Subject

LIMITS = {"indices": 0.01, "samples": 1e-4}  # share of tokens; part of the range of a sample
Verdict = Literal["exact", "close", "broken", "refused", "not claimed"]


@dataclass(frozen=True)
class Finding:
    """What one property was found to be.

    Attributes:
        verdict: ``exact`` (bit for bit), ``close`` (within ``LIMITS``), ``broken``, ``refused``
            (raised an error instead of an answer) or ``not claimed``.
        text: the measurement in words.
        indices: largest share of tokens that differed; None if none were compared.
        samples: largest difference of a sample, as part of the range; None likewise.
    """

    verdict: Verdict
    text: str
    indices: float | None = None
    samples: float | None = None


def compared(text: str, indices: float | None = None, samples: float | None = None) -> Finding:
    """Return the finding of the largest differences measured."""
    found = ((indices, LIMITS["indices"]), (samples, LIMITS["samples"]))
    verdict: Verdict = "exact"
    for value, limit in found:
        if value is not None and not value <= limit:  # NaN is no agreement
            verdict = "broken"
        elif value and verdict == "exact":
            verdict = "close"
    measured = []
    if indices is not None:
        measured.append(f"{indices:.2%} of the tokens differ" if indices else "same tokens")
    if samples is not None:
        measured.append(f"samples differ by up to {samples:.1e} of the range" if samples else
                        "same samples")  # fmt: skip
    return Finding(verdict, f"{text}: {', '.join(measured)}", indices, samples)


def share(a: Tensor, b: Tensor) -> float:
    """Return the share of tokens that differ; 1 where the shapes do."""
    return float((a != b).double().mean()) if a.shape == b.shape else 1.0


def gap(subject: Subject, a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two signals, as part of the range; inf for other shapes."""
    if a.shape != b.shape:
        return float("inf")
    return float((a.double() - b.double()).abs().max()) / subject.range


def index_round_trip(subject: Subject) -> Finding:
    """The integers carry everything: decode(encode) is forward, also through a file."""
    codes, plain = subject.codes, subject.codes.indices
    wrong = _range_error(codes)
    if wrong:
        return Finding("broken", wrong)
    x_hat = subject.decode(codes)
    copied = torch.tensor(plain.tolist()).transpose(0, 1).contiguous().transpose(0, 1)
    samples = gap(subject, subject.decode(replace(codes, indices=copied)), x_hat)
    text = "from copied integers"
    if codes.scale is None:
        bare = replace(codes, model="")
        indices = share(from_bytes(to_bytes(bare)).indices, plain)
        text += ", through a .tok file"
    else:
        indices = 0.0
    whole = subject.reconstruct(subject.x)
    if whole is None:
        text += " (no forward to compare with)"
    else:
        samples = max(samples, gap(subject, whole, x_hat))
        text += ", and beside forward"
    return compared(text, indices, samples)


def decode_is_deterministic(subject: Subject) -> Finding:
    """The same call gives the same answer, whatever the global seed."""
    results = []
    for seed in (1, 2):
        with _seeded(seed):
            results.append((subject.encode(subject.x), subject.decode(subject.codes)))
    (a, x), (b, y) = results
    return compared("two calls under two seeds", share(a.indices, b.indices), gap(subject, x, y))


def batches_do_not_mix(subject: Subject) -> Finding:
    """An item alone gets the tokens and samples that it gets in a batch."""
    x_hat = subject.decode(subject.codes)
    indices, samples = 0.0, 0.0
    for k in range(len(subject.x)):
        alone = subject.encode(subject.x[k : k + 1])
        indices = max(indices, share(alone.indices, subject.codes.indices[k : k + 1]))
        one = subject.decode(_item(subject.codes, k))
        samples = max(samples, gap(subject, one, x_hat[k : k + 1]))
    return compared("items alone against the batch", indices, samples)


def padding_changes_nothing(subject: Subject) -> Finding:
    """A sound padded with zeros in a batch with a longer one keeps its tokens."""
    if subject.signal.axes != 1 or subject.size is not None:
        return Finding("not claimed", "signals of this kind are not padded in a batch")
    step, total = subject.stride[0], subject.shape[0]
    lengths = [total, total - 3 * step, total - 8 * step - step // 2, total // 2]
    x = subject.x.clone()
    for k, length in enumerate(lengths):
        x[k, :, length:] = 0
    batch = subject.padded(x, lengths).indices
    indices = 0.0
    for k, length in enumerate(lengths):
        alone = subject.encode(x[k : k + 1, :, :length]).indices
        indices = max(indices, share(batch[k : k + 1, : alone.shape[1]], alone))
    return compared("short items in a padded batch against alone", indices)


def dtypes_agree(subject: Subject) -> Finding:
    """The same values in another dtype give the same tokens."""
    x = subject.x.bfloat16()
    expected = subject.encode(x.float()).indices
    inputs = {"float64": x.double(), "bfloat16": x, "float32": x.float()}
    if subject.signal.kind in ("image", "video"):
        low, high = subject.signal.value_range
        pixels = ((subject.x - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)
        inputs["uint8"] = pixels
    refused, taken, worst = [], [], 0.0
    for name, value in inputs.items():
        want = expected
        if name == "uint8":
            want = subject.encode(value.float() * ((high - low) / 255) + low).indices
        try:
            got = subject.encode(value).indices
        except Exception:  # a foreign model may refuse in any way; the receipt names the dtype
            refused.append(name)
            continue
        taken.append(name)
        worst = max(worst, share(got, want))
    text = ", ".join(taken) + (f" ({', '.join(refused)} refused)" if refused else "")
    return compared(text, worst)


def threads_agree(subject: Subject) -> Finding:
    """One thread gives what two give."""
    before, x, codes = torch.get_num_threads(), subject.x[:1], _item(subject.codes, 0)
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append((subject.encode(x).indices, subject.decode(codes)))
    finally:
        torch.set_num_threads(before)
    (first, x_hat), (second, other) = results
    return compared("1 thread against 2", share(first, second), gap(subject, x_hat, other))


def order_does_not_matter(subject: Subject) -> Finding:
    """Items in another order, or after other calls, get the same tokens and samples."""
    order = torch.tensor([2, 0, 3, 1])
    codes, x_hat = subject.codes, subject.decode(subject.codes)
    turned = subject.encode(subject.x[order])
    indices = share(turned.indices, codes.indices[order])
    scale = None if codes.scale is None else codes.scale[order]
    moved = replace(codes, indices=codes.indices[order], scale=scale)
    samples = gap(subject, subject.decode(moved), x_hat[order])
    indices = max(indices, share(subject.encode(subject.x).indices, codes.indices))
    samples = max(samples, gap(subject, subject.decode(codes), x_hat))
    return compared("another order, and again after it", indices, samples)


def sizes_are_exact(subject: Subject) -> Finding:
    """What is decoded has exactly the size of what was encoded, whatever that is."""
    failed, tried = [], 0
    for shape in _sizes(subject):
        tried += 1
        try:
            got = tuple(subject.decode(subject.encode(subject.probe(shape, 1))).shape[2:])
        except Exception as error:
            failed.append(f"{_by(shape)}: {type(error).__name__}")
            continue
        if got != shape:
            failed.append(f"{_by(shape)} came back as {_by(got)}")
    if failed:
        shown = "; ".join(failed[:3])
        return Finding("broken", f"{len(failed)} of {tried} sizes: {shown}")
    return Finding("exact", f"all of {tried} sizes, down to {_by(min(_sizes(subject)))}")


def the_future_is_unseen(subject: Subject) -> Finding:
    """Where it is claimed: no token depends on later samples, no sample on later tokens."""
    if subject.signal.kind not in ("audio", "video") or subject.size is not None:
        return Finding("not claimed", "signals of this kind have no future")
    step, middle = subject.stride[0], subject.shape[0] // subject.stride[0] // 2
    x = subject.x.clone()
    x[:, :, middle * step :] = subject.x.flip(2)[:, :, : subject.shape[0] - middle * step]
    changed = subject.encode(x).indices
    before = subject.codes.indices[:, :middle]
    moved = (changed[:, :middle] != before).flatten(2).any(2).any(0).nonzero()
    reach = 0 if not len(moved) else middle - int(moved[0])
    indices = subject.codes.indices.clone()
    indices[:, middle:] = indices.flip(1)[:, : indices.shape[1] - middle]
    x_hat = subject.decode(subject.codes)
    other = subject.decode(replace(subject.codes, indices=indices))
    past = slice(0, middle * step)
    samples = gap(subject, other[:, :, past], x_hat[:, :, past])
    if subject.causal:
        return compared(f"changed from position {middle} on", share(changed[:, :middle], before),
                        samples)  # fmt: skip
    return Finding("not claimed", f"a later change reaches {reach} positions back in encoding, "
                   f"and changes earlier samples by up to {samples:.1e} of the range",
                   share(changed[:, :middle], before), samples)  # fmt: skip


def bad_indices_are_refused(subject: Subject) -> Finding:
    """An index outside its codebook is an error, not a picture or a sound."""
    accepted = []
    for name, value in (("the size of the codebook", None), ("-2", -2)):
        indices = subject.codes.indices.clone()
        size = subject.codes.codebook_sizes[0]
        indices[0].view(-1)[0] = size if value is None else value
        with suppress(Exception):  # which error is the library's own business
            subject.decode(replace(subject.codes, indices=indices))
            accepted.append(name)
    if accepted:
        return Finding("broken", f"decoded without a word: index {' and '.join(accepted)}")
    return Finding("exact", "one past the end and -2 raise an error")


def evaluation_changes_nothing(subject: Subject) -> Finding:
    """Encode, decode and forward in eval mode leave every parameter and buffer as it is."""
    before, training = subject.state(), subject.module.training
    subject.decode(subject.encode(subject.x))
    subject.reconstruct(subject.x)
    after = subject.state()
    changed = [name for name in before if not _same(before[name], after.get(name))]
    changed += [name for name in after if name not in before]
    if training or subject.module.training:
        return Finding("broken", "the module is in training mode")
    if changed:
        return Finding("broken", f"{len(changed)} tensors changed: {', '.join(changed[:3])}")
    return Finding("exact", f"{len(before)} tensors unchanged")


PROPERTIES: dict[str, Callable[[Subject], Finding]] = {
    check.__name__: check
    for check in (
        index_round_trip, decode_is_deterministic, batches_do_not_mix, padding_changes_nothing,
        dtypes_agree, threads_agree, order_does_not_matter, sizes_are_exact, the_future_is_unseen,
        bad_indices_are_refused, evaluation_changes_nothing,
    )
}  # fmt: skip


def autocast_survivors(subject: Subject) -> float:
    """Return the share of tokens that stay the same under bfloat16 autocast: a fact, no verdict."""
    device = subject.x.device.type
    with torch.autocast(device, dtype=torch.bfloat16):
        indices = subject.encode(subject.x).indices
    return 1 - share(indices, subject.codes.indices)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _item(codes: Codes, k: int) -> Codes:
    scale = None if codes.scale is None else codes.scale[k : k + 1]
    return replace(codes, indices=codes.indices[k : k + 1], scale=scale)


def _range_error(codes: Codes) -> str:
    indices, sizes = codes.indices, codes.codebook_sizes
    if indices.dtype != torch.int64:
        return f"the indices are {indices.dtype}, not int64"
    if indices.ndim < 2 or indices.shape[-1] != len(sizes):
        return f"indices of shape {tuple(indices.shape)} for {len(sizes)} codebooks"
    for k, size in enumerate(sizes):
        low, high = int(indices[..., k].min()), int(indices[..., k].max())
        if low < -1 or high >= size:
            return f"indices {low}..{high} in codebook {k} of {size} codes"
    return ""


def _sizes(subject: Subject) -> list[tuple[int, ...]]:
    """Return the sizes to try: whole positions, one sample more, one less, and very short."""
    if subject.size is not None:
        return [subject.size, tuple(n - 1 for n in subject.size)]
    columns = [(1, s // 2 + 1, 4 * s - 1, 4 * s, 4 * s + 1) for s in subject.stride]
    mixed = product(*((column[2], column[4]) for column in columns))
    return sorted({*zip(*columns, strict=True), *mixed})


def _same(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and torch.equal(_bits(a), _bits(b))


def _bits(x: Tensor) -> Tensor:
    """Return the bytes, so that NaN equals itself."""
    return x.contiguous().view(-1).view(torch.uint8) if x.numel() else x


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
