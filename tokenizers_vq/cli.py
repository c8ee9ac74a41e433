"""``tvq``: the library's verbs as commands; each is a few lines that call the library."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers_vq.errors import (
    BitstreamError,
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtraError,
    ShapeError,
)

if TYPE_CHECKING:
    from tokenizers_vq.tokenizer import Tokenizer

SHIPPED = {  # by kind of signal, where --model is not given
    "image": "mini_cnn2d_f16_ecsq.photos",
    "audio": "spectrum_16k_rvq.speech",
}
EXPECTED = (
    BitstreamError, CheckpointError, ConfigError, DataError, MissingExtraError, ShapeError,
    OSError,
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 2 after one sentence on standard error, or 130 on Ctrl-C."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(words)
    arguments, rest = parser.parse_known_args(words)
    if arguments.run is train:
        arguments.overrides = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return int(arguments.run(arguments) or 0)
    except EXPECTED as error:
        if arguments.debug:
            raise
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}. Check the path."
        print(f"tvq {arguments.command}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"\ntvq {arguments.command}: stopped; run the same command to go on.", file=sys.stderr
        )
        return 130


def list_names(arguments: argparse.Namespace) -> None:
    """Print the tokenizers that ``load`` knows."""
    from tokenizers_vq.hub import list_pretrained

    print("\n".join(list_pretrained(arguments.pattern)))


def encode(arguments: argparse.Namespace) -> None:
    """Write an image or a sound as a ``.tok`` file."""
    from tokenizers_vq.data.audio import SUFFIXES
    from tokenizers_vq.data.decode import read_rgb
    from tokenizers_vq.data.sound import read_sound
    from tokenizers_vq.data.transforms import image_to_signal

    sound = arguments.file.suffix.lower() in SUFFIXES
    tokenizer = _load(arguments, "audio" if sound else "image")
    if sound:
        x, done = read_sound(arguments.file, tokenizer.signal)
        print(done, end="\n" if done else "")
    else:
        x = image_to_signal(read_rgb(arguments.file))
    codes = tokenizer.encode(x[None], num_codebooks=arguments.codebooks)
    out = arguments.out or arguments.file.with_suffix(".tok")
    size = codes.save(out, tokenizer.prior)
    rate = f"{8 * size / math.prod(codes.shape):.3f} bits per pixel"
    if sound:
        second = (tokenizer.signal.sample_rate or 1) / codes.shape[0]
        used, total = len(codes.codebook_sizes), tokenizer.quantizer.num_codebooks
        rate = f"{8e-3 * size * second:.2f} kb/s, {used} of {total} codebooks"
    print(f"{out}: {size:,} bytes, {rate}, by {codes.model}")


def decode(arguments: argparse.Namespace) -> None:
    """Write what a ``.tok`` file holds: PNG or WAV, unless --out has another suffix."""
    from tokenizers_vq.bitstream import from_bytes
    from tokenizers_vq.bitstream import info as tok_info
    from tokenizers_vq.data.decode import check_picture_name
    from tokenizers_vq.data.sound import check_sound_name, write_sound
    from tokenizers_vq.data.transforms import signal_to_image

    data = arguments.tok.read_bytes()
    axes = tok_info(data)["shape"]
    sound = isinstance(axes, tuple) and len(axes) == 1
    out = arguments.out or arguments.tok.with_suffix(".wav" if sound else ".png")
    (check_sound_name if sound else check_picture_name)(out)
    tokenizer = _load(arguments, "audio" if sound else "image")
    codes = from_bytes(data, tokenizer.prior)
    x_hat = tokenizer.decode(codes, num_codebooks=arguments.codebooks)
    if sound:
        rate = tokenizer.signal.sample_rate or 1
        write_sound(out, x_hat[0], rate)
        print(f"{out}: {x_hat.shape[2] / rate:.2f} s at {rate} Hz, by {tokenizer.model_id}")
    else:
        signal_to_image(x_hat[0]).save(out)
        print(f"{out}: {x_hat.shape[3]} x {x_hat.shape[2]}, by {tokenizer.model_id}")


def _load(arguments: argparse.Namespace, kind: str) -> "Tokenizer":
    """Return the tokenizer asked for, else the one in the package for that kind of signal."""
    from tokenizers_vq.hub import load

    tokenizer = load(arguments.model or SHIPPED[kind])
    if tokenizer.signal.kind != kind:
        raise ConfigError(
            f"{arguments.command}: expected a tokenizer of {kind}; got {tokenizer.name} of "
            f"{tokenizer.signal.kind}. Choose another with --model, or leave it out."
        )
    return tokenizer


def info(arguments: argparse.Namespace) -> None:
    """Print what a ``.tok`` file says about itself."""
    from tokenizers_vq.bitstream import info as tok_info

    for key, value in tok_info(arguments.tok.read_bytes()).items():
        print(f"{key:>16}  {value}")


def push(arguments: argparse.Namespace) -> None:
    """Publish a tokenizer folder on the Hugging Face hub."""
    from tokenizers_vq.hub import push as push_folder

    print(push_folder(arguments.folder, arguments.repo, private=arguments.private))


def import_published(arguments: argparse.Namespace) -> None:
    """Turn a file of another project into a tokenizer folder."""
    import json

    from tokenizers_vq.published.loading import import_file

    config = None
    if arguments.config is not None:
        text = arguments.config
        try:
            config = json.loads(Path(text).read_text() if Path(text).is_file() else text)
        except ValueError as error:
            raise ConfigError(
                f"import: expected JSON, or a file of it, as --config; got {text!r:.80} ({error}). "
                "Correct it."
            ) from error
    tokenizer = import_file(
        arguments.files, arguments.family, config, weights=arguments.weights, name=arguments.name
    )
    tokenizer.save(arguments.out)
    print(f"{arguments.out}: {tokenizer.model_id}, {tokenizer.extra_repr()}")


def train(arguments: argparse.Namespace) -> int:
    """Train a tokenizer: the same overrides as ``python train.py``."""
    from tokenizers_vq.training.run import main as train_main

    return train_main(arguments.overrides)


def demo(arguments: argparse.Namespace) -> int:
    """Train a small image tokenizer on photos inside installed packages and report on it."""
    from tokenizers_vq.demo import run_demo

    return run_demo(arguments.out)


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a tokenizer by a protocol; write a result, tables and a report."""
    from tokenizers_vq.evaluation.entry import main_from_args

    return main_from_args(arguments)


