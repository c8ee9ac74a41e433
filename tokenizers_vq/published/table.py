"""Every published checkpoint that an importer here reads: where it is, and what it is.

A name is ``family.tag``. What the tensors determine is not repeated in ``config``. A licence of
None is one that we do not know: ask the authors before using the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint.

    Attributes:
        repo: Hugging Face repository, or None where the file is elsewhere.
        files: paths in the repository; more than one are merged.
        page: where to get a file that is not on the hub.
        config: upstream constructor values that the tensors do not determine.
        licence: SPDX name, or the authors' name of it; None if unknown.
        value_range: of the pictures the published code takes; ours always takes [-1, 1].
        weights: which weights, where the file has both.
        sha256: of the file, or how it begins; None if unknown.
    """

    repo: str | None
    files: tuple[str, ...]
    page: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    weights: str = "ema"
    sha256: str | None = None


UNIT = (0.0, 1.0)
HEIBOX = "https://heibox.uni-heidelberg.de/d/"
OMMER = "https://ommer-lab.com/files/latent-diffusion/"


def _taming(page: str, file: str = "last.ckpt", **more: Any) -> Checkpoint:
    return Checkpoint(None, (file,), page, licence="MIT", **more)


def _hub(repo: str, *files: str, licence: str | None = None, **more: Any) -> Checkpoint:
    return Checkpoint(repo, files, licence=licence, **more)


def _seed(name: str, file: str) -> Checkpoint:
    return _hub(f"TencentARC/{name}", file, licence="Apache-2.0")


def _wetok(path: str, groups: int) -> Checkpoint:
    return _hub("GrayShine/WeTok", f"{path}/WeTok.ckpt", config={"num_codebooks": groups})


def _simvq(size: str) -> Checkpoint:
    return _hub("zyx123/SimVQ", f"vq_log/simvq_{size}/epoch=49-step=250250.ckpt", licence="MIT")


def _maskbit(name: str, **config: Any) -> Checkpoint:
    repo = f"markweber/{name}"
    return _hub(repo, f"{name}.bin", licence="Apache-2.0", value_range=UNIT, config=config)


def _bsq(image: int, bits: int, group: int) -> Checkpoint:
    network = {"image_size": image, "patch_size": 8, "width": 768, "layers": 12, "heads": 12}
    config = {
        "vitconfig": {**network, "mlp_ratio": 4},
        "embed_dim": bits,
        "embed_group_size": group,
        "l2_norm": True,
        "post_q_l2_norm": True,
        "clamp_range": [-1, 1],
        "analytic": group == 1,
    }
    page = "https://github.com/zhaoyue-zephyrus/bsq-vit"
    return Checkpoint(None, ("checkpoint.pt",), page, config, licence="MIT")


def _titok(repo: str, sizes: str, tokens: int, width: int, codes: int, **more: Any) -> Checkpoint:
    """Return a checkpoint with learned latents.

    Args:
        repo: Hugging Face repository.
        sizes: of encoder and decoder, their first letters.
        tokens: number of latents.
        width: of the codes.
        codes: number of codes; 0 for a continuous latent.
        **more: further values of the model, and ``file``.
    """
    names = {"s": "small", "b": "base", "l": "large"}
    file = more.pop("file", "model.safetensors")
    legacy = codes == 4096  # of two stages, normalised
    model = {
        "codebook_size": codes or 4096,
        "token_size": width,
        "use_l2_norm": legacy,
        "commitment_cost": 0.25,
        "vit_enc_model_size": names[sizes[0]],
        "vit_dec_model_size": names[sizes[-1]],
        "vit_enc_patch_size": 16,
        "vit_dec_patch_size": 16,
        "num_latent_tokens": tokens,
        "finetune_decoder": legacy,
        **({} if legacy else {"is_legacy": False}),
        **({} if codes else {"quantize_mode": "vae"}),
        **more,
    }
    config = {"model": {"vq_model": model}, "dataset": {"preprocessing": {"crop_size": 256}}}
    return _hub(repo, file, licence="Apache-2.0", value_range=UNIT, config=config)


