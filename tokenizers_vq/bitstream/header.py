"""The header of a ``.tok`` file, and its checksum.

Format, version 1. Integers written as *varint* are little-endian groups of 7 bits, the high bit set
on all bytes but the last::

    3 bytes   "tok"
    1 byte    version, 1
    1 byte    flags: 1 entropy coded (else fixed length), 2 batch, 4 model name, 8 prior, 16 gaps,
              32 lengths, 64 scales
    1 byte    rank of the grid + 16 * rank of the signal's shape
    4 bytes   the first bytes of the prior's sha256            if flag 8
    varint    number of items B                                if flag 2, else B is 1
    varints   the grid, then the signal's shape
    varints   number of runs, then (codebook size, count) each unless flag 8: the prior knows
    varint n, then n bytes of UTF-8: the model's name          if flag 4, else as the prior's
    varint n, then n run lengths of positions (B, *grid) with and without a token in turn, the
              first with one                                   if flag 16, else all have one
    varints   the samples of each of the B items               if flag 32, else the signal's shape
    varint n, then B * n float32, little-endian, the scale of each of n segments of each item
                                                               if flag 64, else all are 1
    payload   flag 1: the stream of ``range_coder`` under the prior, with 0 at missing tokens; else
              the blocks of ``bitpack``, without them;
              symbols in the order of the indices (B, *grid, K), last axis fastest
    4 bytes   CRC-32 of everything before, little-endian

A few bytes must not ask for all memory: the product of B, the grid and the number of codebooks K,
empty axes counted as 1, is at most 2**24 and at most 2**18 + 64 * (bytes of the payload), and no
axis of the signal is longer than 2**40. K is at least 1.

A 16 x 16 image of 256 x 256 pixels under a prior carries 20 bytes besides its payload.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from itertools import groupby

from tokenizers_vq.errors import BitstreamError

MAGIC, VERSION = b"tok", 1
ENTROPY, BATCH, MODEL, PRIOR, GAPS, LENGTHS, SCALES = 1, 2, 4, 8, 16, 32, 64
MAX_INDICES = 1 << 24  # of one file
FREE_INDICES = 1 << 18  # more must be paid for by bytes of the payload
MAX_SAMPLES = 1 << 40  # per axis of the signal
MAX_CODEBOOKS = 1 << 16
CHECKSUM = 4
_SHORTEST = len(MAGIC) + 3 + CHECKSUM


@dataclass(frozen=True)
class Header:
    """What stands before the payload; ``codebook_sizes`` is empty when a prior implies them.

    ``gaps`` are the lengths of runs with and without tokens; ``lengths`` the samples of each item;
    ``scales`` the bytes of the float32 of all items; ``end`` is where the payload starts.
    """

    flags: int
    prior: bytes
    batch: int
    grid: tuple[int, ...]
    shape: tuple[int, ...]
    codebook_sizes: tuple[int, ...]
    model: str
    gaps: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    scales: bytes = b""
    end: int = 0


def write_header(header: Header) -> bytes:
    """Return the bytes of ``header``."""
    parts = [MAGIC, bytes([VERSION, header.flags, len(header.grid) + 16 * len(header.shape)])]
    parts.append(header.prior)
    numbers = [header.batch] if header.flags & BATCH else []
    numbers += [*header.grid, *header.shape]
    if not header.flags & PRIOR:
        runs = [(size, len(list(group))) for size, group in groupby(header.codebook_sizes)]
        numbers += [len(runs), *(number for run in runs for number in run)]
    model = header.model.encode() if header.flags & MODEL else b""
    if header.flags & MODEL:
        numbers.append(len(model))
    gaps = [len(header.gaps), *header.gaps] if header.flags & GAPS else []
    later = [*gaps, *header.lengths]
    if header.flags & SCALES:
        later.append(len(header.scales) // (4 * max(header.batch, 1)))
    return b"".join([*parts, *map(_varint, numbers), model, *map(_varint, later), header.scales])


def read_header(data: bytes) -> Header:
    """Check everything that can be checked without a prior, then parse.

    Args:
        data: the whole file.

    Raises:
        BitstreamError: it is cut short, damaged, of another version, or no ``.tok`` file.
    """
    _check_integrity(data)
    flags, ranks = data[4], data[5]
    if flags > 127 or flags & (ENTROPY | PRIOR) == ENTROPY:
        raise malformed(f"flags {flags}")
    reader = _Reader(data[:-CHECKSUM], len(MAGIC) + 3)
    prior = reader.take(4) if flags & PRIOR else b""
    batch = reader.varint() if flags & BATCH else 1
    grid = tuple(reader.varint() for _ in range(ranks % 16))
    shape = tuple(reader.varint() for _ in range(ranks // 16))
    if max(shape, default=0) > MAX_SAMPLES:
        raise malformed(f"an axis of {max(shape)} samples")
    sizes = () if flags & PRIOR else reader.runs()
    name = reader.take(reader.varint()) if flags & MODEL else b""
    try:
        model = name.decode()
    except UnicodeDecodeError as error:
        raise malformed("a model name that is not UTF-8") from error
    gaps = tuple(reader.varint() for _ in range(reader.varint())) if flags & GAPS else ()
    if flags & GAPS and sum(gaps) != math.prod((batch, *grid)):
        raise malformed(f"gaps in {sum(gaps)} positions of {math.prod((batch, *grid))}")
    lengths = tuple(reader.varint() for _ in range(batch)) if flags & LENGTHS else ()
    if flags & LENGTHS and not (len(shape) == 1 and all(0 < n <= shape[0] for n in lengths)):
        raise malformed(f"lengths outside a signal of {shape}")
    scales = reader.take(4 * batch * reader.varint()) if flags & SCALES else b""
    if flags & SCALES and not scales:
        raise malformed("scales of no segments")
    return Header(flags, prior, batch, grid, shape, sizes, model, gaps, lengths, scales, reader.at)


def _check_integrity(data: bytes) -> None:
    if len(data) < _SHORTEST:
        raise BitstreamError(
            f"from_bytes: expected at least {_SHORTEST} bytes; got {len(data)}. "
            "The file is cut short; copy it again."
        )
    if data[:3] != MAGIC:
        raise BitstreamError(
            f"from_bytes: expected a file that starts with {MAGIC.hex()} ('tok'); "
            f"got {data[:3].hex()}. This is not a .tok file."
        )
    if data[3] != VERSION:
        raise BitstreamError(
            f"from_bytes: expected .tok version {VERSION}; got version {data[3]}. "
            "Update tokenizers_vq, or encode the signal again."
        )
    stored, found = data[-CHECKSUM:], zlib.crc32(data[:-CHECKSUM]).to_bytes(CHECKSUM, "little")
    if stored != found:
        raise BitstreamError(
            f"from_bytes: expected checksum {stored.hex()}; got {found.hex()}. "
            "The file is damaged or incomplete; copy it again."
        )


def most_indices(payload: int) -> int:
    """Return how many indices a file may claim whose payload has ``payload`` bytes.

    Codebooks of one code, and streams that end in zeros, take no bytes at all; so some indices are
    free, but never so many that decoding them takes long.
    """
    return min(MAX_INDICES, FREE_INDICES + 64 * payload)


def malformed(what: str) -> BitstreamError:
    """Return the error for a header whose checksum is right and whose content is not."""
    return BitstreamError(
        f"from_bytes: expected a header of version {VERSION}; got {what}. "
        "The file was not written by this library; encode the signal again."
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


class _Reader:
    """Reads the parts of a header and refuses to read past its end."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def take(self, count: int) -> bytes:
        if self.at + count > len(self._data):
            raise malformed("one that ends early")
        self.at += count
        return self._data[self.at - count : self.at]

    def varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128 and number < 1 << 63:
                return number
        raise malformed("a number above 2**63")

    def runs(self) -> tuple[int, ...]:
        sizes: list[int] = []
        for _ in range(self.varint()):
            size, count = self.varint(), self.varint()
            if not size or len(sizes) + count > MAX_CODEBOOKS:
                raise malformed(f"{count} codebooks of size {size}")
            sizes += [size] * count
        if not sizes:
            raise malformed("no codebooks")
        return tuple(sizes)
