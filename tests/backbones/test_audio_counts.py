"""Parameters of the published audio networks, those of weight normalisation included."""

import pytest
import torch

from tokenizers_vq.configs import read_config
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

COUNTS = {  # encoder, decoder
    "seanet_encodec_24k": (7_425_792, 7_426_018),  # 14.85 M
    "seanet_encodec_48k": (7_428_336, 7_427_958),  # 14.86 M
    "seanet_encodec_32k": (28_441_984, 28_442_690),  # 56.88 M
    "vocos_wavtokenizer_75": (8_802_816, 61_961_472 + 985_858),  # 80.55 M with 8.80 never run
    "vocos_wavtokenizer_40": (8_303_104, 61_961_472 + 1_847_138),
    "vocos_languagecodec": (7_425_792, 11_061_888 + 493_570),  # 26.41 M with 7.43 never run
    "seanet_speechtokenizer": (67_705_856, 35_182_530),  # 103.68 M with 787 200 of distillation
    "whisper_s3_v1_50hz": (123_466_240, 0),
    "whisper_s3_v1_25hz": (123_466_240, 0),
    "whisper_s3_v2": (123_704_320 + 10_248, 0),  # the map to 8 channels is the head's upstream
    "whisper_s3_v3": (242_009_608, 0),  # 12 layers
    "whisper_glm4_voice": (320_227_840, 0),
    "xy_16k": (260_202_240, 256_265_938),  # 519.62 M with 3 152 896 around the codebooks
}


@pytest.mark.parametrize("name", COUNTS)
def test_networks_have_their_published_size(name):
    config = read_config("backbone", name)
    shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
    with torch.device("meta"):
        parts = [build(side, config[side], **shared) for side in ("encoder", "decoder")]
    assert tuple(sum(p.numel() for p in part.parameters()) for part in parts) == COUNTS[name]
