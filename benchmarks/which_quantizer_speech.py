"""Which quantizer for speech? As which_quantizer.py, with a small causal codec.

    python benchmarks/which_quantizer_speech.py --train SPEECH --heldout OTHER_SPEECH

12 bits for each of 62.5 tokens per second of 16 kHz: 0.75 kb/s, a rate at which no waveform
survives; so heads are compared by the distance of mel spectra. The backbone works on spectra: one
on waveforms learns nothing in as many steps. Writes ``which_quantizer_speech.json``, ``.md`` and
``.png`` to the results folder.
"""

import sys

from which_quantizer import Bench, main, width

from tokenizers_vq.data.audio import AudioFolder

RATE = 16000
SPEECH = Bench(
    name="which_quantizer_speech",
    common=[
        "backbone=spectrum_16k", "objective=audio_speech", "data=audio_folder",
        "data.train.split=all", "data.train.seconds=0.5", "data.batch_size=8",
        "data.num_workers=0", "data.repeat=8", "data.val.split=all",
        "optim.lr=1e-3", "optim.warmup_steps=50",
        "trainer.val_check_interval=1000000", "~callbacks.recon", "logger=none",
    ],
    protocol={
        "name": "which_quantizer_speech",
        "signal": "audio",
        "sample_rate": RATE,
        "seconds": 4,
        "metrics": [{"name": "mel_distance"}, {"name": "si_sdr"}, {"name": "codebook"}],
        "resamples": 200,
        "limit": 40,
        "seed": 0,
    },
    scores=("mel_distance", "si_sdr", "usage", "perplexity", "entropy_bits", "kbps",
            "nominal_kbps"),
    up=False,
    label="mel distance on speakers never trained on, lower is better",
    data=lambda root: AudioFolder(root, sample_rate=RATE),
    columns={
        "mel distance": lambda row: f"{row['mel_distance'][0]:.3f} {width(row['mel_distance'], 3)}",
        "to the best": lambda row: f"{row['versus'][0]:+.3f} {width(row['versus'], 3)}",
        "SI-SDR dB": lambda row: f"{row['si_sdr'][0]:.1f}",
        "bits": lambda row: f"{row['nominal_kbps'][0] * 16:.1f}",
        "entropy bits": lambda row: f"{row['entropy_bits'][0]:.2f}",
        "usage": lambda row: f"{100 * row['usage'][0]:.0f} %",
        "perplexity": lambda row: f"{row['perplexity'][0]:,.0f}",
        "kb/s": lambda row: f"{row['kbps'][0]:.2f}",
        "CPU s": lambda row: f"{row['train_cpu_seconds'][0]:,.0f}",
    },
    note="{steps:,} steps of 8 crops of half a second, spectrum_16k (62.5 tokens per second of "
    "16 kHz), trained on {train} files, measured on 4 seconds of 40 of {heldout} others",
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(bench=SPEECH))
