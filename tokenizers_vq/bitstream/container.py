"""The ``.tok`` file: a header of a few bytes (``header``), the coded indices, and a checksum."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import torch

from tokenizers_vq.bitstream import bitpack
from tokenizers_vq.bitstream.gaps import Bools, filled, present_of, runs_of
from tokenizers_vq.bitstream.header import (
    BATCH,
    CHECKSUM,
    ENTROPY,
    GAPS,
    LENGTHS,
    MAX_CODEBOOKS,
    MAX_INDICES,
    MAX_SAMPLES,
    MODEL,
    PRIOR,
    SCALES,
    VERSION,
    Header,
    malformed,
    most_indices,
    read_header,
    write_header,
)
from tokenizers_vq.bitstream.priors import CountPrior
from tokenizers_vq.errors import BitstreamError, check_indices, check_shape
from tokenizers_vq.files import write_atomically
from tokenizers_vq.types import Codes


def to_bytes(codes: Codes, prior: object = None) -> bytes:
    """Return the ``.tok`` file of ``codes``.

    Args:
        codes: indices ``(B, *grid, K)`` of one item or a batch, with their scales and lengths where
            they have any; -1 where there is no token.
        prior: a ``CountPrior`` for entropy coding, of these codebooks or of these and more behind
            them; without one the length is fixed, log2 of each codebook size per index. A file
            never gets longer by a prior than fixed length would be.

    Raises:
        BitstreamError: a position with a token in some codebooks only, more than a file may hold
            (``header``), or a prior of other codebooks or another grid rank.
        ShapeError: indices of another dtype, rank or range than the codebook sizes say.
    """
    known = _check_prior(prior, "to_bytes")
    count = len(codes.codebook_sizes)
    if known and count > 0 and codes.codebook_sizes == known.codebook_sizes[:count]:
        known = known.leading(count)
    _check_codes(codes, known)
    present = present_of(codes.indices.cpu().numpy())
    payload, flags = _coded(codes, known, present)
    gaps = runs_of(present)
    if gaps:
        flags |= GAPS
    if len(codes.indices) != 1:
        flags |= BATCH
    if codes.model != (known.model if known else ""):
        flags |= MODEL
    scales = b"" if codes.scale is None else codes.scale.cpu().numpy().astype("<f4").tobytes()
    flags |= (LENGTHS if codes.lengths is not None else 0) | (SCALES if scales else 0)
    header = write_header(
        Header(
            flags,
            bytes.fromhex(known.sha256)[:4] if known else b"",
            len(codes.indices),
            tuple(codes.indices.shape[1:-1]),
            codes.shape,
            () if known else codes.codebook_sizes,
            codes.model,
            gaps,
            codes.lengths or (),
            scales,
        )
    )
    return header + payload + zlib.crc32(header + payload).to_bytes(CHECKSUM, "little")


def from_bytes(data: bytes, prior: object = None) -> Codes:
    """Return the codes of a ``.tok`` file, exactly as they were given to ``to_bytes``.

    Args:
        data: the whole file.
        prior: the ``CountPrior`` it was written with; not needed for a file written without.

    Raises:
        BitstreamError: the file is cut short, damaged, of another version, or needs another prior.
    """
    known = _check_prior(prior, "from_bytes")
    header = read_header(data)
    sizes = header.codebook_sizes
    if header.flags & PRIOR:
        got = known.sha256[:8] if known else "none"
        known = _named(known, header.prior.hex())
        if known is None:
            raise BitstreamError(
                f"from_bytes: expected prior {header.prior.hex()}; got {got}. "
                "Pass the prior the file was written with."
            )
        sizes = known.codebook_sizes
    shape = (header.batch, *header.grid, len(sizes))
    payload = data[header.end : -CHECKSUM]
    if _claimed(shape) > most_indices(len(payload)):
        raise malformed(f"{_claimed(shape)} indices in {len(payload)} bytes")
    present = filled(header.gaps or (math.prod(shape[:-1]),))
    if header.flags & ENTROPY and known is not None:
        _check_rank(known, len(header.grid), "from_bytes")
        indices = known.decode(payload, shape)
        indices.reshape(-1, len(sizes))[~present] = -1
    else:
        count = int(present.sum()) * len(sizes)
        indices = np.full((len(present), len(sizes)), -1, np.int64)
        indices[present] = bitpack.unpack(payload, count, sizes).reshape(-1, len(sizes))
        indices = indices.reshape(shape)
    model = header.model if header.flags & MODEL or not known else known.model
    scale = None
    if header.flags & SCALES:
        numbers = np.frombuffer(header.scales, "<f4").astype(np.float32)
        scale = torch.from_numpy(numbers.reshape(header.batch, -1))
    lengths = header.lengths if header.flags & LENGTHS else None
    indices = np.ascontiguousarray(indices)
    return Codes(torch.from_numpy(indices), header.shape, sizes, model, scale, lengths)


def write_tok(path: str | Path, codes: Codes, prior: object = None) -> int:
    """Write a ``.tok`` file atomically: a reader sees the old or the new one; return its size."""
    data = to_bytes(codes, prior)
    write_atomically(Path(path), data)
    return len(data)


def read_tok(path: str | Path, prior: object = None) -> Codes:
    """Read a ``.tok`` file.

    Raises:
        BitstreamError: as ``from_bytes``, or there is no such file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BitstreamError(
            f"read_tok: expected a .tok file at {path}; got {error.strerror}. Check the path."
        ) from error
    return from_bytes(data, prior)


