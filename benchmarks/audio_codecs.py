"""Encode, decode and one training step of audio codecs: ours and the peers', on the same weights.

    python benchmarks/audio_codecs.py [--pair NAME ...] [--seconds S] [--audio SECONDS]

Peers: the packages ``encodec`` and ``descript-audio-codec`` (neither is a dependency; give them by
PYTHONPATH) and ``transformers``, each model at its published size with random weights,
imported by ``from_published``. A training step is forward, mean absolute error and the quantizer's
loss, backward, and the codebooks' own update; models that give no gradient to their encoder have
none. Both sides run in turn on one thread and the least CPU time of each counts. Peak memory is of
the tensors that one call makes. Rows go to ``benchmarks/results/audio_codecs.json``, and all of
them as a table to ``audio_codecs.md`` beside it.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from image_tokenizers import cpu_name, measure, peak_of
from safetensors.torch import load_file
from torch import Tensor, nn

from tokenizers_vq import from_published
from tokenizers_vq.evaluation.results import environment

RESULTS = Path(__file__).resolve().parent / "results" / "audio_codecs.json"
HEAD = (
    "# Audio codecs: ours against the packages people use",
    "",
    "`OMP_NUM_THREADS=1 python benchmarks/audio_codecs.py`: models of published size with random",
    "weights, the same on both sides; one thread, least CPU time of runs in turn, peak of the",
    "tensors that a call makes. *times* is how many times faster ours is. While it trains, a peer",
    "keeps its weights factored (weight norm) where it does so; ours trains them as they are.",
)
NOTE = (
    "Rows without a commit were measured between c9ba516, since when whole frames are timed, and "
    "2feab7a, which keeps them. The library is the same at both; of the script, how Mimi's weights "
    "come in and how sounds are compared is that of 2feab7a."
)


class Pair(NamedTuple):
    """Two models with the same weights.

    Attributes:
        theirs, ours: the models.
        encode: indices ``(B, K, T')`` of the peer from ``x (B, 1, T)``.
        decode: the peer's sound from these.
        train: the peer's loss of ``x``, None where it cannot be trained.
    """

    theirs: nn.Module
    ours: Any
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    train: Callable[[Tensor], Tensor] | None = None


def encodec() -> Pair:
    """EnCodec 24 kHz of the package, 32 codebooks (24 kb/s)."""
    from encodec import EncodecModel

    model = EncodecModel.encodec_model_24khz(pretrained=False)
    model.set_target_bandwidth(24.0)

    def train(x: Tensor) -> Tensor:
        q = model.quantizer(model.encoder(x), model.frame_rate, 24.0)
        return (model.decoder(q.quantized)[..., : x.shape[2]] - x).abs().mean() + q.penalty

    ours = from_published("encodec", model.state_dict(), {"sample_rate": 24000, "causal": True})
    return Pair(
        model, ours, lambda x: model.encode(x)[0][0], lambda q: model.decode([(q, None)]), train
    )


def encodec_transformers() -> Pair:
    """EnCodec 24 kHz of transformers, 32 codebooks."""
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig()
    model = EncodecModel(config)
    return Pair(
        model,
        from_published("encodec", model.state_dict(), config.to_dict()),
        lambda x: model.encode(x, bandwidth=24.0).audio_codes[0],
        lambda q: model.decode(q[None], [None]).audio_values,
    )


def dac() -> Pair:
    """DAC 44.1 kHz of the authors' package, 9 codebooks."""
    import dac as package

    values: dict[str, Any] = {"encoder_dim": 64, "decoder_dim": 1536, "n_codebooks": 9}
    model = package.DAC(**values, sample_rate=44100)

    def train(x: Tensor) -> Tensor:
        out = model(x, 44100)
        loss: Tensor = (out["audio"] - x).abs().mean() + out["vq/commitment_loss"]
        return loss + out["vq/codebook_loss"]

    ours = from_published("dac", model.state_dict(), {**values, "sample_rate": 44100})
    return Pair(
        model,
        ours,
        lambda x: model.encode(model.preprocess(x, 44100))[1],
        lambda q: model.decode(model.quantizer.from_codes(q)[0]),
        train,
    )


def dac_transformers() -> Pair:
    """DAC 44.1 kHz of transformers, 9 codebooks."""
    from transformers import DacConfig, DacModel

    config = DacConfig(sampling_rate=44100)
    model = DacModel(config)

    def train(x: Tensor) -> Tensor:
        loss, audio, *_ = model(x, return_dict=False)
        return (audio[:, None, : x.shape[2]] - x).abs().mean() + loss.mean()

    return Pair(
        model,
        from_published("dac", model.state_dict(), config.to_dict()),
        lambda x: model.encode(x).audio_codes,
        lambda q: model.decode(audio_codes=q).audio_values[:, None],
        train,
    )


def mimi_transformers() -> Pair:
    """Mimi of transformers, all 32 codebooks."""
    from transformers import MimiConfig, MimiModel

    config = MimiConfig()
    model = MimiModel(config)
    with TemporaryDirectory() as folder:  # the names of the file are not those of the module
        model.save_pretrained(folder)
        state = load_file(Path(folder) / "model.safetensors")
    return Pair(
        model,
        from_published("mimi", state, config.to_dict()),
        lambda x: model.encode(x).audio_codes,
        lambda q: model.decode(q).audio_values,
    )


PAIRS: dict[str, Callable[[], Pair]] = {
    make.__name__: make
    for make in (encodec, encodec_transformers, dac, dac_transformers, mimi_transformers)
}


def row(name: str, audio: float, seconds: float) -> dict[str, Any]:
    """Return times, ratios and peaks of one pair."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    pair = PAIRS[name]()
    pair.theirs.eval()
    rate = pair.ours.signal.sample_rate
    stride = pair.ours.stride[0]  # whole frames: some peers do not pad
    x = (0.2 * torch.randn(1, 1, round(audio * rate / stride) * stride)).clamp(-1, 1)
    found: dict[str, Any] = {"pair": name, "seconds": audio, "commit": environment("cpu")["commit"]}
    found["parameters"] = sum(p.numel() for p in pair.theirs.parameters())
    with torch.no_grad():
        expected, codes = pair.encode(x), pair.ours.encode(x)
        found["same_codes"] = float((codes.indices.mT == expected).float().mean())
        theirs, own = pair.decode(expected), pair.ours.decode(codes.indices, raw=True)
        length = min(theirs.shape[2], own.shape[2])
        error = (theirs[..., :length] - own[..., :length]).abs().max() / theirs.abs().max()
        found["sound_error"] = float(f"{error:.1e}")
        found["encode"] = compare(lambda: pair.ours.encode(x), lambda: pair.encode(x), seconds)
        found["decode"] = compare(
            lambda: pair.ours.decode(codes), lambda: pair.decode(expected), seconds
        )
    if pair.train is not None:
        pair.theirs.train()
        pair.ours.train().requires_grad_()
        ours, theirs_step = own_step(pair.ours, x), their_step(pair, x)
        found["train"] = compare(ours, theirs_step, seconds)
    return found


def own_step(tokenizer: Any, x: Tensor) -> Callable[[], None]:
    """Return a training step of ours, codebook statistics included."""

    def step() -> None:
        out = tokenizer(x)
        ((out.x_hat - x).abs().mean() + out.quantized.loss).backward()
        tokenizer.quantizer.update(out.z, out.quantized.indices)
        tokenizer.zero_grad(set_to_none=True)

    return step


def their_step(pair: Pair, x: Tensor) -> Callable[[], None]:
    """Return a training step of the peer, which updates its codebooks in forward."""
    train = pair.train
    if train is None:
        raise ValueError("this peer cannot be trained")

    def step() -> None:
        train(x).sum().backward()
        pair.theirs.zero_grad(set_to_none=True)

    return step


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Return milliseconds and peak MiB of both, and how many times faster ours is."""
    calls = {"ours": ours, "theirs": theirs}
    times = measure(calls, seconds)
    cell: dict[str, Any] = {f"{who}_ms": round(1000 * t, 1) for who, t in times.items()}
    cell["ratio"] = round(times["theirs"] / times["ours"], 2)
    return cell | {f"{who}_peak_mib": round(peak_of(c) / 2**20, 1) for who, c in calls.items()}


def save(found: dict[str, Any]) -> None:
    """Put a row in the results, in place of its former one."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    rows = [one for one in results["rows"] if one.get("pair") not in {found["pair"], None}]
    results = {
        "torch": torch.__version__,
        "machine": {"cpu": cpu_name(), "threads": 1},
        "rows": sorted([*rows, found], key=lambda one: str(one["pair"])),
    }
    if any("commit" not in one for one in rows):
        results["note"] = NOTE
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table(results))


def table(results: dict[str, Any]) -> str:
    """Return the page with the results."""
    verbs = ("encode", "decode", "train")
    titles = "".join(f" {verb} ms, ours / theirs | times | peak MiB |" for verb in verbs)
    lines = [*HEAD, f"torch {results['torch']}, {results['machine']['cpu']}.", ""]
    lines += [
        f"| peer | M weights | seconds of sound |{titles} same codes | commit |",
        "|---|" + "---:|" * 12 + "---|",
    ]
    for one in results["rows"]:
        cells = [one["pair"], f"{one['parameters'] / 1e6:.1f}", f"{one['seconds']:g}"]
        for verb in verbs:
            if verb not in one:
                cells += ["", "", ""]
                continue
            cell = one[verb]
            cells += [f"{cell['ours_ms']} / {cell['theirs_ms']}", f"{cell['ratio']:.2f}"]
            cells += [f"{cell['ours_peak_mib']} / {cell['theirs_peak_mib']}"]
        cells += [str(one["same_codes"]), (one.get("commit") or "")[:10]]
        lines.append(f"| {' | '.join(cells)} |")
    if "note" in results:
        lines += ["", results["note"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--audio", type=float, default=1.0, help="seconds of sound")
    parser.add_argument("--seconds", type=float, default=8.0, help="of CPU time per cell")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.pair:
        found = row(name, arguments.audio, arguments.seconds)
        save(found)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
