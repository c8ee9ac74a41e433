"""A second decoder of ``.tok`` files in plain Python, written from the docstrings."""

import itertools
import json
import math
import struct
import zlib

EXP2 = [round(2 ** (24 - i / 16)) for i in range(16)]


def read_prior(blob):
    """Return (header, tensors) of a safetensors file; tensors as (shape, flat list)."""
    (length,) = struct.unpack("<Q", blob[:8])
    table = json.loads(blob[8 : 8 + length])
    header = json.loads(table.pop("__metadata__")["prior"])["header"]
    letter = {"U8": "B", "I8": "b", "I32": "i"}
    tensors = {}
    for name, entry in table.items():
        raw = blob[8 + length :][slice(*entry["data_offsets"])]
        code = letter[entry["dtype"]]
        flat = list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
        tensors[name] = (entry["shape"], flat)
    return header, tensors


def frequencies(lengths):
    raw = [EXP2[q % 16] >> (q // 16) for q in lengths]
    freq = [max(1, r * 65536 // sum(raw)) for r in raw]
    freq[freq.index(max(freq))] += 65536 - sum(freq)
    return freq


class Column:
    def __init__(self, size, order0, cuts, cells, classes):
        self.energy_cuts, self.mean_cuts = cuts
        self.tables = [frequencies(cell) for cell in cells]
        self.members = []
        self.rarity = list(order0)
        self.value = list(range(len(order0)))
        if classes is not None:
            for c in range(max(classes) + 1):
                self.members.append([s for s in range(size) if classes[s] == c])
            for c, members in enumerate(self.members):
                self.rarity[c] += 16 * (len(members).bit_length() - 1)
                self.value[c] = 0
        freq = frequencies(order0)
        for feature in (self.rarity, self.value):
            centre = sum(f * v for f, v in zip(freq, feature, strict=True)) // 65536
            feature[:] = [v - centre for v in feature]


def columns_of(header, tensors):
    flat = {name: iter(tensors[name][1]) for name in ("order0", "cuts", "cells")}

    def take(name, n):
        return list(itertools.islice(flat[name], n))

    radices = [r for digits in header["digits"] for r in digits]
    rows = tensors["shape"][1]
    columns = []
    for k, size in enumerate(radices):
        symbols, energy, mean = rows[3 * k : 3 * k + 3]
        order0 = take("order0", symbols)
        cuts = take("cuts", energy), take("cuts", mean)
        cells = [take("cells", symbols) for _ in range((energy + 1) * (mean + 1))]
        classes = None
        if f"classes.{k}" in tensors:
            classes = list(zlib.decompress(bytes(tensors[f"classes.{k}"][1])))
        columns.append(Column(size, order0, cuts, cells, classes))
    return columns


class Stream:
    def __init__(self, data):
        self.data, self.at = data, 6
        self.code = int.from_bytes((data + bytes(6))[:6], "big")
        self.range = 2**48

    def symbol(self, freq):
        total = sum(freq)
        if len(freq) == 1:
            return 0
        r = self.range // total
        slot = min(self.code // r, total - 1)
        symbol = 0
        while sum(freq[: symbol + 1]) <= slot:
            symbol += 1
        self.narrow(r, sum(freq[:symbol]), freq[symbol])
        return symbol

    def uniform(self, total):
        if total == 1:
            return 0
        r = self.range // total
        number = min(self.code // r, total - 1)
        self.narrow(r, number, 1)
        return number

    def narrow(self, r, start, freq):
        self.code -= r * start
        self.range = r * freq
        while self.range < 2**32:
            word = (self.data + bytes(self.at + 2))[self.at : self.at + 2]
            self.at += 2
            self.code = self.code * 65536 + int.from_bytes(word, "big")
            self.range *= 65536


def around(rank, count):
    if rank == 0:
        return []
    if rank == 1:
        return [(-1,), (-2,)]
    lead = (0,) * (rank - 2)
    backs = [tuple(-(axis == a) for axis in range(rank)) for a in range(rank - 2)]
    first = [(*lead, 0, -1), (*lead, -1, 0), *backs]
    rest = [(-1, -1), (-1, 1), (0, -2), (-2, 0)]
    return first if count > 64 else first + [(*lead, *step) for step in rest]


def weight_of(tensors, count):
    shape, flat = tensors["weights"]

    def weight(field, relation, source, target):
        if not flat:
            return 0
        return flat[((field * shape[1] + relation) * count + source) * count + target]

    return weight


def score_of(field, k, own, near, weight):
    """One score of column k: own[j] and near[r][j] are the (rarity, value) of column j."""
    score = sum(weight(field, 0, j, k) * own[j][field] for j in range(k))
    for r, there in enumerate(near):
        score += sum(weight(field, 1 + r, j, k) * there[j][field] for j in range(len(there)))
    return score


def decode_item(stream, grid, header, tensors, columns):
    weight = weight_of(tensors, len(columns))
    seen, out = {}, []
    for place in itertools.product(*[range(n) for n in grid]):
        own, symbols = [], []
        near = [
            seen.get(tuple(p + d for p, d in zip(place, step, strict=True)), [])
            for step in around(len(grid), len(columns))
        ]
        for k, column in enumerate(columns):
            energy, mean = (score_of(field, k, own, near, weight) for field in (0, 1))
            upper = sum(cut <= energy for cut in column.energy_cuts)
            lower = sum(cut <= mean for cut in column.mean_cuts)
            symbol = stream.symbol(column.tables[upper * (len(column.mean_cuts) + 1) + lower])
            own.append((column.rarity[symbol], column.value[symbol]))
            if column.members:
                members = column.members[symbol]
                symbol = members[stream.uniform(len(members))]
            symbols.append(symbol)
        seen[place] = own
        out += join(symbols, header["digits"])
    return out


def join(symbols, digits):
    indices = []
    for radices in digits:
        index, scale = 0, 1
        for radix in radices:
            index += scale * symbols.pop(0)
            scale *= radix
        indices.append(index)
    return indices


class Header:
    def __init__(self, data):
        self.data, self.at = data, 6
        self.flags, ranks = data[4], data[5]
        self.at += 4 * (self.flags >> 3 & 1)
        self.batch = self.varint() if self.flags & 2 else 1
        self.grid = [self.varint() for _ in range(ranks % 16)]
        self.shape = [self.varint() for _ in range(ranks // 16)]
        self.sizes, self.model = [], None
        if not self.flags & 8:
            for _ in range(self.varint()):
                size, count = self.varint(), self.varint()
                self.sizes += [size] * count
        if self.flags & 4:
            length = self.varint()
            self.model = data[self.at : self.at + length].decode()
            self.at += length

    def varint(self):
        value, shift = 0, 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value += (byte % 128) << shift
            shift += 7
            if byte < 128:
                return value


def decode(data, prior_blob=None):
    """Return a dict with batch, grid, shape, sizes, model and the flat list of indices."""
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("checksum")
    if data[:4] != b"tok\1":
        raise ValueError("version")
    header = Header(data)
    payload = data[header.at : -4]
    sizes, model = header.sizes, header.model or ""
    if header.flags & 8:
        prior, tensors = read_prior(prior_blob)
        sizes = prior["codebook_sizes"]
        model = prior["model"] if header.model is None else header.model
    if header.flags & 1:
        stream, columns = Stream(payload), columns_of(prior, tensors)
        items = [
            decode_item(stream, header.grid, prior, tensors, columns) for _ in range(header.batch)
        ]
        indices = [index for item in items for index in item]
    else:
        count = math.prod([header.batch, *header.grid, len(sizes)])
        indices = unpack(payload, count, sizes)
    return {
        "batch": header.batch,
        "grid": header.grid,
        "shape": header.shape,
        "sizes": list(sizes),
        "model": model,
        "indices": indices,
    }


def unpack(payload, count, sizes):
    indices, at = [], 0
    for start in range(0, count, 4096):
        radices = [sizes[i % len(sizes)] for i in range(start, min(start + 4096, count))]
        product = 1
        for radix in radices:
            product *= radix
        length = ((product - 1).bit_length() + 7) // 8
        value = int.from_bytes(payload[at : at + length], "little")
        at += length
        for radix in radices:
            indices.append(value % radix)
            value //= radix
    return indices
