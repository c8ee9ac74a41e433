"""How fast are our image metrics beside the libraries they replace, on the same inputs?

    OMP_NUM_THREADS=1 python benchmarks/metrics.py -o benchmarks/results/metrics

Ours and theirs take turns; the least CPU seconds of one thread count. Networks have the same random
weights on both sides. What a library gives is compared with ours, too: a fast wrong number is none.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.data.transforms import to_uint8
from tokenizers_vq.evaluation import results
from tokenizers_vq.files import write_atomically
from tokenizers_vq.metrics.fidelity import frechet_distance, kernel_distance
from tokenizers_vq.metrics.gaussians import Moments, moments_distance
from tokenizers_vq.metrics.inception import clean_bicubic, tf1_bilinear
from tokenizers_vq.metrics.inception_score import inception_score
from tokenizers_vq.metrics.perceptual import LPIPS, TAPS
from tokenizers_vq.metrics.precision_recall import precision_recall
from tokenizers_vq.metrics.similarity import ms_ssim, psnr, ssim

Call = Callable[[], Any]
N, SIDE = 8, 256
ROWS, DIM = 1000, 512


def pictures() -> tuple[Tensor, Tensor]:
    """Return pairs of generated pictures, uint8 ``(8, 3, 256, 256)``."""
    data = SyntheticImages(N, SIDE)
    real = torch.stack([data[k] for k in range(N)])
    noise = 0.1 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    return to_uint8(real), to_uint8((real + noise).clamp(-1, 1))


def features() -> tuple[Tensor, Tensor]:
    """Return paired features of a falling spectrum, ``(1000, 512)`` float32."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, DIM, generator=generator) / torch.arange(1, DIM + 1).sqrt()
    return x, x + 0.1 * torch.randn(ROWS, DIM, generator=generator)


def similarity_pairs(real: Tensor, fake: Tensor) -> dict[str, tuple[str, int, Call, Call]]:
    """Return ours and torchmetrics' PSNR, SSIM and MS-SSIM, on uint8 pictures."""
    from torchmetrics.functional import image as peer

    def floats() -> tuple[Tensor, Tensor]:
        return fake.double(), real.double()

    window = {"data_range": 255.0, "sigma": 1.5, "kernel_size": 11}
    mean = {"data_range": 255.0, "reduction": "elementwise_mean", "dim": (1, 2, 3)}
    return {
        "PSNR": ("torchmetrics", N, lambda: float(psnr(real, fake).mean()),
                 lambda: float(peer.peak_signal_noise_ratio(*floats(), **mean))),
        "SSIM": ("torchmetrics", N, lambda: float(ssim(real, fake).mean()),
                 lambda: float(peer.structural_similarity_index_measure(*floats(), **window))),
        "MS-SSIM": ("torchmetrics", N, lambda: float(ms_ssim(real, fake).mean()),
                    lambda: float(peer.multiscale_structural_similarity_index_measure(
                        *floats(), **window, normalize="relu"))),
    }  # fmt: skip


def network_pairs(real: Tensor, fake: Tensor) -> dict[str, tuple[str, int, Call, Call]]:
    """Return ours and the peers' LPIPS and resizing."""
    import lpips
    from cleanfid.resize import build_resizer
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as tf1,
    )
    from torchvision import models

    torch.manual_seed(0)
    theirs = lpips.LPIPS(net="alex", pretrained=True, pnet_rand=True, verbose=False).eval()
    stack = models.alexnet(weights=None).features
    parts = [theirs.net.slice1, theirs.net.slice2, theirs.net.slice3, theirs.net.slice4,
             theirs.net.slice5]  # fmt: skip
    values = [p for part in parts for p in part.parameters()]
    for mine, its in zip(stack.parameters(), values, strict=True):
        mine.data.copy_(its.data)
    heads = [getattr(theirs, f"lin{k}").model[1].weight.flatten() for k in range(5)]
    ours = LPIPS(stack, heads, TAPS["alex"]).eval()
    x, y = real / 127.5 - 1, fake / 127.5 - 1
    images = [one.permute(1, 2, 0).numpy() for one in real]
    resize = build_resizer("clean")
    return {
        "LPIPS-alex": ("lpips", N, lambda: float(ours(x, y).mean()),
                       lambda: float(theirs(x, y).mean())),
        "resize tf1": ("torch-fidelity", N, lambda: float(tf1_bilinear(real).mean()),
                       lambda: float(tf1(real.float(), size=(299, 299),
                                         align_corners=False).mean())),
        "resize clean": ("clean-fid", N, lambda: float(clean_bicubic(real).mean()),
                         lambda: sum(float(resize(one).mean()) for one in images) / N),
    }  # fmt: skip


