"""Heads around other heads."""

from cases import Case, D

VQ = {"name": "vq", "codebook_size": 16, "restart_threshold": 0.0}
EMA = {**VQ, "codebook_update": "ema"}
ALWAYS = {"name": "perturbed", "rate": 1.0, "share": 1.0, "count": 4}
NEVER = {"name": "perturbed", "rate": 0.0}

CASES = {
    "perturbed": Case({**ALWAYS, "inner": VQ}, identity=True, noisy=True),
    "perturbed_cosine": Case(
        {**ALWAYS, "inner": {**EMA, "code_dim": 3, "metric": "cosine"}}, noisy=True
    ),
    "perturbed_bits": Case(
        {**ALWAYS, "inner": {"name": "lfq", "bits": D}}, fixed_point=True, identity=True, noisy=True
    ),
    "perturbed_never": Case({**NEVER, "inner": VQ}, identity=True, graph=True),
    "perturbed_rvq": Case(
        {**ALWAYS, "inner": {"name": "residual", "stages": {"repeat": 2, "of": EMA}}},
        identity=True,
        noisy=True,
    ),
    "projected": Case(
        {"name": "projected", "code_dim": 3, "inner": {**EMA, "metric": "cosine"}}, graph=True
    ),
    "projected_bits": Case({"name": "projected", "inner": {"name": "lfq", "bits": D}}),
    "projected_hidden": Case(
        {"name": "projected", "norm": "none", "hidden": 8, "code_dim": 4, "inner": VQ}
    ),
    "disentangled": Case(
        {
            "name": "grouped",
            "groups": {"repeat": 3, "of": {**EMA, "code_dim": 3, "metric": "cosine"}},
            "code_dim": 12,
            "disentangle_weight": 0.1,
        }
    ),
}
