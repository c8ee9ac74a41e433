"""Coding a shape without learning, in at most so many real bytes: what a shape tokenizer must beat.

An ellipsoid; points with quantised coordinates; a simplified mesh in Draco's format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenizers_vq.errors import MissingExtraError
from tokenizers_vq.functional.triangles import Floats, Mesh

DRACO_BITS = (5, 6, 7, 8)
POINT_BITS = 6


def ellipsoid(points: Floats) -> tuple[Floats, Floats, int]:
    """Return centre ``(3,)``, axes ``(3, 3)`` and bytes of the ellipsoid of surface ``points``.

    It has their mean and covariance: evenly sampled, a sphere of radius r has the variance r^2 / 3
    along each axis. Nine numbers of 16 bits, rounded to these.
    """
    centre = points.mean(0).astype(np.float16).astype(np.float64)
    covariance = np.cov(points.T).astype(np.float16).astype(np.float64)
    values, vectors = np.linalg.eigh(covariance)
    return centre, vectors * np.sqrt(3 * np.maximum(values, 1e-6)), 18


def ellipsoid_distances(centre: Floats, axes: Floats, places: Floats) -> Floats:
    """Return ``|A^-1 (p - c)| - 1`` at ``places (N, 3)``: 0 on the ellipsoid, below 0 inside."""
    return np.asarray(np.linalg.norm((places - centre) @ np.linalg.inv(axes).T, axis=1) - 1)


def encode_points(points: Floats, n_bytes: int, bits: int = POINT_BITS) -> bytes:
    """Return the first of ``points (N, 3)`` in [-1, 1], as many as fit in ``n_bytes``.

    Coordinates are rounded to ``2**bits`` cells; the numbers of the cells in Morton order, without
    copies, are written as differences in Rice code. Byte 0 is the parameter of the code, bytes 1
    and 2 the number of points.
    """
    low, high, best = 1, len(points), b""
    while low <= high:  # the size grows with the number but for a few bits
        count = (low + high) // 2
        data = _rice(_morton(points[:count], bits), bits)
        if len(data) <= n_bytes:
            best, low = data, count + 1
        else:
            high = count - 1
    return best


def decode_points(data: bytes, bits: int = POINT_BITS) -> Floats:
    """Return the centres of the cells, ``(n, 3)``, of what ``encode_points`` wrote."""
    if not data:
        return np.zeros((0, 3))
    shift, count = data[0], int.from_bytes(data[1:3], "little")
    stream = np.unpackbits(np.frombuffer(data[3:], dtype=np.uint8))
    codes, at, last = [], 0, -1
    for _ in range(count):
        quotient = 0
        while stream[at + quotient]:
            quotient += 1
        at += quotient + 1
        rest = int("".join(map(str, stream[at : at + shift])) or "0", 2)
        at, last = at + shift, last + 1 + (quotient << shift) + rest
        codes.append(last)
    cells = np.zeros((count, 3))
    for bit in range(bits):
        for axis in range(3):
            digit = (np.asarray(codes) >> (3 * bit + 2 - axis)) & 1
            cells[:, axis] += digit << bit
    return np.asarray((cells + 0.5) * (2 / 2**bits) - 1)


def draco(mesh: Mesh, n_bytes: int) -> Iterator[tuple[Mesh, int]]:
    """Yield simplified meshes whose Draco files have at most ``n_bytes``, and the files' sizes.

    One for each number of bits per coordinate, with about as many triangles as fit. Simplification
    is by quadric errors; nothing is yielded where not even a few triangles fit.

    Raises:
        MissingExtraError: DracoPy or fast-simplification is not installed.
    """
    coder, simplify = _packages()
    # once to what is still far too many, so that each trial is short
    start = simplify(mesh.vertices.astype(np.float32), mesh.faces, 4 * n_bytes)
    for bits in DRACO_BITS:
        best, low, high = None, 4, min(len(start[1]), n_bytes)
        while low <= high:
            target = (low + high) // 2
            points, faces = simplify(*start, target)
            data = _written(coder, points, faces, bits)
            if data is not None and len(data) <= n_bytes:
                best, low = data, target + 1
            else:
                high = target - 1
        if best is not None:
            back = coder.decode(best)
            faces = np.asarray(back.faces, dtype=np.int64).reshape(-1, 3)
            yield Mesh(np.asarray(back.points, dtype=np.float64), faces), len(best)


def _written(coder: Any, points: Any, faces: Any, bits: int) -> bytes | None:
    if len(faces) < 1:
        return None
    data: bytes = coder.encode(
        points, faces, quantization_bits=bits, compression_level=10,
        quantization_range=2.0, quantization_origin=(-1.0, -1.0, -1.0),
    )  # fmt: skip
    return data


def _packages() -> tuple[Any, Any]:
    try:
        import DracoPy
        from fast_simplification import simplify
    except ImportError as error:
        raise MissingExtraError(
            "shape_codecs: expected the packages DracoPy and fast-simplification; got "
            f'{error.name or error}. Run pip install "tokenizers_vq[mesh]", or leave draco out.'
        ) from error

    def reduced(points: Any, faces: Any, target: int) -> Any:
        if target >= len(faces):
            return points, faces
        return simplify(points, faces.astype(np.int32), target_count=target)

    return DracoPy, reduced


def _morton(points: Floats, bits: int) -> NDArray[np.int64]:
    """Return the ascending numbers of the cells that hold ``points``, without copies."""
    cells = np.clip(((points + 1) / 2 * 2**bits).astype(np.int64), 0, 2**bits - 1)
    code = np.zeros(len(points), dtype=np.int64)
    for bit in range(bits):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + 2 - axis)
    return np.unique(code)


def _rice(codes: NDArray[np.int64], bits: int) -> bytes:
    """Return ascending codes as differences in the Rice code that takes the fewest bits."""
    gaps = np.diff(codes, prepend=-1) - 1
    sizes = [int((gaps >> shift).sum()) + len(gaps) * (1 + shift) for shift in range(3 * bits)]
    shift = int(np.argmin(sizes))
    text = "".join(
        "1" * int(gap >> shift) + "0" + (f"{int(gap) & ((1 << shift) - 1):0{shift}b}" * (shift > 0))
        for gap in gaps
    )
    payload = np.packbits(np.frombuffer(text.encode(), dtype=np.uint8) - ord("0")).tobytes()
    return bytes([shift]) + len(codes).to_bytes(2, "little") + payload
