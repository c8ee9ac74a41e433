"""Heads that quantize each channel by itself."""

from cases import Case, D

CASES = {
    "fsq_dithered": Case(
        {"name": "dithered_fsq", "levels": [5] * D}, fixed_point=True, noisy=True, graph=True
    ),
    "fsq_dithered_projected": Case({"name": "dithered_fsq", "levels": [17, 3, 2]}, noisy=True),
    "fsp": Case({"name": "fsp", "levels": [8, 5, 5]}, noisy=True),
    "fsp_natural": Case(
        {
            "name": "fsp",
            "levels": [5] * D,
            "cdf": "normal",
            "quantize_rate": 0.5,
            "moment_weights": [0.1, 0.07, 0.06, 0.05],
        },
        noisy=True,
        graph=True,
    ),
    "latent": Case({"name": "latent", "levels": [5, 4, 3]}, graph=True),
    "latent_natural": Case({"name": "latent", "levels": [5] * D}, fixed_point=True, identity=True),
    "token_bridge": Case({"name": "token_bridge", "channels": 4, "bits": 3}, graph=True),
    "token_bridge_natural": Case(
        {"name": "token_bridge", "channels": D, "bits": 6, "order": [2, 0, 1, 5, 4, 3]},
        fixed_point=True,
        identity=True,
    ),
    "rotated": Case(
        {"name": "rotated", "inner": {"name": "fsq", "levels": [5] * D, "bound": "clamp"}},
        graph=True,
    ),
    "rotated_vq": Case(
        {"name": "rotated", "inner": {"name": "vq", "codebook_size": 16, "codebook_update": "ema"}}
    ),
    "lfq_flipped": Case({"name": "lfq", "bits": D, "flip_rate": 0.3}, noisy=True, graph=True),
    "bsq_flipped": Case({"name": "bsq", "bits": D, "flip_rate": 0.3}, noisy=True),
}
