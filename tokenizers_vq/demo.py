"""``tvq demo``: train, measure and show a small tokenizer on real photos, in minutes."""

import sys
import time
from pathlib import Path

from tokenizers_vq.data.wheels import WheelPhotos, wheel_photos
from tokenizers_vq.evaluation.entry import evaluate
from tokenizers_vq.evaluation.report import read_history, write_report
from tokenizers_vq.evaluation.results import codec_table, metric_table
from tokenizers_vq.hub import load
from tokenizers_vq.training.run import compose, run


def run_demo(out: Path) -> int:
    """Train on photos inside installed packages, evaluate on four held-out ones, write a report.

    Run again after Ctrl-C, it goes on where it stopped; run again after its end, it only measures.

    Args:
        out: folder of everything: ``train/`` (the run), ``result.json``, ``report.html``.

    Returns:
        0, or 130 after Ctrl-C.
    """
    trained = len(wheel_photos("train"))
    _say(f"Training a tokenizer on {trained} photos that came with installed packages.")
    start = time.monotonic()
    result = run(compose(["experiment=demo", f"folder={out / 'train'}", "resume=auto"]))
    if not result.finished:
        _say("What is trained so far is in train/tokenizer; `make demo` again goes on.")
        return 130
    seconds = time.monotonic() - start
    tokenizer = load(result.folder / "tokenizer")
    heldout = WheelPhotos("heldout", size=256)
    _say(f"Evaluating on {len(heldout)} photos it never saw, beside JPEG, WebP and AVIF.")
    measured = evaluate(tokenizer, heldout, "image_fast", out, data_name="wheels heldout")
    note = (
        f"Trained for {result.step:,} steps on {trained} photos from installed packages; "
        f"measured on {len(heldout)} photos it never saw."
    )
    page = write_report(out, history=read_history(result.folder), note=note)
    sys.stdout.write(f"\n{metric_table(measured)}\n\n{codec_table(measured)}\n\n")
    _say(f"Trained for {seconds:.0f} s. Look at {page}")
    return 0


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