def _titok_in1k(tag: str, *sizes: Any) -> Checkpoint:
    return _titok(f"yucornetto/tokenizer_titok_{tag}_imagenet", *sizes)


def _ta_titok(tag: str, *sizes: Any) -> Checkpoint:
    return _titok(f"turkeyju/tokenizer_tatitok_{tag}", *sizes)


def _one_d_piece(size: str) -> Checkpoint:
    repo = f"turing-motors/One-D-Piece-{size.upper()}-256"
    file = "pytorch_model.bin"
    return _titok(repo, size, 256, 12, 4096, file=file, strict_length_assertion=False)


def _fqgan(kind: str, stride: int) -> Checkpoint:
    return _hub("ZechenBai/FQGAN", f"fqgan_{kind}_ds{stride}.pt")


def _flextok(tag: str) -> Checkpoint:
    return _hub(f"EPFL-VILAB/flextok_{tag}", "model.safetensors", licence="Apple-AMLR")


def _cosmos(name: str) -> Checkpoint:
    licence = "NVIDIA Open Model License"
    return _hub(f"nvidia/{name}", "encoder.jit", "decoder.jit", licence=licence)


def _cosmos_dv(name: str, time: int, space: int) -> Checkpoint:
    files, licence = ("encoder.jit", "decoder.jit"), "NVIDIA Open Model License"
    config = {"temporal_compression": time, "spatial_compression": space}
    return _hub(f"nvidia/{name}", *files, licence=licence, config=config)


def _s3(model: str, file: str, sha256: str | None = None, **config: Any) -> Checkpoint:
    page = f"https://www.modelscope.cn/models/{model}"
    return Checkpoint(None, (file,), page, config, licence="Apache-2.0", sha256=sha256)


def _at(page: str, file: str, **more: Any) -> Checkpoint:
    return Checkpoint(None, (file,), page, **more)


def _encodec(file: str, **more: Any) -> Checkpoint:
    return _at(f"https://dl.fbaipublicfiles.com/encodec/v0/{file}", file, **more)


def _dac(version: str, file: str) -> Checkpoint:
    page = f"https://github.com/descriptinc/descript-audio-codec/releases/download/{version}/{file}"
    return _at(page, file, licence="MIT")


def _snac(kilohertz: int, strides: list[int], **config: Any) -> Checkpoint:
    values = {"sampling_rate": 1000 * kilohertz, "vq_strides": strides, **config}
    if kilohertz == 44:
        values["sampling_rate"] = 44100
    repo = f"hubertsiuzdak/snac_{kilohertz}khz"
    return _hub(repo, "pytorch_model.bin", licence="MIT", config=values)


def _wavtokenizer(repo: str, file: str) -> Checkpoint:
    return _hub(f"novateur/{repo}", file, licence="MIT")


def _simvq_audio(size: str) -> Checkpoint:
    file = f"vq_audio_log/simvq_{size}/1second/epoch=49-step=138600.ckpt"
    return _hub("zyx123/SimVQ", file, licence="MIT")