def verify(arguments: argparse.Namespace) -> int:
    """Examine a tokenizer, ours or a foreign one, by the contract; write a receipt."""
    from tokenizers_vq.verify.receipt import main_from_args

    return main_from_args(arguments)


def probe(arguments: argparse.Namespace) -> int:
    """Measure how an image tokenizer bears damage to tokens and pictures; write a report."""
    from tokenizers_vq.robustness.probe import main_from_args

    return main_from_args(arguments)


def tokbench(arguments: argparse.Namespace) -> int:
    """Measure whether words stay legible and faces stay alike, by their size."""
    from tokenizers_vq.tokbench.run import main_from_args

    return main_from_args(arguments)


def doctor(arguments: argparse.Namespace) -> None:
    """Examine a tokenizer's codebooks on data; repair them so that old tokens stay valid."""
    from tokenizers_vq.doctor.diagnosis import main_from_args

    main_from_args(arguments)


def fit(arguments: argparse.Namespace) -> None:
    """Put a head that is fitted to latents, not trained, into a trained tokenizer."""
    from tokenizers_vq.posttraining import main_from_args

    main_from_args(arguments)


def matrix(arguments: argparse.Namespace) -> None:
    """Train every head on every tiny backbone for a small budget; write a table and a picture."""
    from tokenizers_vq.matrix import run_matrix

    run_matrix(
        arguments.out, backbones=arguments.backbones, quantizers=arguments.quantizers,
        data=arguments.data, steps=arguments.steps, seed=arguments.seed,
        overrides=arguments.overrides,
    )  # fmt: skip
    print((arguments.out / "matrix.md").read_text())


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tvq", description="Discrete tokenizers, any head on any backbone."
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int | None]
    ) -> argparse.ArgumentParser:
        summary = (run.__doc__ or "").strip().splitlines()[0]
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run)
        return sub

    command("list", list_names).add_argument("pattern", nargs="?", default="*")
    sub = command("encode", encode)
    sub.add_argument("file", type=Path, help="an image, or a sound of any rate")
    _model_and_out(sub)
    sub = command("decode", decode)
    sub.add_argument("tok", type=Path)
    _model_and_out(sub)
    command("info", info).add_argument("tok", type=Path)
    sub = command("push", push)
    sub.add_argument("repo", help="org/name")
    sub.add_argument("folder", type=Path)
    sub.add_argument("--private", action="store_true")
    sub = command("import", import_published)
    sub.add_argument("files", nargs="+", type=Path, help="the published file, or its parts")
    sub.add_argument("--family", required=True, help="whose: titok, llamagen, ...")
    sub.add_argument("--config", help="upstream constructor values: JSON, or a file of it")
    sub.add_argument("--weights", default="ema", choices=("ema", "raw"))
    sub.add_argument("--name", help="arch.tag of the result")
    sub.add_argument("-o", "--out", type=Path, required=True)
    command("train", train)
    sub = command("demo", demo)
    sub.add_argument("-o", "--out", type=Path, default=Path("outputs/demo"))
    for name, run, module in (
        ("eval", evaluate, "evaluation.entry"),
        ("verify", verify, "verify.receipt"),
        ("probe", probe, "robustness.probe"),
        ("tokbench", tokbench, "tokbench.run"),
        ("doctor", doctor, "doctor.diagnosis"),
        ("fit", fit, "posttraining"),
    ):
        sub = command(name, run)
        if name in words:  # these modules import torch, which `tvq list` need not wait for
            import_module(f"tokenizers_vq.{module}").add_arguments(sub)
    sub = command("matrix", matrix)
    sub.add_argument(
        "--overrides", nargs="+", default=(), metavar="KEY=VALUE", help="as for train.py"
    )
    sub.add_argument("--backbones", nargs="+", default=None, metavar="NAME")
    sub.add_argument("--quantizers", nargs="+", default=None, metavar="NAME")
    sub.add_argument(
        "--data", default=None, help="a name in conf/data; default: generated, for each backbone"
    )
    sub.add_argument("--steps", type=int, default=300, help="optimizer steps per cell")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("-o", "--out", type=Path, default=Path("outputs/matrix"))
    return parser


def _model_and_out(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-m", "--model", default=None, help="name, folder or hf:org/repo")
    sub.add_argument("--codebooks", type=int, default=None, metavar="N", help="only the first N")
    sub.add_argument("-o", "--out", type=Path, default=None)
