"""DM-Codec: the network and the files are those of SpeechTokenizer.

Reference:
    Ahasan et al., DM-Codec: Distilling Multimodal Representations for Speech Tokenization, 2024,
    https://arxiv.org/abs/2410.15017, section 3.1.
"""

from tokenizers_vq.published.speechtokenizer import FAMILY

__all__ = ["FAMILY"]
