"""``tvq verify``: run every property on a tokenizer, write the receipt and its page."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.evaluation import results
from tokenizers_vq.files import write_atomically
from tokenizers_vq.verify.properties import (
    LIMITS,
    PROPERTIES,
    Finding,
    autocast_survivors,
)
from tokenizers_vq.verify.subject import Subject, subject_of

SCHEMA = 1
KEPT = ("exact", "close")
SIGNS = {"exact": "kept", "close": "kept within the limits", "broken": "**broken**"}


def verify(
    tokenizer: Any, out: str | Path | None = None, *, seed: int = 0, command: str = ""
) -> dict[str, Any]:
    """Examine a tokenizer on itself.

    Args:
        tokenizer: one of ours in eval mode, or a ``Foreign``.
        out: folder for ``receipt.json`` and ``receipt.md``; nothing is written without it.
        seed: of the signals it is tried with.
        command: what was typed, kept in the receipt.

    Returns:
        The receipt as plain data: ``tokenizer``, ``seed``, ``limits``, ``environment``,
        ``properties`` (findings by name), ``facts``, ``kept``, ``broken``.

    Raises:
        ConfigError: it is neither.
    """
    subject = subject_of(tokenizer, seed)
    subject.module.eval()
    start = time.perf_counter()
    findings = {name: _found(name, subject) for name in PROPERTIES}
    receipt = {
        "schema": SCHEMA,
        "kind": "receipt",
        "tokenizer": _identity(subject),
        "seed": seed,
        "limits": LIMITS,
        "command": command,
        "environment": results.environment(subject.x.device.type),
        "properties": {
            name: {"says": _says(name), **dataclasses.asdict(finding)}
            for name, finding in findings.items()
        },
        "facts": _facts(subject),
        "kept": sum(one.verdict in KEPT for one in findings.values()),
        "broken": sorted(name for name, one in findings.items() if one.verdict == "broken"),
        "seconds": round(time.perf_counter() - start, 2),
    }
    if out is not None:
        results.write_json(Path(out) / "receipt.json", receipt)
        write_atomically(Path(out) / "receipt.md", page(receipt))
    return receipt


def page(receipt: Mapping[str, Any]) -> str:
    """Return a receipt as a Markdown page."""
    who, environment = receipt["tokenizer"], receipt["environment"]
    lines = [
        f"# Receipt of {who['name']}",
        "",
        _summary(receipt),
        "",
        "| property | verdict | measured |",
        "|---|---|---|",
    ]
    for name, one in receipt["properties"].items():
        sign = SIGNS.get(one["verdict"], one["verdict"])
        lines.append(f"| {name.replace('_', ' ')} | {sign} | {one['text'].replace('|', '/')} |")
    lines += ["", "| fact | |", "|---|---:|"]
    lines += [f"| {name} | {value} |" for name, value in receipt["facts"].items()]
    limits = receipt["limits"]
    lines += [
        "",
        f"Kept means bit for bit; within the limits means at most {limits['indices']:.0%} of the "
        f"tokens, and {limits['samples']:g} of the range of a sample: near ties and round-off.",
        "",
        f"Weights {who['sha256'][:12]}; {who['parameters']:,} parameters; signals of "
        f"{' x '.join(map(str, who['probe']))} samples, seed {receipt['seed']}; commit "
        f"{(environment['commit'] or 'unknown')[:10]}; torch {environment['versions']['torch']}; "
        f"{environment['machine']}; {receipt['seconds']} s.",
    ]
    if receipt["command"]:
        lines += ["", f"`{receipt['command']}`"]
    return "\n".join([*lines, "", "## What each property says", "", *_meanings(receipt)]) + "\n"


def tokenizer_from(name: str) -> Any:
    """Return the tokenizer of a name, a folder, or of an adapter ``module_or_file.py:callable``.

    Raises:
        ConfigError: there is no such module, file or callable.
        CheckpointError: there is no such tokenizer.
    """
    from tokenizers_vq.hub import load

    place, colon, attribute = name.rpartition(":")
    if not colon or place == "hf" or Path(name).exists():
        return load(name)
    module = _module(place)
    maker = getattr(module, attribute, None)
    if not callable(maker):
        known = sorted(key for key in vars(module) if not key.startswith("_"))
        raise ConfigError(
            f"verify: expected a callable '{attribute}' in '{place}'; it has "
            f"{', '.join(known) or 'nothing'}. Name a function that returns a Foreign."
        )
    return maker()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``tvq verify``."""
    parser.add_argument(
        "tokenizer", help="name, folder, hf:org/repo, or an adapter as file.py:callable"
    )
    parser.add_argument("-o", "--out", type=Path, default=None, help="folder of the receipt")
    parser.add_argument("--seed", type=int, default=0, help="of the signals it is tried with")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if anything is broken")