def info(data: bytes) -> dict[str, object]:
    """Return what a ``.tok`` file says about itself, without decoding it and without its prior.

    Returns:
        ``version``, ``coding`` ("entropy" or "fixed"), ``prior`` (8 hex digits or None), ``batch``,
        ``grid``, ``shape``, ``codebook_sizes`` and ``model`` (None where the prior implies them),
        ``payload_bytes``, ``overhead_bytes``, ``total_bytes``.

    Raises:
        BitstreamError: the file is cut short, damaged, or of another version.
    """
    header = read_header(data)
    payload = len(data) - CHECKSUM - header.end
    with_prior = bool(header.flags & PRIOR)
    return {
        "version": VERSION,
        "coding": "entropy" if header.flags & ENTROPY else "fixed",
        "prior": header.prior.hex() if with_prior else None,
        "batch": header.batch,
        "grid": header.grid,
        "shape": header.shape,
        "codebook_sizes": None if with_prior else header.codebook_sizes,
        "model": None if with_prior and not header.flags & MODEL else header.model,
        "payload_bytes": payload,
        "overhead_bytes": len(data) - payload,
        "total_bytes": len(data),
    }


def _named(prior: CountPrior | None, wanted: str) -> CountPrior | None:
    """Return the prior, or that of its first codebooks, whose hash begins with ``wanted``."""
    if prior is None:
        return None
    parts = (prior.leading(count) for count in range(len(prior.codebook_sizes), 0, -1))
    return next((part for part in parts if part.sha256[:8] == wanted), None)


def _coded(codes: Codes, prior: CountPrior | None, present: Bools) -> tuple[bytes, int]:
    """Return the payload and the flags ENTROPY and PRIOR."""
    indices, sizes = codes.indices.cpu().numpy(), codes.codebook_sizes
    kept = indices.reshape(-1, len(sizes))[present]
    fixed, count = bitpack.packed_size(kept.size, sizes), _claimed(indices.shape)
    if count > most_indices(fixed):
        raise BitstreamError(
            f"to_bytes: expected at most {most_indices(fixed)} indices in {fixed} bytes; "
            f"got {count}. Write several files."
        )
    flags = PRIOR if prior else 0
    if prior is not None:
        payload = prior.encode(indices.clip(min=0))
        if len(payload) <= fixed and count <= most_indices(len(payload)):
            return payload, flags | ENTROPY
    return bitpack.pack(kept.reshape(-1), sizes), flags


def _claimed(shape: tuple[int, ...]) -> int:
    """Return the number of indices, empty axes counted as 1: arrays have no axis without end."""
    return math.prod(max(n, 1) for n in shape)


def _check_prior(prior: object, where: str) -> CountPrior | None:
    if prior is None or isinstance(prior, CountPrior):
        return prior
    raise BitstreamError(
        f"{where}: expected a CountPrior; got {type(prior).__name__}. Load it with CountPrior.load."
    )


def _check_codes(codes: Codes, prior: CountPrior | None) -> None:
    """Raise unless ``codes`` are whole, in range, and of the prior's codebooks and rank."""
    if not codes.codebook_sizes:
        raise BitstreamError("to_bytes: expected at least 1 codebook; got 0. Give codebook_sizes.")
    check_shape(codes.indices, f"B *grid {len(codes.codebook_sizes)}", "to_bytes")
    check_indices(codes.indices, codes.codebook_sizes, "to_bytes")
    ranks = (codes.indices.ndim - 2, len(codes.shape))
    counts = (max(ranks), len(codes.codebook_sizes), _claimed(codes.indices.shape))
    if any(n > most for n, most in zip(counts, (15, MAX_CODEBOOKS, MAX_INDICES), strict=True)):
        raise BitstreamError(
            f"to_bytes: expected at most 15 axes, {MAX_CODEBOOKS} codebooks and {MAX_INDICES} "
            f"indices; got {counts[0]}, {counts[1]} and {counts[2]}. Write several files."
        )
    if max(codes.shape, default=0) > MAX_SAMPLES:
        raise BitstreamError(
            f"to_bytes: expected at most {MAX_SAMPLES} samples per axis; got {max(codes.shape)}. "
            "Write several files."
        )
    if prior is None:
        return
    if prior.codebook_sizes != codes.codebook_sizes:
        raise BitstreamError(
            f"to_bytes: expected codebooks {prior.codebook_sizes} as in the prior; "
            f"got {codes.codebook_sizes}. Fit a prior for this tokenizer."
        )
    _check_rank(prior, ranks[0], "to_bytes")


def _check_rank(prior: CountPrior, rank: int, where: str) -> None:
    if prior.rank != rank:
        raise BitstreamError(
            f"{where}: expected a grid of rank {prior.rank} as in the prior; got rank {rank}. "
            "Fit a prior for this tokenizer."
        )
