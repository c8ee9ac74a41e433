"""What a doctor says: findings in plain words, each with one sentence of advice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log2
from typing import Any, NamedTuple

FEW_DEAD = 0.01  # share of dead codes that needs no word
UNEVEN = 1.0  # bits per index between the codes in use and what they carry
TOP = 0.2  # share of the tokens at which one code is a finding, if it is also
TOP_TIMES = 8  # that many times its even share
IDLE_STAGE = 0.9  # a stage that leaves more than this share of the error before it does nothing
ENDS = 0.02  # share of the tokens on the outermost of a channel's levels
SILENT = 0.05  # bits: an index that says less is a constant
TABLES = ("vq", "factorized", "simvq")

Row = Mapping[str, Any]


class Finding(NamedTuple):
    """Something to know about a tokenizer.

    Attributes:
        kind: ``few_tokens``, ``collapsed``, ``dead``, ``uneven``, ``top_code``, ``twins``,
            ``silent``, ``clipped``, ``idle_stage``, ``positions``, ``drift``.
        where: the codebooks or the stack it is about; empty for the whole.
        found: what was seen.
        advice: what to do.
    """

    kind: str
    where: str
    found: str
    advice: str


def findings(report: Row) -> list[dict[str, str]]:
    """Return the findings of a report of ``diagnose`` as plain data, the gravest first.

    Args:
        report: as ``diagnose`` returns it; a ``drift`` in it is judged too.
    """
    rows: Sequence[Row] = report["codebooks"]
    found = [
        *_few_tokens(rows),
        *_grouped(rows, "collapsed", _collapsed),
        *_grouped(rows, "dead", _dead),
        *_grouped(rows, "silent", _silent),
        *_grouped(rows, "top_code", _top_code),
        *([] if report["entropy_coded"] else _grouped(rows, "uneven", _uneven)),
        *_grouped(rows, "twins", _twins),
        *_grouped(rows, "clipped", _clipped),
        *_stacks(report["stacks"]),
        *_positions(report["positions"]),
        *_drift(report.get("drift", [])),
    ]
    return [finding._asdict() for finding in found]


def _grouped(
    rows: Sequence[Row], kind: str, judge: Callable[[Row], tuple[str, str] | None]
) -> list[Finding]:
    """Judge each codebook; those with the same advice are one finding, told by the worst."""
    by_advice: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        judged = judge(row)
        if judged is not None:
            by_advice.setdefault(judged[1], []).append((row["codebook"], judged[0]))
    made = []
    for advice, cases in by_advice.items():
        first = cases[0][1] if len(cases) == 1 else f"for example #{cases[0][0]}: {cases[0][1]}"
        made.append(Finding(kind, _names(number for number, _ in cases), first, advice))
    return made


def _few_tokens(rows: Sequence[Row]) -> list[Finding]:
    few = [row for row in rows if not row["enough_tokens"] and row["dead"]]
    if not few:
        return []
    worst = max(few, key=lambda row: int(row["size"]))
    return [
        Finding(
            "few_tokens",
            _names(row["codebook"] for row in few),
            f"{worst['tokens']:,} tokens are too few to call any of {worst['size']:,} codes dead",
            f"Give more data, at least {10 * worst['size']:,} tokens; until then the unused codes "
            "below count for nothing.",
        )
    ]


def _collapsed(row: Row) -> tuple[str, str] | None:
    if not _has_collapsed(row):
        return None
    return (
        f"the tokens could come from {row['perplexity']:.1f} codes of {row['size']:,}",
        f"The codebook has collapsed; {_more_use(row)}.",
    )


def _dead(row: Row) -> tuple[str, str] | None:
    if not row["enough_tokens"] or row["dead"] <= FEW_DEAD * row["size"] or _scalar(row):
        return None
    advice = _more_use(row)
    if row["head"] in TABLES:
        advice += ", or repair this one with --fix revive or --fix prune"
    return (
        f"{row['dead']:,} of {row['size']:,} codes ({row['dead'] / row['size']:.0%}) are dead",
        f"Train again: {advice}." if row["head"] in TABLES else f"{advice[0].upper()}{advice[1:]}.",
    )


def _more_use(row: Row) -> str:
    """Return what makes a head use more of its codes."""
    options, head = row["options"], row["head"]
    if head in ("lfq", "bsq"):
        return f"raise entropy_weight (now {options['entropy_weight']}) or take fewer bits"
    if head == "simvq":
        return "lower code_dim or codebook_size"
    if head not in TABLES:
        return "give the head fewer codes (levels, bits or codebook_size), or train longer"
    pulled = options.get("restart") == "cvq"
    ways = {
        "set restart_threshold to 0.05": options["restart_threshold"] == 0 and not pulled,
        "set kmeans_init to random": options["kmeans_init"] == "none" and head == "vq",
        "set codebook_update to ema, or lower code_dim": (
            options["codebook_update"] == "gradient" and head == "vq"
        ),
        "raise restart_threshold, or lower codebook_size": not pulled,
        "set restart to random, or lower codebook_size": True,
    }
    return next(way for way, applies in ways.items() if applies)


def _silent(row: Row) -> tuple[str, str] | None:
    if row["bits"] >= SILENT or row["nominal_bits"] < SILENT or _has_collapsed(row):
        return None
    options = "channels or rate_weight" if row["head"] == "ecsq" else "the number of codebooks"
    return (
        f"code {row['top_code']} has {row['top_share']:.1%} of the tokens, "
        f"{row['bits']:.3f} bits per index",
        f"These indices say nothing; lower {options}, or accept them where an entropy coder "
        "follows: they cost next to nothing.",
    )


def _top_code(row: Row) -> tuple[str, str] | None:
    loud = row["top_share"] > max(TOP, TOP_TIMES / row["size"])
    if not loud or _has_collapsed(row) or _scalar(row):
        return None
    return (
        f"code {row['top_code']} has {row['top_share']:.0%} of the tokens",
        "Look at what it stands for (flat background is common); if it is no background, "
        f"{_more_use(row)}.",
    )


def _uneven(row: Row) -> tuple[str, str] | None:
    wasted = row["nominal_bits"] - row["bits"] - max(0.0, -log2(row["usage"]))
    if not row["enough_tokens"] or wasted < UNEVEN:
        return None
    return (
        f"an index carries {row['bits']:.2f} of {row['nominal_bits']:.2f} bits, and dead codes "
        "are not the reason",
        "Train with a prior (data.prior and prior_items), so that files shrink to what the tokens "
        "carry, or raise entropy_weight where the head has it.",
    )


def _twins(row: Row) -> tuple[str, str] | None:
    if not row["twins"]:
        return None
    a, b = row["twins"][0]
    count = len(row["twins"])
    sampled = f" ({row['twin_note']})" if row["twin_note"] else ""
    return (
        f"{count:,} {'pair' if count == 1 else 'pairs'} of codes in use nearly coincide, such as "
        f"{a} and {b}{sampled}",
        "Lower codebook_size, or merge them with --fix shrink --codes N.",
    )


def _clipped(row: Row) -> tuple[str, str] | None:
    """Judge the ends of scalar levels, where an option says how far they reach."""
    most = row["options"].get("max_level")
    if most is None or row["end_share"] <= ENDS or row["bits"] < SILENT:
        return None
    return (
        f"{row['end_share']:.1%} of the tokens are the outermost levels, -{most} or {most}",
        "Raise max_level, or overflow_weight: latents beyond the last level are cut off.",
    )


def _stacks(stacks: Mapping[str, Sequence[float]]) -> list[Finding]:
    found = []
    for path, errors in stacks.items():
        idle = [
            stage
            for stage, (before, after) in enumerate(zip([1.0, *errors], errors, strict=False))
            if after > IDLE_STAGE * before
        ]
        if idle:
            stage = idle[0]
            before = 1.0 if stage == 0 else errors[stage - 1]
            found.append(
                Finding(
                    "idle_stage",
                    f"{path or 'stack'} stage {', '.join(map(str, idle))}",
                    f"stage {stage} leaves {errors[stage]:.3g} of the variance, the ones before "
                    f"it {before:.3g}",
                    "Take fewer stages, set kmeans_init to random for learned codes, or "
                    "stage_scale for heads with a fixed grid.",
                )
            )
    return found


def _positions(positions: Row) -> list[Finding]:
    if not positions.get("low"):
        return []
    low = positions["low"]
    place = ", ".join(map(str, low[0]))
    return [
        Finding(
            "positions",
            f"{len(low)} positions",
            f"they vary little from item to item, such as ({place}): {positions['low_bits']:.2f} "
            f"bits instead of {positions['median_bits']:.2f}",
            "Check the data for borders or captions that all items share; a prior makes such "
            "tokens cheap.",
        )
    ]


def _drift(rows: Sequence[Row]) -> list[Finding]:
    moved = [
        k
        for k, row in enumerate(rows)
        if row["noise"] is not None and row["divergence"] > row["noise"]
    ]
    if not moved:
        return []
    worst = max(moved, key=lambda k: float(rows[k]["divergence"]))
    row = rows[worst]
    code, before, after = row["changed"][0]
    return [
        Finding(
            "drift",
            _names(moved),
            f"#{worst} moves {row['divergence']:.3f} bits, chance explains {row['noise']:.3f}; "
            f"code {code} goes from {before:.1%} to {after:.1%} of the tokens",
            "The second data set is another domain to this tokenizer; add it to the training data "
            "before its tokens are used.",
        )
    ]


def _has_collapsed(row: Row) -> bool:
    """Whether a codebook of more than a few codes carries no more than one bit."""
    return bool(row["perplexity"] < 2 and row["size"] > 4) and not _scalar(row)


def _scalar(row: Row) -> bool:
    """Whether a codebook is one channel's levels: rare ends are how it should be."""
    return bool(row["head"] == "ecsq")


def _names(numbers: Iterable[int]) -> str:
    """Return codebook numbers as ``#0-3, #7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"#{run[0]}" if len(run) == 1 else f"#{run[0]}-{run[-1]}" for run in runs)
