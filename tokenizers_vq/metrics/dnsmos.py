"""DNSMOS P.835 and P.808, no reference needed, by the package ``speechmos``.

Reference:
    Reddy et al., DNSMOS P.835, 2021, https://arxiv.org/abs/2110.01763; Reddy et al., DNSMOS, 2020,
    https://arxiv.org/abs/2010.15258, for P.808.
"""

from __future__ import annotations

from torch import Tensor

from tokenizers_vq.metrics.speech import Column, SpeechMetric, check_sound

KEYS = {
    "dnsmos_ovrl": "ovrl_mos",
    "dnsmos_sig": "sig_mos",
    "dnsmos_bak": "bak_mos",
    "dnsmos_p808": "p808_mos",
}


class DNSMOS(SpeechMetric):
    """Overall, signal, background (P.835) and P.808 scores of the reconstruction at 16 kHz.

    The package repeats a shorter clip to 9.01 s and averages windows of 9.01 s, hop 1 s. The level
    is left as it is, so scores of two loudness policies are not comparable.
    """

    columns = tuple(Column(name, "MOS", True) for name in KEYS)
    packages = (("speechmos", "speechmos"), ("onnxruntime", "onnxruntime"), ("librosa", "librosa"))
    chunking = "windows of 9.01 s, hop 1 s; shorter clips repeated"

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return the four scores."""
        from speechmos import dnsmos

        check_sound(reconstruction=fake)
        found = dnsmos.run(fake.numpy(), 16000)
        return {name: float(found[key]) for name, key in KEYS.items()}
