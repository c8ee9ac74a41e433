"""Heads that quantize each channel by itself."""

from cases import Case, D

CASES = {
    "fsq_dithered": Case(
        {"name": "dithered_fsq", "levels": [5] * D}, fixed_point=True, noisy=True, graph=True
    ),
    "fsq_dithered_projected": Case({"name": "dithered_fsq", "levels": [17, 3, 2]}, noisy=True),
}