CHECKPOINTS: dict[str, Checkpoint] = {
    "taming.in1k_f16_1024": _taming(HEIBOX + "8088892a516d4e3baf92/"),
    "taming.in1k_f16_16384": _hub(
        "Somnai/pytti-vqgan-checkpoints", "imagenet/imagenet.ckpt", licence="MIT",
        sha256="845a6880",
    ),
    "taming.openimages_f8_gumbel": _taming(HEIBOX + "2e5662443a6b4307b470/"),
    "taming.ldm_vq_f8": _taming(OMMER + "vq-f8.zip", "model.ckpt"),
    "taming.ldm_vq_f8_n256": _taming(OMMER + "vq-f8-n256.zip", "model.ckpt"),
    **{f"kl_vae.ldm_f{n}": _taming(f"{OMMER}kl-f{n}.zip", "model.ckpt") for n in (4, 8, 16, 32)},
    "kl_vae.mar_kl16": _taming("https://github.com/LTH14/mar", "kl16.ckpt"),
    "llamagen.vq16_c2i": _hub("FoundationVision/LlamaGen", "vq_ds16_c2i.pt", licence="MIT"),
    "llamagen.vq8_c2i": _hub("FoundationVision/LlamaGen", "vq_ds8_c2i.pt", licence="MIT"),
    "llamagen.vq16_c2i_training": _hub(
        "FoundationVision/LlamaGen", "vq_ds16_c2i_training.pt", licence="MIT"
    ),
    "llamagen.vq16_t2i": _hub("peizesun/llamagen_t2i", "vq_ds16_t2i.pt", licence="MIT"),
    "open_magvit2.in1k_256_l": _seed(
        "Open-MAGVIT2-Tokenizer-256-resolution", "imagenet_256_L.ckpt"
    ),
    "open_magvit2.in1k_128_l": _seed(
        "Open-MAGVIT2-Tokenizer-128-resolution", "imagenet_128_L.ckpt"
    ),
    "open_magvit2.pretrain_256_16384": _seed(
        "Open-MAGVIT2-Tokenizer-16384-Pretrain", "pretrain256_16384.ckpt"
    ),
    "open_magvit2.pretrain_256_262144": _seed(
        "Open-MAGVIT2-Tokenizer-262144-Pretrain", "pretrain256_262144.ckpt"
    ),
    "open_magvit2_video.ucf101_128": _seed(
        "Open-MAGVIT2-Tokenizer-262144-Video", "video_128_262144.ckpt"
    ),
    "ibq.in1k_1024": _seed("IBQ-Tokenizer-1024", "imagenet256_1024.ckpt"),
    "ibq.in1k_8192": _seed("IBQ-Tokenizer-8192", "imagenet256_8192.ckpt"),
    "ibq.in1k_16384": _seed("IBQ-Tokenizer-16384", "imagenet256_16384.ckpt"),
    "ibq.in1k_262144": _seed("IBQ-Tokenizer-262144", "imagenet256_262144.ckpt"),
    "ibq.pretrain_16384": _seed("IBQ-Tokenizer-16384-Pretrain", "IBQ_pretrain_16384.ckpt"),
    "ibq.pretrain_262144": _seed("IBQ-Tokenizer-262144-Pretrain", "IBQ_pretrain_262144.ckpt"),
    "wetok.general_ratio24": _wetok("GeneralDomain/compratio24", 8),
    "wetok.general_ratio48": _wetok("GeneralDomain/compratio48", 4),
    "wetok.general_ratio192": _wetok("GeneralDomain/compratio192", 4),
    "wetok.general_ratio768": _wetok("GeneralDomain/compratio768", 4),
    "wetok.in1k_f8": _wetok("ImageNet/downsample8", 4),
    "wetok.in1k_f16": _wetok("ImageNet/downsample16", 4),
    "simvq.in1k_128_1k": _simvq("1k"),
    "simvq.in1k_128_8k": _simvq("8k"),
    "simvq.in1k_128_65k": _simvq("65k"),
    "simvq.in1k_128_262k": _simvq("262k"),
    "maskgit_vqgan.in1k_f16": _hub(
        "fun-research/TiTok", "maskgit-vqgan-imagenet-f16-256.bin", licence="Apache-2.0",
        value_range=UNIT,
    ),
    "maskgit_vqgan.in1k_f16_maskbit": _maskbit("maskgit_tokenizer"),
    "vqgan_plus.in1k_paper": _maskbit("vqgan_plus_paper"),
    "vqgan_plus.in1k_12bit": _maskbit("vqgan_plus_12bit"),
    "maskbit.in1k_10bit": _maskbit("maskbit_tokenizer_10bit"),
    "maskbit.in1k_12bit": _maskbit("maskbit_tokenizer_12bit"),
    "maskbit.in1k_14bit": _maskbit("maskbit_tokenizer_14bit"),
    "maskbit.in1k_16bit": _maskbit("maskbit_tokenizer_16bit"),
    "maskbit.in1k_18bit": _maskbit("maskbit_tokenizer_18bit"),
    "var.in1k": _hub("FoundationVision/var", "vae_ch160v4096z32.pth", licence="MIT"),
    "cosmos_di.f8": _cosmos("Cosmos-0.1-Tokenizer-DI8x8"),
    "cosmos_di.f16": _cosmos("Cosmos-0.1-Tokenizer-DI16x16"),
    "cosmos_di.f8_360p": _cosmos("Cosmos-Tokenize1-DI8x8-360p"),
    "cosmos_di.f16_360p": _cosmos("Cosmos-Tokenize1-DI16x16-360p"),
    "cosmos_dv.dv4x8x8": _cosmos_dv("Cosmos-0.1-Tokenizer-DV4x8x8", 4, 8),
    "cosmos_dv.dv8x8x8": _cosmos_dv("Cosmos-0.1-Tokenizer-DV8x8x8", 8, 8),
    "cosmos_dv.dv8x16x16": _cosmos_dv("Cosmos-0.1-Tokenizer-DV8x16x16", 8, 16),
    "fqgan.dual_f16": _fqgan("dual", 16),
    "fqgan.dual_f8": _fqgan("dual", 8),
    "fqgan.triple_f16": _fqgan("triple", 16),
    "fqgan.triple_f8": _fqgan("triple", 8),
    "bsq_vit.in1k_256_18bit": _bsq(256, 18, 1),
    "bsq_vit.in1k_256_18bit_group9": _bsq(256, 18, 9),
    "bsq_vit.in1k_256_36bit": _bsq(256, 36, 1),
    "bsq_vit.in1k_128_18bit": _bsq(128, 18, 9),
    "titok.l32": _titok_in1k("l32", "ll", 32, 12, 4096),
    "titok.b64": _titok_in1k("b64", "bb", 64, 12, 4096),
    "titok.s128": _titok_in1k("s128", "ss", 128, 12, 4096),
    "titok.bl64_vq8k": _titok_in1k("bl64_vq8k", "bl", 64, 64, 8192),
    "titok.bl128_vq8k": _titok_in1k("bl128_vq8k", "bl", 128, 64, 8192),
    "titok.sl256_vq8k": _titok_in1k("sl256_vq8k", "sl", 256, 64, 8192),
    "titok.ll32_vae": _titok_in1k("ll32_vae_c16", "ll", 32, 16, 0),
    "titok.bl64_vae": _titok_in1k("bl64_vae_c16", "bl", 64, 16, 0),
    "titok.bl128_vae": _titok_in1k("bl128_vae_c16", "bl", 128, 16, 0),
    "ta_titok.bl32_vq": _ta_titok("bl32_vq", "bl", 32, 64, 8192),
    "ta_titok.bl64_vq": _ta_titok("bl64_vq", "bl", 64, 64, 8192),
    "ta_titok.bl128_vq": _ta_titok("bl128_vq", "bl", 128, 64, 8192),
    "ta_titok.bl32_vae": _ta_titok("bl32_vae", "bl", 32, 16, 0),
    "ta_titok.bl64_vae": _ta_titok("bl64_vae", "bl", 64, 16, 0),
    "ta_titok.sl128_vae": _ta_titok("sl128_vae", "sl", 128, 16, 0),
    "one_d_piece.s256": _one_d_piece("s"),
    "one_d_piece.b256": _one_d_piece("b"),
    "one_d_piece.l256": _one_d_piece("l"),
    "flextok.d12_d12_in1k": _flextok("d12_d12_in1k"),
    "flextok.d18_d18_in1k": _flextok("d18_d18_in1k"),
    "flextok.d18_d28_in1k": _flextok("d18_d28_in1k"),
    "flextok.d18_d28_dfn": _flextok("d18_d28_dfn"),
    "encodec.24khz": _encodec("encodec_24khz-d7cc33bc.th", sha256="d7cc33bc"),
    "encodec.48khz": _encodec("encodec_48khz-7e698e3e.th", sha256="7e698e3e"),
    "dac.44khz_8kbps": _dac("0.0.1", "weights.pth"),
    "dac.24khz": _dac("0.0.4", "weights_24khz.pth"),
    "dac.16khz": _dac("0.0.5", "weights_16khz.pth"),
    "dac.44khz_16kbps": _dac("1.0.0", "weights_44khz_16kbps.pth"),
    "snac.24khz": _snac(24, [4, 2, 1]),
    "snac.32khz": _snac(32, [8, 4, 2, 1], attn_window_size=32),
    "snac.44khz": _snac(44, [8, 4, 2, 1], attn_window_size=32),
    "bigcodec.16khz": _hub("Alethia/BigCodec", "bigcodec.pt", licence="MIT"),
    "mimi.24khz": _hub("kyutai/mimi", "model.safetensors", licence="CC-BY-4.0"),
    "mimi.24khz_native": _hub(
        "kyutai/moshiko-pytorch-bf16", "tokenizer-e351c8d8-checkpoint125.safetensors",
        licence="CC-BY-4.0", sha256="e351c8d8",
    ),
    "vocos.encodec_24khz": _hub("charactr/vocos-encodec-24khz", "pytorch_model.bin", licence="MIT"),
    "wavtokenizer.small_75": _wavtokenizer(
        "WavTokenizer", "WavTokenizer_small_320_24k_4096.ckpt"
    ),
    "wavtokenizer.small_40": _wavtokenizer(
        "WavTokenizer", "WavTokenizer_small_600_24k_4096.ckpt"
    ),
    "wavtokenizer.medium_speech_75": _wavtokenizer(
        "WavTokenizer-medium-speech-75token", "wavtokenizer_medium_speech_320_24k_v2.ckpt"
    ),
    "wavtokenizer.large_speech_75": _wavtokenizer(
        "WavTokenizer-large-speech-75token", "wavtokenizer_large_speech_320_v2.ckpt"
    ),
    "wavtokenizer.large_unify_40": _wavtokenizer(
        "WavTokenizer-large-unify-40token", "wavtokenizer_large_unify_600_24k.ckpt"
    ),
    "simvq_audio.4k": _simvq_audio("4k"),
    "simvq_audio.8k": _simvq_audio("8k"),
    "simvq_audio.65k": _simvq_audio("65k"),
    "simvq_audio.262k": _simvq_audio("262k"),
    "speechtokenizer.hubert_avg": _hub(
        "fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg/SpeechTokenizer.pt",
        licence="Apache-2.0",
    ),
    "speechtokenizer.anygpt": _hub("fnlp/AnyGPT-speech-modules", "speechtokenizer/ckpt.dev"),
    "languagecodec.24khz": _at(
        "https://github.com/jishengpeng/Languagecodec", "languagecodec.ckpt"
    ),
    "dm_codec.lm_sm": _at("https://github.com/mubtasimahasan/DM-Codec", "dm_codec_lm_sm.pt"),
    "s3_tokenizer.v1_50hz": _s3("iic/CosyVoice-300M", "speech_tokenizer_v1.onnx", "23b5a723"),
    "s3_tokenizer.v1_25hz": _s3(
        "iic/CosyVoice-300M-25Hz", "speech_tokenizer_v1.onnx", "56285ddd",
        name="speech_tokenizer_v1_25hz",
    ),
    "s3_tokenizer.v2": _s3("iic/CosyVoice2-0.5B", "speech_tokenizer_v2.onnx", "d43342aa"),
    "s3_tokenizer.v3": _s3("FunAudioLLM/Fun-CosyVoice3-0.5B", "speech_tokenizer_v3.onnx"),
    "glm4_voice.tokenizer": _hub("THUDM/glm-4-voice-tokenizer", "model.safetensors"),
    "xy_tokenizer.12hz": _hub("fdugyt/XY_Tokenizer", "xy_tokenizer.ckpt"),
    "xy_tokenizer.ttsd_v0": _hub("fnlp/XY_Tokenizer_TTSD_V0", "xy_tokenizer.ckpt"),
    "t2m_gpt.humanml3d": _at(
        "https://github.com/Mael-zys/T2M-GPT", "VQVAE/net_last.pth"
    ),
    "momask.humanml3d": _at("https://github.com/EricGuo5513/momask-codes", "net_best_fid.tar"),
    "alit.small_in100": Checkpoint(
        None, ("alit_small.pth",), "https://github.com/ShivamDuggal4/adaptive-length-tokenizer",
        value_range=UNIT,
    ),
    "karl.small_in1k": Checkpoint(
        None, ("karl_small.pth",), "https://github.com/ShivamDuggal4/karl", value_range=UNIT
    ),
}  # fmt: skip
