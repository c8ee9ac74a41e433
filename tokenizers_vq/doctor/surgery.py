"""Repairs of a trained codebook that keep stored tokens valid: prune, revive, shrink.

Each makes a new tokenizer with an index map (``functional.index_map``) from the one it came from
and from all before that, so ``decode`` takes the tokens of every ancestor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.doctor.survey import Part, Survey, codes_of, has_table, parts
from tokenizers_vq.doctor.transplant import Change, transplant
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.cluster import cluster_codebook
from tokenizers_vq.functional.codebook import restart_dead
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.tokenizer import Tokenizer

TOKENS_PER_CODE = 10


def prune(seen: Survey, *, force: bool = False) -> Tokenizer:
    """Return a tokenizer without the codes that the data did not use.

    Live codes are kept bit for bit. A dead code is mapped to the nearest live one.

    Args:
        seen: what the tokenizer made of the data that say which codes are dead.
        force: prune even if too few tokens were seen to call a code dead.

    Raises:
        ConfigError: the head has no table of codes, no code is dead, the tokenizer was never
            saved, or too few tokens were seen.
    """
    changes = []
    for part in repairable(seen.tokenizer, "prune"):
        counts = _enough(seen, part, "prune", force)
        live = (counts > 0).nonzero()[:, 0]
        codes = codes_of(part.head).cpu()
        table = _to_nearest(codes, live)
        place = torch.full((len(codes),), -1)
        place[live] = torch.arange(len(live))
        changes.append(Change(part, place[table], live, live[:0], codes[:0]))
    _expect(any(len(one.keep) < len(one.table) for one in changes), "prune")
    return transplant(seen, changes, "pruned")


def revive(seen: Survey, *, force: bool = False, seed: int = 0) -> Tokenizer:
    """Return a tokenizer whose dead codes have moved to latents of the data.

    Live codes and their indices stay as they are, bit for bit; an old token with a dead code is
    mapped to the nearest live one.

    Args:
        seen: what the tokenizer made of the data that say which codes are dead.
        force: revive even if too few tokens were seen to call a code dead.
        seed: of the choice of latents.

    Raises:
        ConfigError: as ``prune``.
    """
    changes, generator = [], torch.Generator().manual_seed(seed)
    for part in repairable(seen.tokenizer, "revive"):
        counts = _enough(seen, part, "revive", force)
        dead = (counts == 0).nonzero()[:, 0]
        codes = codes_of(part.head).cpu()
        pool = torch.cat(seen.latents[part.path]).cpu()
        threshold = 0.5 / float(counts.sum())  # of the mean count: below half a token
        fresh, n = restart_dead(codes, counts.float(), pool, threshold, generator)
        dead = dead[n[dead] > 0]  # with fewer latents than dead codes, some stay as they are
        if _is_cosine(part):
            fresh = F.normalize(fresh, dim=-1)
        table = _to_nearest(codes, (counts > 0).nonzero()[:, 0])
        changes.append(Change(part, table, torch.arange(len(codes)), dead, fresh[dead]))
    _expect(any(len(one.rows) for one in changes), "revive")
    return transplant(seen, changes, "revived")


def shrink(seen: Survey, size: int) -> Tokenizer:
    """Return a tokenizer whose codebooks are clustered to at most ``size`` codes.

    Codes weigh as much as the data use them. Codebooks that are no larger stay as they are. Tokens
    of the large tokenizer become tokens of the small one by ``Tokenizer.adopt``: one encoder
    serves several bit rates.

    Raises:
        ConfigError: the head has no table of codes, none has more than ``size``, or the tokenizer
            was never saved.
    """
    changes = []
    for part in repairable(seen.tokenizer, "shrink"):
        codes, counts = codes_of(part.head).cpu(), seen.counts(part)
        if len(codes) <= size:
            same = torch.arange(len(codes))
            changes.append(Change(part, same, same, same[:0], codes[:0]))
            continue
        (level,) = cluster_codebook(codes, [size], counts, cosine=_is_cosine(part))
        keep = nearest_code(level.centroids, codes)[1]
        changes.append(Change(part, level.table, keep, torch.arange(size), level.centroids))
    _expect(any(len(one.keep) < len(one.table) for one in changes), "shrink")
    return transplant(seen, changes, str(size))


def check_request(how: str | None, sizes: Sequence[int], out: Path | None) -> None:
    """Refuse a repair that lacks something, before any work is done.

    Raises:
        ConfigError: a repair without a folder, or sizes and ``shrink`` without each other.
    """
    if how is not None and out is None:
        raise ConfigError(f"doctor: expected a folder with --fix {how}; got none. Give -o FOLDER.")
    if (how == "shrink") != bool(sizes):
        raise ConfigError(
            "doctor: expected --fix shrink and --codes together; got one of them. "
            "Write --fix shrink --codes 1024."
        )
    if sizes and (min(sizes) < 1 or list(sizes) != sorted(set(sizes), reverse=True)):
        raise ConfigError(
            f"doctor: expected falling sizes of at least 1; got {list(sizes)}. "
            "Order them, largest first."
        )


def repairable(tokenizer: Tokenizer, how: str) -> list[Part]:
    """Return each head of a tokenizer with its table of codes once.

    Args:
        tokenizer: saved, so that its tokens carry its name.
        how: ``prune``, ``revive`` or ``shrink``, for the message.

    Raises:
        ConfigError: a head has no table, or the tokenizer was never saved.
    """
    found = parts(tokenizer.quantizer)
    for part in found:
        if not has_table(part.head):
            raise ConfigError(
                f"doctor --fix {how}: expected heads with a learned table of codes (vq, "
                f"factorized, simvq); got {type(part.head).__name__}, whose codes are fixed or "
                "not listed. Change its config and train again."
            )
    if tokenizer.file_sha256 is None:
        raise ConfigError(
            f"doctor --fix {how}: expected a tokenizer that was saved; got "
            f"'{tokenizer.model_id}'. Save it first: its tokens carry that name."
        )
    return list({id(part.head): part for part in reversed(found)}.values())[::-1]


def repair_and_save(
    seen: Survey, how: str, out: Path, sizes: Sequence[int] = (), force: bool = False
) -> Iterator[str]:
    """Write repaired tokenizers and yield a sentence for each.

    Args:
        seen: what the tokenizer made of the data.
        how: ``prune``, ``revive`` or ``shrink``.
        out: folder of the tokenizer; with several sizes, of one folder each, named by its size.
        sizes: falling, for ``shrink``; each is made from the one before, and decodes the tokens of
            all larger ones.
        force: repair even if too few tokens were seen.

    Raises:
        ConfigError: the repair cannot be done.
        CheckpointError: ``out`` cannot take a tokenizer.
    """
    for size in sizes or (0,):
        if how == "shrink":
            made = shrink(seen, size)
        else:
            made = (prune if how == "prune" else revive)(seen, force=force)
        folder = made.save(out / str(size) if len(sizes) > 1 else out)
        before, after = (t.quantizer for t in (seen.tokenizer, made))
        yield (
            f"{folder}: {made.model_id}, {sum(before.codebook_sizes):,} codes became "
            f"{sum(after.codebook_sizes):,}, {before.bits_per_position:.2f} bits per position "
            f"became {after.bits_per_position:.2f}; tokens of {seen.tokenizer.model_id} still "
            "decode"
        )
        seen = _adopted(seen, made)


def _adopted(seen: Survey, made: Tokenizer) -> Survey:
    """Return what the survey is for a tokenizer made of its own."""
    items = [_mapped(made, seen.tokenizer.model_id, item) for item in seen.items]
    return replace(seen, tokenizer=made, items=items, errors={}, latents={})


def _mapped(made: Tokenizer, ancestor: str, indices: Tensor) -> Tensor:
    if made.index_maps is None:
        return indices
    return made.index_maps.by_model[ancestor].apply(indices)


def _enough(seen: Survey, part: Part, how: str, force: bool) -> Tensor:
    """Return the counts of a table's codes if they say which are dead."""
    counts = seen.counts(part)
    tokens, least = int(counts.sum()), TOKENS_PER_CODE * len(counts)
    if tokens < least and not force and bool((counts == 0).any()):
        raise ConfigError(
            f"doctor --fix {how}: expected at least {least:,} tokens to call a code of "
            f"{len(counts):,} dead; got {tokens:,}. Give more data, or --force."
        )
    return counts


def _expect(work: bool, how: str) -> None:
    if not work:
        what = "larger codebooks" if how == "shrink" else "dead codes"
        raise ConfigError(f"doctor --fix {how}: expected {what}; got none. Nothing to do.")


def _to_nearest(codes: Tensor, live: Tensor) -> Tensor:
    """Return ``(K,)``: live codes themselves, for each dead one the nearest live one."""
    table = torch.arange(len(codes))
    dead = torch.ones(len(codes), dtype=torch.bool)
    dead[live] = False
    table[dead] = live[nearest_code(codes[dead], codes[live])[1]]
    return table


def _is_cosine(part: Part) -> bool:
    return getattr(part.head, "metric", "") == "cosine"
