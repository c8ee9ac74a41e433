"""The Markdown page of benchmarks/contract.py."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

HEAD = """# The contract, theirs and ours

`OMP_NUM_THREADS=1 python benchmarks/contract.py`; vector-quantize-pytorch {peer}, torch {torch},
ours at commit {commit}.

One row per property, one column per head: theirs / ours. `+` keeps it, `x` does not, `.` has no
such option, empty: does not concern that head. The same functions (`tests/contracts/properties.py`
and `properties_ranks.py`) judge both, through adapters that use the peer's documented options and
inverses (`benchmarks/peer_heads.py`). CPU only.
"""
TITLES = {
    "vq": "VQ, EMA", "cosine": "VQ, cosine", "rvq": "RVQ", "grouped_rvq": "grouped RVQ",
    "simvq": "SimVQ", "fsq": "FSQ", "rfsq": "RFSQ", "lfq": "LFQ", "bsq": "BSQ", "rlfq": "RLFQ",
}  # fmt: skip
SIGNS = {"pass": "+", "fail": "x", "none": "."}
NOTES = {
    "no_grad_changes_nothing": "A design choice: the peer learns in every training forward.",
    "recomputing_counts_once": "Follows from learning inside forward; without checkpointing "
    "nothing is counted twice.",
    "kmeans_waits_for_training": "A design choice as far as a first batch in training goes; here "
    "the first batch is one of evaluation.",
    "nan_tokens_stay_out_of_the_loss": "A design choice: a loss of NaN is loud. Ours counts such "
    "tokens in `terms['nonfinite']` instead.",
    "prefixes_decode": "The peer decodes prefixes of heads built with `quantize_dropout=True`, so "
    "they are built so here.",
    "gradient_is_identity": "With the straight-through estimator on both sides. The peer's default "
    "for VQ and RVQ is the rotation trick, whose gradient is another one by design.",
    "half_inputs_keep_indices": "An error is a design choice too: most layers of torch want one "
    "dtype. Residual stacks of the peer subtract in the input's dtype.",
    "autocast_keeps_indices": "On the CPU, where this ran. The peer leaves autocast around its "
    "search on CUDA.",
    "a_half_module_learns": "Casting the whole module is not what the peer's documentation shows: "
    "under autocast its averages stay float32. Its residual stacks pass because later levels make "
    "up for the first.",
    "freezing_stops_learning": "The peer's documented way is `freeze_codebook=True` at the call.",
    "bad_indices_are_refused": "-1 is left out: the peer marks dropped levels with it. That "
    "negative indices count from the end is what torch does.",
    "two_ranks_learn_one_codebook": "Built after the process group, which is what the peer needs.",
    "two_ranks_agree_if_built_early": "The peer decides at construction whether it is distributed; "
    "its option `sync_codebook` is left at its default here.",
    "the_entropy_of_18_bits_fits": "The peer's `frac_per_sample_entropy` estimates the entropies "
    "from fewer tokens; here all 8,192 count.",
    "decode_is_forward_with_projection": "Options `codebook_dim`, or a latent width other than "
    "that of the codes.",
}


def cell(row: dict[str, Any], name: str) -> str:
    """Return ``theirs / ours`` for one head."""
    signs = [SIGNS[row[key][0]] for key in (f"theirs {name}", f"ours {name}") if key in row]
    return " / ".join(signs)


def table(data: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| property | " + " | ".join(TITLES[name] for name in data["heads"]) + " |"
    yield "|---|" + ":---:|" * len(data["heads"])
    for place, (check, row) in enumerate(data["answers"].items(), 1):
        mark = f" [{place}]" if check in NOTES else ""
        title = check.replace("_", " ") + mark
        yield f"| {title} | " + " | ".join(cell(row, name) for name in data["heads"]) + " |"


def counts(data: dict[str, Any]) -> str:
    """Return how many checks each side passes."""
    found = Counter(
        (key.split()[0], result)
        for row in data["answers"].values()
        for key, (result, _) in row.items()
    )
    parts = []
    for side in ("theirs", "ours"):
        kept, failed = found[side, "pass"], found[side, "fail"]
        parts.append(f"{side} keeps {kept} of {kept + failed}")
    return f"Of the checks that concern a head and its options, {parts[0]}, {parts[1]}."


def reasons(data: dict[str, Any]) -> Iterator[str]:
    """Yield one line per property that some head does not keep."""
    for check, row in data["answers"].items():
        failed: dict[str, list[str]] = {}
        for key, (result, why) in row.items():
            if result == "fail":
                side, name = key.split()
                failed.setdefault(why, []).append(f"{side} {TITLES[name]}")
        if failed:
            said = "; ".join(f"{', '.join(heads)}: `{why}`" for why, heads in failed.items())
            yield f"- **{check.replace('_', ' ')}**. {said}"


def markdown(data: dict[str, Any]) -> str:
    """Return the page."""
    made = data["environment"]
    head = HEAD.format(
        peer=data["peer"], torch=made["versions"]["torch"], commit=(made["commit"] or "?")[:12]
    )
    notes = [
        f"- [{place}] {NOTES[check]}"
        for place, check in enumerate(data["answers"], 1)
        if check in NOTES
    ]
    meaning = [
        f"- **{name.replace('_', ' ')}**: {data['properties'][name]}" for name in data["answers"]
    ]
    parts = [
        head, "\n".join(table(data)), "", counts(data), "\n## Notes\n", "\n".join(notes),
        "\n## What each property says\n", "\n".join(meaning),
        "\n## Why a head does not keep it\n", "\n".join(reasons(data)),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"
