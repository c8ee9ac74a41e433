"""The heads of the first rooms and compositions of them."""

from cases import Case, D

VQ = {"name": "vq", "codebook_size": 16, "restart_threshold": 0.0}
EMA = {**VQ, "codebook_update": "ema"}
FACTORIZED = {"name": "factorized", "codebook_size": 8, "code_dim": 2}
RVQ = {"name": "residual", "stages": {"repeat": 2, "of": EMA}}


def residual(count, of, **options):
    return {"name": "residual", "stages": {"repeat": count, "of": of}, **options}


def grouped(count, of, **options):
    return {"name": "grouped", "groups": {"repeat": count, "of": of}, **options}


CASES = {
    "vq": Case(VQ, identity=True),
    "vq_projected": Case({**VQ, "code_dim": 3}),
    "vq_ema": Case(EMA, identity=True),
    "vq_kmeans": Case({**EMA, "kmeans_init": "plusplus", "restart_threshold": 0.1}, identity=True),
    "vq_cosine": Case({**VQ, "metric": "cosine"}, graph=True),
    "vq_rotation": Case({**VQ, "estimator": "rotation"}, graph=True),
    "fsq": Case({"name": "fsq", "levels": [8, 5, 5]}, fixed_point=True, graph=True),
    "fsq_natural": Case({"name": "fsq", "levels": [3] * D}, fixed_point=True),
    "fsq_symmetric": Case(
        {"name": "fsq", "levels": [2] * D, "bound": "symmetric"}, fixed_point=True
    ),
    "fsq_inner": Case({"name": "fsq", "levels": [3] * D, "bound": "inner"}, fixed_point=True),
    "lfq": Case({"name": "lfq", "bits": D}, fixed_point=True, identity=True, graph=True),
    "lfq_projected": Case({"name": "lfq", "bits": 30}),
    "bsq": Case({"name": "bsq", "bits": D}, fixed_point=True, graph=True),
    "factorized": Case({**FACTORIZED, "codebook_size": 16}, graph=True),
    "simvq": Case({"name": "simvq", "codebook_size": 16}, identity=True, graph=True),
    "ecsq": Case({"name": "ecsq", "channels": 4, "max_level": 3}, graph=True),
    "ecsq_natural": Case(
        {"name": "ecsq", "channels": D, "max_level": 2}, fixed_point=True, identity=True
    ),
    "rvq": Case(RVQ, identity=True),
    "rvq_factorized": Case(residual(2, FACTORIZED), identity=True, graph=True),
    "rfsq": Case(
        residual(2, {"name": "fsq", "levels": [5] * D, "bound": "clamp"}, stage_scale=0.25),
        identity=True,
    ),
    "group_lfq": Case(grouped(2, {"name": "lfq", "bits": 3}), fixed_point=True, identity=True),
    "group_lfq_pooled": Case(
        grouped(2, {"name": "lfq", "bits": 3, "entropy_weight": 0.0}, pooled_entropy_weight=0.1),
        fixed_point=True,
        identity=True,
    ),
    "group_rvq": Case(grouped(2, RVQ, code_dim=4), graph=True),
    "residual_groups": Case(residual(2, grouped(3, VQ)), identity=True),
}