def distribution_pairs() -> dict[str, tuple[str, int, Call, Call]]:
    """Return ours and the peers' distances of kept features."""
    from cleanfid import fid as clean
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = features()
    quiet = {"verbose": False}

    def fidelity() -> float:
        statistics = [fid_features_to_statistics(one) for one in (x, y)]
        return float(fid_statistics_to_metric(*statistics, **quiet)["frechet_inception_distance"])

    def cleanly() -> float:
        a, b = (fid_features_to_statistics(one) for one in (x, y))
        return float(clean.frechet_distance(a["mu"], a["sigma"], b["mu"], b["sigma"]))

    def streamed() -> float:
        both = []
        for one in (x, y):
            both.append(Moments(DIM))
            for batch in one.split(100):
                both[-1].add(batch)
        return moments_distance(*both)

    kid = {"kid_subset_size": ROWS, "kid_subsets": 1, **quiet}
    prc = {"prc_neighborhood": 3, "prc_batch_size": 1000, **quiet}
    return {
        "Frechet distance": ("torch-fidelity", ROWS, lambda: frechet_distance(x, y), fidelity),
        "Frechet distance, again": ("clean-fid", ROWS, lambda: frechet_distance(x, y), cleanly),
        "Frechet distance, streamed": ("torch-fidelity", ROWS, streamed, fidelity),
        "kernel distance": ("torch-fidelity", ROWS, lambda: kernel_distance(x, y, paired=False),
                            lambda: kid_features_to_metric(x, y, **kid)[
                                "kernel_inception_distance_mean"]),
        "Inception Score": ("torch-fidelity", ROWS, lambda: inception_score(20 * x),
                            lambda: isc_features_to_metric(20 * x, splits=1, shuffle=False)[
                                "inception_score_mean"]),
        "precision, recall": ("torch-fidelity", ROWS, lambda: sum(precision_recall(x, y)) / 2,
                              lambda: sum(prc_features_to_metric(y, x, **prc)[k]
                                          for k in ("precision", "recall")) / 2),
    }  # fmt: skip


def measured(ours: Call, theirs: Call, turns: int) -> dict[str, float]:
    """Return the values and the least CPU seconds of both, which take turns."""
    found = {"value": float(ours()), "their_value": float(theirs())}
    found |= {"seconds": float("inf"), "their_seconds": float("inf")}
    for _ in range(turns):
        for key, call in (("seconds", ours), ("their_seconds", theirs)):
            start = time.process_time()
            call()
            found[key] = min(found[key], time.process_time() - start)
    return found


def markdown(data: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Image metrics, ours and theirs", "", f"`{data['command']}`", "",
        f"{N} pairs of {SIDE} px pictures, or {ROWS:,} pairs of {DIM} features; one thread, least "
        "CPU time of turns. Speed is items per second; above 1 the ratio favours ours.", "",
        "| metric | library | ours /s | theirs /s | ratio | our value | theirs | commit |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]  # fmt: skip
    for name, row in data["rows"].items():
        mine, its = row["n"] / row["seconds"], row["n"] / row["their_seconds"]
        lines.append(
            f"| {name} | {row['library']} | {results.number(mine)} | {results.number(its)} | "
            f"{mine / its:.2f} | {row['value']:.6g} | {row['their_value']:.6g} | "
            f"{row['commit']} |"
        )
    environment = data["environment"]
    versions = f"{data['libraries']}; torch {environment['versions']['torch']}"
    lines += ["", f"{versions}; {environment['machine']}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every pair, write the JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("outputs/metrics"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="these rows anew; the others stay as they are")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    real, fake = pictures()
    pairs = similarity_pairs(real, fake) | network_pairs(real, fake) | distribution_pairs()
    known = options.out.with_suffix(".json")
    rows = json.loads(known.read_text())["rows"] if options.only else {}
    environment = results.environment("cpu")
    with torch.inference_mode():
        for name in options.only or pairs:
            library, n, ours, theirs = pairs[name]
            found = measured(ours, theirs, options.turns)
            commit = (environment["commit"] or "unknown")[:10]
            rows[name] = {"library": library, "n": n, "commit": commit, **found}
            print(name, rows[name], flush=True)
    libraries = ("torchmetrics", "torch-fidelity", "clean-fid", "lpips")
    data = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/metrics.py -o benchmarks/results/metrics",
        "rows": rows,
        "libraries": ", ".join(f"{one} {version(one)}" for one in libraries),
        "environment": environment,
    }
    results.write_json(options.out.with_suffix(".json"), data)
    write_atomically(options.out.with_suffix(".md"), markdown(data))


if __name__ == "__main__":
    main()
