"""Compare how codecs train with the published code: ``python scripts/parity_training.py F``.

F holds ``losses`` (pairs of sounds in ``io.safetensors``, what the published losses made of them in
``values.json``), ``discriminators`` (``keys_<name>.tsv``, sounds, and of each layer its shape, mean
and first numbers; weights are a function of their key and shape) and ``quantizers`` (rows, codes,
losses, averages after three steps). One row is printed for each of them; errors are the largest,
relative to the largest value of the reference (bound 1e-4), or of a discriminator's layer to the
mean size of its values (bound 1e-3: bins without sound are rounding).

Gradients at the latents of residual stacks are not compared: published stacks leave some of their
levels without a pull, here every level has one (docs/heads.md).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from parity_audio import generated
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear

from tokenizers_vq.discriminators.banded_mrd import BandedMRD
from tokenizers_vq.discriminators.ensemble import Ensemble
from tokenizers_vq.discriminators.mpd import MPD
from tokenizers_vq.discriminators.mrd import MRD
from tokenizers_vq.discriminators.ms_stft import MSSTFT
from tokenizers_vq.discriminators.msd import MSD
from tokenizers_vq.discriminators.spectrogram import Spectrogram
from tokenizers_vq.losses import distillation, spectral
from tokenizers_vq.losses.balancer import Balancer
from tokenizers_vq.metrics.si_sdr import si_sdr
from tokenizers_vq.published.keys import fold_weight_norm
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.bsq import BSQ
from tokenizers_vq.quantizers.factorized import FactorizedVQ
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.simvq import SimVQ
from tokenizers_vq.quantizers.vq import VectorQuantizer

BOUNDS = {"loss": 1e-4, "discriminator": 1e-3, "quantizer": 1e-4}
HEAD = ("| part | case | compared | largest error |", "|---|---|---|---:|")
SCALES = (1024, 2048, 512, 256, 128)
Row = tuple[str, str, str, float]
Loss = Callable[[Tensor, Tensor], Tensor]
State = Mapping[str, Tensor]


DISCRIMINATORS: dict[str, Callable[[], nn.Module]] = {
    "dac_24k": lambda: Ensemble([MPD(level=True, always_pad=True), BandedMRD()]),
    "wavtokenizer_dac_variant_batch2": lambda: Ensemble(
        [MPD(level=True, always_pad=True), BandedMRD(window="ones", frames="center")]
    ),
    "msstftd_3scale": MSSTFT,
    "msstftd_5scale_slope0.3": partial(MSSTFT, SCALES, slope=0.3),
    "st_mstftd32": partial(MSSTFT, SCALES),
    "st_mpd": MPD,
    "st_msd": MSD,
    "vocos_mpd_cond4": partial(MPD, skip=1),
    "vocos_mrd_cond4": MRD,
    "xcodec2_mpd": partial(MPD, width=16, post=2),
    "xcodec2_spec8": Spectrogram,
}


def losses_at(rate: int) -> dict[str, Loss]:
    """Return the losses by the name of their value at ``rate`` Hz."""
    frames = spectral.Spectrum(1024, frames="aligned")
    mel = spectral.MelSpectrum(frames, rate, 64, 64.0, power=2.0)
    found: dict[str, Loss] = {
        "dac_mel_train": spectral.dac_mel(rate),
        "dac_mel_default": spectral.dac_mel_distance(rate),
        "dac_stft_default": spectral.dac_stft_distance(),
        "dac_l1": lambda x, y: (x - y).abs().mean(),
        "dac_sisdr_loss_refx_esty": lambda x, y: -si_sdr(y, x).mean(),
        "encodec_msspec": spectral.MultiScaleMel(rate),
        "encodec_msspec_paper_alphas": spectral.MultiScaleMel(
            rate, 5, 11, f_min=0.0, alphas=True, normalized=False
        ),
        "encodec_mel": spectral.LogDistance([mel], added=True),
    }
    if rate == 24000:
        found["vocos_mel"] = spectral.vocos_mel()
    if rate == 16000:
        windows, hops = (2048, 512), (512, 128)
        found |= {
            "speechtokenizer_mel_weighted": spectral.speech_tokenizer_mel(),
            "xcodec2_mel": spectral.dac_mel(rate),
            "xcodec2_mrstft": spectral.MultiResolutionSTFT(windows, hops, windows),
            "pwg_mrstft_default": spectral.MultiResolutionSTFT(),
        }
        for i in range(4):
            only = [float(i == j) for j in range(4)]
            found[f"speechtokenizer_mel_scale{i}"] = spectral.speech_tokenizer_mel(weights=only)
    return found


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference by the largest reference; infinite where shapes differ."""
    if ours.shape != theirs.shape:
        return math.inf
    return float((ours.detach() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


def spectral_rows(folder: Path) -> Iterator[Row]:
    """Compare losses of pairs of sounds, of features, and the balancer's gradients."""
    io, values = (
        load_file(folder / "io.safetensors"),
        json.loads((folder / "values.json").read_text()),
    )
    for rate in (16000, 24000, 44100):
        x, y = io[f"ref_{rate}"], io[f"est_{rate}"]
        for name, loss in losses_at(rate).items():
            wanted = values.get(f"{name}_{rate}")
            if wanted is not None:
                error = abs(float(loss(x, y)) / wanted - 1)
                yield "loss", f"{name}_{rate}", "value", error
    pair = io["distill_student"], io["distill_teacher"]
    found = {"d_axis": distillation.d_axis(*pair), "t_axis_lambda1": distillation.t_axis(*pair)}
    for name, value in found.items():
        yield "loss", f"distill_{name}", "value", abs(float(value) / values[f"distill_{name}"] - 1)
    yield "loss", "balancer", "gradient, 3 steps", balancer_error(io)


def balancer_error(io: State) -> float:
    """Return the error of the balanced gradients of four losses in three steps."""
    balancer, worst = Balancer(), 0.0
    weights = {"a": 4.0, "b": 4.0, "c": 0.1, "d": 2.0}
    for step in range(3):
        y, target = io[f"bal_in_{step}"].clone().requires_grad_(), io[f"bal_tgt_{step}"]
        losses = {
            "a": (y - target).abs().mean(),
            "b": 100 * (y - target).square().mean(),
            "c": (3 * y).sin().mean(),
            "d": (y - target).pow(4).mean(),
        }
        (gradient,) = torch.autograd.grad(balancer(losses, weights, y), y)
        worst = max(worst, relative(gradient, io[f"bal_grad_{step}"]))
    return worst


def fill(panel: nn.Module, keys: Path) -> None:
    """Give the convolutions of ``panel``, in order, the weights of the keys of a published one."""
    lines = [line.split("\t") for line in keys.read_text().splitlines() if line.strip()]
    shapes = {key: tuple(json.loads(shape.replace("(", "[").replace(",)", "]").replace(")", "]")))
              for key, shape, *_ in lines}  # fmt: skip
    parts: dict[str, dict[str, Tensor]] = {}
    for key, shape in shapes.items():
        module, _, leaf = key.rpartition(".")
        parts.setdefault(module, {})[leaf] = generated(key, shape)
    convs = [m for m in panel.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    theirs = [tensors for tensors in parts.values() if "bias" in tensors]
    for conv, tensors in zip(convs, theirs, strict=True):
        conv.bias.data.copy_(tensors["bias"])
        if "weight_orig" in tensors:  # divided by a norm that power iteration finds
            normed = conv.parametrizations.weight
            normed.original.data.copy_(tensors["weight_orig"])
            normed[0]._u.copy_(tensors["weight_u"])
            normed[0]._v.copy_(tensors["weight_v"])
        elif "weight" in tensors:
            conv.weight.copy_(tensors["weight"])
        else:
            conv.weight = fold_weight_norm(tensors)["weight"]  # ours is weight-normed, too


@torch.no_grad()
def judged(folder: Path) -> Iterator[Row]:
    """Compare what each layer of each judge sees."""
    io = load_file(folder / "io.safetensors")
    for name, build in DISCRIMINATORS.items():
        if f"{name}/input" not in io:
            continue
        panel = build().eval()
        fill(panel, folder / f"keys_{name}.tsv")
        x = io[f"{name}/input"]
        found = panel.judge(x if x.ndim == 3 else x[:, None])
        inside = {k.removeprefix(f"{name}/").removesuffix("/first64") for k in io
                  if k.startswith(f"{name}/") and k.endswith("/first64")}  # fmt: skip
        features = next((n for n in "21" if f"{n}/0/0" in inside), None)
        conditioned = "cond" in name  # logits that also depend on a label we have no use for
        layers, worst = 0, 0.0
        for i, one in enumerate(found):
            path = f"{i}" if features is None else f"{features}/{i}"
            ours = [*one.features, one.logits]
            count = sum(key.startswith(f"{path}/") for key in inside)
            logits = f"0/{i}" if count == len(one.features) else f"{path}/{count - 1}"
            names = [f"{path}/{layer}" for layer in range(len(one.features))] + [logits]
            for key, value in list(zip(names, ours, strict=True))[: -1 if conditioned else None]:
                layers += 1
                worst = max(worst, layer_error(value, io, f"{name}/{key}"))
        yield "discriminator", name, f"{layers} layers", worst


def layer_error(ours: Tensor, io: State, key: str) -> float:
    """Return the error of a layer, by its mean size."""
    size = io[f"{key}/absmean"]
    if ours.numel() != int(io[f"{key}/shape"].prod()):
        return math.inf
    flat = ours.flatten()
    first = (flat[:64] - io[f"{key}/first64"][: flat.numel()]).abs().max()
    rest = max(abs(flat.mean() - io[f"{key}/mean"]), abs(flat.abs().mean() - size))
    return float(max(first, rest) / size)


def maps_of(stage: Quantizer, io: State, level: int) -> None:
    """Give a factorised stage the weights of DAC's level."""
    for ours, theirs in (("project_in", "in_proj"), ("project_out", "out_proj")):
        name = f"w.quantizers.{level}.{theirs}."
        tensors = {k.removeprefix(name): v for k, v in io.items() if k.startswith(name)}
        getattr(stage, ours).weight.copy_(fold_weight_norm(tensors)["weight"][..., 0])
        getattr(stage, ours).bias.copy_(tensors["bias"])
    stage.codebook.copy_(io[f"w.quantizers.{level}.codebook.weight"])


def ema_rvq(io: State) -> Iterator[tuple[str, float]]:
    """Three training steps of EnCodec's stack."""
    stages = [
        VectorQuantizer(codebook_size=32, code_dim=16, codebook_update="ema",
                        commitment_weight=1.0, restart_threshold=0.0) for _ in range(3)
    ]  # fmt: skip
    for i, stage in enumerate(stages):
        stage.cluster_size.fill_(5)  # as the case starts
        stage.codebook.copy_(io[f"init_embed_{i}"])
        stage.cluster_sum.copy_(5 * io[f"init_embed_{i}"])
    head = Residual(stages=stages).train()
    for step in range(3):
        out = head(io[f"x_{step}"].mT)
        head.update(io[f"x_{step}"].mT, out.indices)
        yield "codes", unequal(out.indices.permute(2, 0, 1), io[f"idx_{step}"])
        yield "output", relative(out.z_q.mT, io[f"out_{step}"])
        for i in range(3):
            yield "commitment", relative(out.terms[f"commitment/{i}"], io[f"commit_{step}"][i, 0])
    for i, stage in enumerate(stages):
        for ours, theirs in (
            ("codebook", "embed"), ("cluster_size", "cluster_size"), ("cluster_sum", "embed_avg"),
        ):  # fmt: skip
            yield "averages", relative(getattr(stage, ours), io[f"final_{theirs}_{i}"])


def dac_stack(io: State) -> Residual:
    """Return DAC's stack with its weights."""
    stages = [FactorizedVQ(24, codebook_size=64, code_dim=8) for _ in range(4)]
    with torch.no_grad():
        for i, stage in enumerate(stages):
            maps_of(stage, io, i)
    return Residual(24, stages=stages)


def dac_rvq(io: State) -> Iterator[tuple[str, float]]:
    """Losses and a codebook's gradient, and output of DAC's stack."""
    head = dac_stack(io)
    out = head(io["x"].mT)
    yield "codes", unequal(out.indices.mT, io["codes"])
    yield "output", relative(out.z_q.mT, io["z_q"])
    yield "output", relative(head.decode(io["codes"].mT.long()).mT, io["from_codes"])
    for ours, theirs in (("commitment", "commit"), ("codebook", "codebook_loss")):
        total = 4 * out.terms[ours]  # a sum over levels upstream
        yield "losses", relative(total[None], io[theirs])
    (4 * out.loss).backward()
    yield "gradient", relative(head.stages[0].codebook.grad, io["grad_codebook0"])


def dac_dropout(io: State) -> Iterator[tuple[str, float]]:
    """Output and losses of DAC's stack where items have fewer levels."""
    head, x = dac_stack(io).eval(), io["x"].mT
    codes = head.encode(x)
    kept = torch.arange(4) < io["n_quantizers_per_item"].long()[:, None]  # (B, levels)
    cut = codes.masked_fill(~kept[:, None], -1)
    yield "output", relative(head.decode(cut).mT, io["z_q"])


def sim_vq(io: State) -> Iterator[tuple[str, float]]:
    """Loss and the linear map's gradient of SimVQ."""
    head = SimVQ(16, codebook_size=128, bias=True)
    head.table.copy_(io["w.embedding.weight"])
    head.linear.load_state_dict(
        {part: io[f"w.embedding_proj.{part}"] for part in ("weight", "bias")}
    )
    x = io["x"].mT.clone().requires_grad_()
    out = head(x)
    yield "codes", unequal(out.indices.flatten(), io["indices"])
    yield "output", relative(out.z_q.mT, io["z_q"])
    yield "losses", relative(out.loss[None], io["loss"])
    (out.loss + out.z_q.sum()).backward()
    yield "gradient", relative(x.grad.mT, io["grad_x"])
    yield "gradient", relative(head.linear.weight.grad, io["grad_proj_w"])


def grids(io: State) -> Iterator[tuple[str, float]]:
    """The levels of stable-codec."""
    for levels in (17, 3, 5, 6):
        out = FSQ(levels=[levels] * 6, bound="symmetric")(io["x"])
        yield "codes", unequal(out.indices, io[f"idx_L{levels}"])
        yield "output", relative(out.z_q, io[f"codes_L{levels}"])


def inner_grid(io: State) -> Iterator[tuple[str, float]]:
    """The levels of S3 version 2."""
    out = FSQ(levels=[3] * 8, bound="inner")(linear(io["x"], io["w"], io["b"]))
    yield "codes", unequal(out.indices[..., 0], io["idx"])


def clamped_grid(io: State) -> Iterator[tuple[str, float]]:
    """The levels of X-Codec-2."""
    stage = FSQ(levels=[4] * 8, bound="clamp")
    head = Residual(32, stages=[stage], code_dim=8, soft_clamp=4 / 3)
    for side in ("project_in", "project_out"):
        parts = {part: io[f"w.{side}.{part}"] for part in ("weight", "bias")}
        getattr(head, side).load_state_dict(parts)
    out = head(io["x"])
    yield "codes", unequal(out.indices, io["idx"])
    yield "output", relative(out.z_q, io["out"])


def sphere(io: State) -> Iterator[tuple[str, float]]:
    """The signs of FocalCodec."""
    out = BSQ(bits=13, bit_order="big")(io["x"])
    yield "codes", unequal(out.indices[..., 0], io["toks"])
    yield "output", relative(out.z_q, io["codes"])


QUANTIZERS: dict[str, Callable[[State], Iterator[tuple[str, float]]]] = {
    "encodec_ema": ema_rvq,
    "dac_rvq": dac_rvq,
    "dac_dropout": dac_dropout,
    "simvq1d": sim_vq,
    "fsq_stable": grids,
    "fsq_s3v2": inner_grid,
    "fsq_xcodec2": clamped_grid,
    "bsq_focalcodec": sphere,
}


def unequal(ours: Tensor, theirs: Tensor) -> float:
    """Return the share of codes that differ."""
    return float((ours != theirs).float().mean()) if ours.shape == theirs.shape else math.inf


def quantized(folder: Path) -> Iterator[Row]:
    """Compare the heads."""
    io = load_file(folder / "io.safetensors")
    for name, compare in QUANTIZERS.items():
        places = ("dac_rvq/w", name) if name == "dac_dropout" else (name,)
        inside = {k.partition("/")[2]: v for k, v in io.items() if k.startswith(places)}
        errors = list(compare(inside)) if inside else []
        if errors:
            what = ", ".join(dict.fromkeys(kind for kind, _ in errors))
            yield "quantizer", name, what, max(error for _, error in errors)


PARTS = {"losses": spectral_rows, "discriminators": judged, "quantizers": quantized}


def main(argv: Sequence[str] | None = None) -> int:
    """Compare everything that the folder has; return the number of rows out of bound."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="with losses, discriminators and quantizers")
    folder = parser.parse_args(argv).folder
    failed = 0
    print(*HEAD, sep="\n", flush=True)
    for part, rows in PARTS.items():
        if (folder / part).is_dir():
            for kind, name, what, error in rows(folder / part):
                failed += not error <= BOUNDS[kind]
                print(f"| {kind} | `{name}` | {what} | {error:.1e} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
