"""Residual stacks: shared codebooks, beams, scalar grids."""

from cases import Case, D

VQ = {"name": "vq", "codebook_size": 16, "restart_threshold": 0.0}
EMA = {**VQ, "codebook_update": "ema"}
SIMVQ = {"name": "simvq", "codebook_size": 16}
QINCO = {"name": "qinco", "codebook_size": 16, "depth": 3, "hidden": 8}
BEAM = {"beam": 3}


def residual(count, of, **options):
    return {"name": "residual", "stages": {"repeat": count, "of": of}, **options}


CASES = {
    "split_residual": Case(
        {
            "name": "split_residual",
            "code_dim": 8,
            "groups": [EMA, residual(2, EMA)],
        },
        graph=True,
    ),
    "rq_vae": Case({"name": "residual", "stages": [EMA], "repeat": 3}, identity=True),
    "rvq_beam": Case(residual(2, VQ, **BEAM), identity=True, graph=True),
    "rq_vae_beam": Case({"name": "residual", "stages": [EMA], "repeat": 2, **BEAM}, identity=True),
    "rvq_beam_projected": Case(residual(2, {**VQ, "code_dim": 3}, **BEAM), identity=True),
    "rvq_beam_factorized": Case(
        residual(2, {"name": "factorized", "codebook_size": 8, "code_dim": 2}, **BEAM),
        identity=True,
    ),
    "rfsq_soft": Case(
        residual(
            2,
            {"name": "fsq", "levels": [5] * D, "bound": "clamp"},
            stage_scale=0.2,
            soft_clamp=1.25,
        )
    ),
    "rfsq_by_channel": Case(
        residual(
            2,
            {"name": "fsq", "levels": [5, 3] * 2, "bound": "clamp"},
            code_dim=4,
            stage_scale=[0.2, 1 / 3] * 2,
            soft_clamp=[1.25, 1.5] * 2,
        ),
        graph=True,
    ),
    "mcrvq": Case({"name": "mcrvq", "stages": {"repeat": 4, "of": EMA}, "parts": 2}, identity=True),
    "mcrvq_factorized": Case(
        {
            "name": "mcrvq",
            "stages": {"repeat": 3, "of": {"name": "factorized", "codebook_size": 8}},
        },
        identity=True,
        graph=True,
    ),
    "qinco": Case(QINCO, identity=True, graph=True),
    "qinco_beam": Case({**QINCO, **BEAM, "kmeans_init": "random"}, identity=True),
    "qinco_projected": Case({**QINCO, "code_dim": 3}),
    "rlfq": Case(residual(3, {"name": "lfq", "bits": D}, stage_scale=0.5), identity=True),
    "rsimvq": Case(residual(2, SIMVQ), identity=True),
}