def main_from_args(arguments: argparse.Namespace) -> int:
    """Examine as the command line says; print the verdicts.

    Raises:
        ConfigError, CheckpointError: there is no such tokenizer.
    """
    tokenizer = tokenizer_from(arguments.tokenizer)
    out = arguments.out or Path("outputs/verify") / tokenizer.name
    command = f"tvq verify {arguments.tokenizer}"
    command += f" --seed {arguments.seed}" if arguments.seed else ""
    receipt = verify(tokenizer, out, seed=arguments.seed, command=command)
    for name, one in receipt["properties"].items():
        sys.stdout.write(f"{one['verdict']:>11}  {name.replace('_', ' ')}: {one['text']}\n")
    sys.stdout.write(f"\n{_summary(receipt)}\n{out / 'receipt.md'}\n")
    return int(arguments.strict and bool(receipt["broken"]))


def _found(name: str, subject: Subject) -> Finding:
    """Return what a property finds; an error where an answer was due is a finding, too."""
    try:
        return PROPERTIES[name](subject)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return Finding("broken", f"{type(error).__name__}: {first}"[:160])


def _facts(subject: Subject) -> dict[str, str]:
    try:
        indices = subject.codes.indices
        facts = {
            "tokens per probe": f"{indices[0].numel():,}",
            "different tokens seen": f"{len(set(indices.flatten().tolist())):,}",
        }
    except Exception as error:
        return {"encode": f"raises {type(error).__name__}"}
    try:
        facts["tokens that bfloat16 autocast keeps"] = f"{autocast_survivors(subject):.1%}"
    except Exception as error:
        facts["tokens that bfloat16 autocast keeps"] = f"raises {type(error).__name__}"
    return facts


def _identity(subject: Subject) -> dict[str, Any]:
    one = subject.tokenizer
    return {
        "name": one.name,
        "sha256": one.sha256,
        "kind": subject.signal.kind,
        "stride": list(subject.stride),
        "causal": subject.causal,
        "probe": list(subject.shape),
        "parameters": sum(p.numel() for p in subject.module.parameters()),
    }


def _summary(receipt: Mapping[str, Any]) -> str:
    properties = receipt["properties"].values()
    due = sum(one["verdict"] != "not claimed" for one in properties)
    broken = ", ".join(name.replace("_", " ") for name in receipt["broken"])
    text = f"Keeps {receipt['kept']} of {due} properties."
    text += f" Broken: {broken}." if broken else ""
    if receipt["facts"].get("different tokens seen") == "1":
        text += " Only one token was ever seen, so what is said of tokens means little."
    return text


def _says(name: str) -> str:
    return (PROPERTIES[name].__doc__ or "").strip()


def _meanings(receipt: Mapping[str, Any]) -> list[str]:
    return [
        f"- {name.replace('_', ' ')}: {one['says']}" for name, one in receipt["properties"].items()
    ]


def _module(place: str) -> Any:
    """Import a Python file or a module by its dotted name."""
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise CheckpointError(f"verify: expected a Python file; got '{place}'. Check the path.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"verify: '{place}' cannot be imported. Name a Python file.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"verify: expected a module or a file; got '{place}' ({error}). "
            "Name it module:callable or file.py:callable."
        ) from error
