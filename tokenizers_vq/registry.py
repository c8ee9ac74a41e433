"""Every part that a published config can name: literal tables ``name -> "module:Class"``.

The same word is the registry key, the file stem, the config stem and the test stem, so
``git grep -w fsq`` finds all of it. A third party adds a part with one line,
``QUANTIZERS["mine"] = "my_package:Mine"``.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tokenizers_vq.errors import ConfigError, unknown_name, unknown_option

QUANTIZERS = {
    "binary_mapper": "tokenizers_vq.quantizers.binary_mapper:BinaryMapper",
    "bsq": "tokenizers_vq.quantizers.bsq:BSQ",
    "dithered_fsq": "tokenizers_vq.quantizers.dithered_fsq:DitheredFSQ",
    "ecsq": "tokenizers_vq.quantizers.ecsq:ECSQ",
    "factorized": "tokenizers_vq.quantizers.factorized:FactorizedVQ",
    "folded": "tokenizers_vq.quantizers.folded:Folded",
    "fsp": "tokenizers_vq.quantizers.fsp:FSP",
    "fsq": "tokenizers_vq.quantizers.fsq:FSQ",
    "gaussian": "tokenizers_vq.quantizers.gaussian:Gaussian",
    "grouped": "tokenizers_vq.quantizers.grouped:Grouped",
    "gumbel": "tokenizers_vq.quantizers.gumbel:Gumbel",
    "hierarchical": "tokenizers_vq.quantizers.hierarchical:Hierarchical",
    "ibq": "tokenizers_vq.quantizers.ibq:IBQ",
    "latent": "tokenizers_vq.quantizers.latent:LatentQuantizer",
    "lattice": "tokenizers_vq.quantizers.lattice:Lattice",
    "lfq": "tokenizers_vq.quantizers.lfq:LFQ",
    "mcquic": "tokenizers_vq.quantizers.mcquic:McQuic",
    "mcrvq": "tokenizers_vq.quantizers.mcrvq:MCRVQ",
    "multi_scale": "tokenizers_vq.quantizers.multi_scale:MultiScale",
    "per_position": "tokenizers_vq.quantizers.per_position:PerPosition",
    "perturbed": "tokenizers_vq.quantizers.perturbed:Perturbed",
    "projected": "tokenizers_vq.quantizers.projected:Projected",
    "qinco": "tokenizers_vq.quantizers.qinco:QINCo",
    "random_projection": "tokenizers_vq.quantizers.random_projection:RandomProjection",
    "residual": "tokenizers_vq.quantizers.residual:Residual",
    "shared_index": "tokenizers_vq.quantizers.shared_index:SharedIndex",
    "rotated": "tokenizers_vq.quantizers.rotated:Rotated",
    "simvq": "tokenizers_vq.quantizers.simvq:SimVQ",
    "split_residual": "tokenizers_vq.quantizers.split_residual:SplitResidual",
    "temporal_scales": "tokenizers_vq.quantizers.temporal_scales:TemporalScales",
    "token_bridge": "tokenizers_vq.quantizers.token_bridge:TokenBridge",
    "vq": "tokenizers_vq.quantizers.vq:VectorQuantizer",
}
ENCODERS = {
    "absent": "tokenizers_vq.backbones.absent:AbsentEncoder",
    "alit": "tokenizers_vq.backbones.alit:ALITEncoder",
    "cnn2d": "tokenizers_vq.backbones.cnn2d:CNN2dEncoder",
    "cosmos_video": "tokenizers_vq.backbones.cosmos_video:CosmosVideoEncoder",
    "dac": "tokenizers_vq.backbones.dac:DACEncoder",
    "flextok": "tokenizers_vq.backbones.flextok:FlexTokEncoder",
    "fqgan": "tokenizers_vq.backbones.fqgan:FQGANEncoder",
    "karl": "tokenizers_vq.backbones.karl:KARLEncoder",
    "magvit2_video": "tokenizers_vq.backbones.magvit2_video:Magvit2VideoEncoder",
    "mamba_video": "tokenizers_vq.backbones.mamba_video:MambaVideoEncoder",
    "mimi": "tokenizers_vq.backbones.mimi:MimiEncoder",
    "motion": "tokenizers_vq.backbones.motion:MotionEncoder",
    "protein": "tokenizers_vq.backbones.protein:ProteinEncoder",
    "seanet": "tokenizers_vq.backbones.seanet:SEANetEncoder",
    "spectrum": "tokenizers_vq.backbones.spectrum:SpectrumEncoder",
    "taae": "tokenizers_vq.backbones.taae:TAAEEncoder",
    "titok": "tokenizers_vq.backbones.titok:TiTokEncoder",
    "triplane": "tokenizers_vq.backbones.triplane:TriplaneEncoder",
    "vit2d": "tokenizers_vq.backbones.vit2d:ViT2dEncoder",
    "vit_video": "tokenizers_vq.backbones.vit_video:ViTVideoEncoder",
    "whisper": "tokenizers_vq.backbones.whisper:WhisperEncoder",
    "xy": "tokenizers_vq.backbones.xy:XYEncoder",
}
DECODERS = {
    "absent": "tokenizers_vq.backbones.absent:AbsentDecoder",
    "alit": "tokenizers_vq.backbones.alit:ALITDecoder",
    "cnn2d": "tokenizers_vq.backbones.cnn2d:CNN2dDecoder",
    "cosmos_video": "tokenizers_vq.backbones.cosmos_video:CosmosVideoDecoder",
    "dac": "tokenizers_vq.backbones.dac:DACDecoder",
    "flextok": "tokenizers_vq.backbones.flextok:FlexTokDecoder",
    "fqgan": "tokenizers_vq.backbones.fqgan:FQGANDecoder",
    "karl": "tokenizers_vq.backbones.karl:KARLDecoder",
    "magvit2_video": "tokenizers_vq.backbones.magvit2_video:Magvit2VideoDecoder",
    "mamba_video": "tokenizers_vq.backbones.mamba_video:MambaVideoDecoder",
    "mimi": "tokenizers_vq.backbones.mimi:MimiDecoder",
    "motion": "tokenizers_vq.backbones.motion:MotionDecoder",
    "protein": "tokenizers_vq.backbones.protein:ProteinDecoder",
    "seanet": "tokenizers_vq.backbones.seanet:SEANetDecoder",
    "taae": "tokenizers_vq.backbones.taae:TAAEDecoder",
    "titok": "tokenizers_vq.backbones.titok:TiTokDecoder",
    "triplane": "tokenizers_vq.backbones.triplane:TriplaneDecoder",
    "vit2d": "tokenizers_vq.backbones.vit2d:ViT2dDecoder",
    "vit_video": "tokenizers_vq.backbones.vit_video:ViTVideoDecoder",
    "vocos": "tokenizers_vq.backbones.vocos:VocosDecoder",
    "xy": "tokenizers_vq.backbones.xy:XYDecoder",
}
METRICS = {
    "cmmd": "tokenizers_vq.metrics.cmmd:CMMD",
    "codebook": "tokenizers_vq.metrics.codebook:Codebook",
    "distillmos": "tokenizers_vq.metrics.distillmos:DistillMOS",
    "dists": "tokenizers_vq.metrics.dists:Dists",
    "dnsmos": "tokenizers_vq.metrics.dnsmos:DNSMOS",
    "fidelity": "tokenizers_vq.metrics.fidelity:Fidelity",
    "flicker": "tokenizers_vq.metrics.flicker:Flicker",
    "frames": "tokenizers_vq.metrics.frames:Frames",
    "inception_score": "tokenizers_vq.metrics.inception_score:InceptionScore",
    "mel_distance": "tokenizers_vq.metrics.mel_distance:MelDistance",
    "perceptual": "tokenizers_vq.metrics.perceptual:Perceptual",
    "pesq": "tokenizers_vq.metrics.pesq:PESQ",
    "plcmos": "tokenizers_vq.metrics.plcmos:PLCMOS",
    "precision_recall": "tokenizers_vq.metrics.precision_recall:PrecisionRecall",
    "si_sdr": "tokenizers_vq.metrics.si_sdr:SISDR",
    "similarity": "tokenizers_vq.metrics.similarity:Similarity",
    "speaker_similarity": "tokenizers_vq.metrics.speaker_similarity:SpeakerSimilarity",
    "stft_distance": "tokenizers_vq.metrics.stft_distance:STFTDistance",
    "stoi": "tokenizers_vq.metrics.stoi:STOI",
    "utmos": "tokenizers_vq.metrics.utmos:UTMOS",
    "visqol": "tokenizers_vq.metrics.visqol:ViSQOL",
    "voicing": "tokenizers_vq.metrics.voicing:Voicing",
    "wer": "tokenizers_vq.metrics.wer:WER",
}
DISCRIMINATORS = {
    "banded_mrd": "tokenizers_vq.discriminators.banded_mrd:BandedMRD",
    "blur_patchgan": "tokenizers_vq.discriminators.blur_patchgan:BlurPatchGAN",
    "dino": "tokenizers_vq.discriminators.dino:Dino",
    "ensemble": "tokenizers_vq.discriminators.ensemble:Ensemble",
    "mpd": "tokenizers_vq.discriminators.mpd:MPD",
    "mrd": "tokenizers_vq.discriminators.mrd:MRD",
    "ms_stft": "tokenizers_vq.discriminators.ms_stft:MSSTFT",
    "msd": "tokenizers_vq.discriminators.msd:MSD",
    "patchgan": "tokenizers_vq.discriminators.patchgan:PatchGAN",
    "spectrogram": "tokenizers_vq.discriminators.spectrogram:Spectrogram",
    "stylegan2": "tokenizers_vq.discriminators.stylegan2:StyleGAN2",
}
# what a training step runs in place of the plain forward of the tokenizer; never published
TRAINING_PASSES = {
    "plain": "tokenizers_vq.training.passes:Plain",
    "proxy_codes": "tokenizers_vq.training.proxy_codes:ProxyCodes",
    "semantic": "tokenizers_vq.training.semantic:Semantic",
}

TABLES = {
    "quantizer": QUANTIZERS,
    "encoder": ENCODERS,
    "decoder": DECODERS,
    "metric": METRICS,
    "discriminator": DISCRIMINATORS,
    "training_pass": TRAINING_PASSES,
}


def names(kind: str) -> list[str]:
    """Return the sorted names of one kind: quantizer, encoder, decoder, metric, discriminator."""
    return sorted(TABLES[kind])


def resolve(kind: str, name: str) -> type:
    """Import and return the class that ``name`` stands for.

    Raises:
        ConfigError: no part of that kind has the name.
    """
    table = TABLES[kind]
    if name not in table:
        raise unknown_name(kind, name, table)
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)  # type: ignore[no-any-return]


def build(kind: str, config: Mapping[str, Any], **shared: Any) -> Any:
    """Build the part that ``config`` describes.

    Parts nest as data: an option whose value is a mapping with a ``name``, a list of such, or
    ``{repeat: n, of: {...}}`` is built first. The class that nests says in the static method
    ``inner_dim(dim, count)`` which width its ``count`` inner parts get when they name none; one
    whose parts have no width says ``nests = True``.

    Args:
        kind: which table ``config["name"]`` is looked up in.
        config: plain data: ``name`` and the options of that class.
        **shared: options that all parts of a tokenizer share (``dim``, ``signal``); given to the
            class if it takes them and the config does not say otherwise.

    Raises:
        ConfigError: the name or an option does not exist, a required option is missing, or an
            option has nested parts and the class does not nest, or is of a type it cannot use.
    """
    if not isinstance(config, Mapping) or "name" not in config:
        raise ConfigError(f"{kind}: expected a mapping with a 'name'; got {config!r:.80}.")
    options = {key: value for key, value in config.items() if key != "name"}
    name = str(config["name"])
    cls = resolve(kind, name)
    takes = inspect.signature(cls).parameters
    for option in options:
        if option not in takes:
            raise unknown_option(kind, name, option, takes)
    options |= {key: value for key, value in shared.items() if key in takes and key not in options}
    required = [key for key, p in takes.items() if p.default is inspect.Parameter.empty]
    missing = [key for key in required if key not in options]
    if missing:
        raise ConfigError(f"{kind} '{name}': missing option {', '.join(missing)}.")
    for option, value in options.items():
        inner = _inner_configs(value)
        if inner is not None:
            inner_dim: Any = getattr(cls, "inner_dim", None)
            if inner_dim is None and not getattr(cls, "nests", False):
                raise ConfigError(
                    f"{kind} '{name}': option '{option}' takes no nested parts; got {value!r:.80}. "
                    "Give it plain values, or choose a part that nests others."
                )
            width = options.get("code_dim") or options.get("dim")
            named = all("dim" in one for one in inner)  # nothing is left to share out
            shares = inner_dim is not None and width is not None and not named
            dim = {"dim": inner_dim(width, len(inner))} if shares else {}
            options[option] = [build(kind, one, **{**shared, **dim}) for one in inner]
    return _made(cls, options, f"{kind} '{name}'")


def _made(cls: type, options: Mapping[str, Any], where: str) -> Any:
    """Call ``cls`` and say which part it was when a value is of a type it cannot use."""
    try:
        return cls(**options)
    except TypeError as error:
        raise ConfigError(
            f"{where}: expected options of other types; got TypeError: {error}. "
            f"Correct the {where.partition(' ')[0]} config."
        ) from error


def _inner_configs(value: Any) -> list[Mapping[str, Any]] | None:
    """Return the configs of the parts that ``value`` nests, or None if it is an ordinary option."""
    if isinstance(value, Mapping) and value and set(value) <= {"repeat", "of"}:
        count = value.get("repeat")
        if not isinstance(count, int) or count < 1 or "of" not in value:
            raise ConfigError(
                f"registry: expected {{repeat: n, of: {{name: ...}}}} with n of at least 1; got "
                f"{dict(value)!r:.80}. Give both."
            )
        return [value["of"]] * count
    if isinstance(value, list) and value and all(_names_a_part(item) for item in value):
        return value
    return [value] if _names_a_part(value) else None


def _names_a_part(value: Any) -> bool:
    return isinstance(value, Mapping) and "name" in value
