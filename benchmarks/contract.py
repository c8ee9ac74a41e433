"""Run the contract's properties on our heads and on vector-quantize-pytorch's; write the table.

    OMP_NUM_THREADS=1 python benchmarks/contract.py

The functions are those of tests/contracts: the same lines judge both libraries. Every check is a
process of its own with a time limit, so that one that hangs or breaks torch disturbs no other.
"""

import argparse
import importlib
import json
import multiprocessing
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "contracts"))

from adapter import NotOffered
from contract_table import markdown
from our_heads import Ours
from peer_heads import TRAITS, Theirs
from properties import PROPERTIES
from properties_ranks import RANK_PROPERTIES

from tokenizers_vq.evaluation.results import environment
from tokenizers_vq.files import write_atomically

CHECKS = {check.__name__: (check, trait) for check, trait in (PROPERTIES | RANK_PROPERTIES).items()}
SIDES = {"ours": Ours, "theirs": Theirs}
LONGEST = 180  # seconds of one check


def reason(error: BaseException) -> str:
    """Return one short line that says what went wrong."""
    lines = str(error).strip().splitlines() or [""]
    text = lines[0] if isinstance(error, AssertionError) else f"{type(error).__name__}: {lines[0]}"
    return text[:120].replace("|", "/") or "not equal"


def judge(check: str, side: str, name: str, pipe: Any) -> None:
    """Send whether one head keeps one property: pass, fail or none, and why."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        CHECKS[check][0](SIDES[side](name))
        pipe.send(("pass", ""))
    except NotOffered as error:
        pipe.send(("none", str(error)))
    except BaseException as error:
        pipe.send(("fail", reason(error)))


def answer(check: str, side: str, name: str) -> tuple[str, str]:
    """Return what ``judge`` says, from a process of its own."""
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe()
    process = context.Process(target=judge, args=(check, side, name, its))
    process.start()
    its.close()
    result = ("fail", f"no answer in {LONGEST} seconds")
    try:
        if mine.poll(LONGEST):
            result = mine.recv()
    except EOFError:
        result = ("fail", "the process died")
    process.kill()
    process.join()
    return result


def warm_up() -> None:
    """Load what the checks load at their first call once, instead of in every process."""
    importlib.import_module("torch._dynamo")
    importlib.import_module("torch.export")
    for name in TRAITS:
        for side in SIDES.values():
            head = side(name)
            head.decode(head.encode(head.latents()))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--again", choices=SIDES, help="judge all heads of this side anew")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "contract.json")
    return parser.parse_args()


def main() -> None:
    """Judge every pair that is not in the file yet, writing it after each property."""
    options = arguments()
    warm_up()
    data = json.loads(options.out.read_text()) if options.out.exists() else {"answers": {}}
    for row in data["answers"].values() if options.again else ():
        for name in TRAITS:
            row.pop(f"{options.again} {name}", None)
    data |= {
        "peer": version("vector-quantize-pytorch"),
        "environment": environment("cpu"),
        "properties": {name: check.__doc__ for name, (check, _) in CHECKS.items()},
        "heads": list(TRAITS),
    }
    for check, (_, trait) in CHECKS.items():
        row = data["answers"].setdefault(check, {})
        for name, traits in TRAITS.items():
            for side in SIDES:
                key = f"{side} {name}"
                if key not in row and (not trait or trait in traits):
                    row[key] = answer(check, side, name)
        failed = [key for key, (result, _) in row.items() if result == "fail"]
        print(f"{check}: fails {', '.join(failed) or 'nowhere'}", flush=True)
        write_atomically(options.out, json.dumps(data, indent=1) + "\n")
        write_atomically(options.out.with_suffix(".md"), markdown(data))


if __name__ == "__main__":
    main()
