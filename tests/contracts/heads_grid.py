"""Heads whose tokens depend on their place."""

from cases import Case, D

VQ = {"name": "vq", "codebook_size": 16, "restart_threshold": 0.0}
EMA = {**VQ, "codebook_update": "ema"}


def multi_scale(of, **options):
    return {"name": "multi_scale", "inner": of, "scales": [1, 2, 4], **options}


def each(count, of):
    return {"repeat": count, "of": of}


def bound(config, grid=(4, 4), **promises):
    return Case(config, masks=False, item_shape=grid, **promises)


CASES = {
    "multi_scale": bound(multi_scale(VQ), identity=True, graph=True),
    "multi_scale_other_grid": bound(multi_scale(VQ, phi=1), (3, 5), identity=True),
    "multi_scale_ema": bound(
        multi_scale({**EMA, "kmeans_init": "random", "restart_threshold": 0.1}), identity=True
    ),
    "multi_scale_each": bound(multi_scale(each(3, EMA), phi=0), identity=True),
    "multi_scale_video": bound(
        multi_scale(VQ, scales=[[1, 1, 1], [1, 2, 2], [2, 3, 2]]), (2, 3, 2), identity=True
    ),
    "multi_scale_sound": bound(
        multi_scale({"name": "factorized", "codebook_size": 16, "code_dim": 3}, axes=1),
        (9,),
        identity=True,
    ),
    "temporal_scales": bound(
        {"name": "temporal_scales", "strides": [4, 2, 1],
         "inner": each(3, {"name": "factorized", "codebook_size": 16, "code_dim": 3})},
        (8,), identity=True, graph=True,
    ),
    "temporal_scales_ragged": bound(
        {"name": "temporal_scales", "strides": [4, 2, 1], "inner": EMA}, (11,), identity=True
    ),
    "hierarchical": bound(
        {"name": "hierarchical", "strides": [[2, 2, 2], [1, 1, 1]], "base": [3, 2, 2],
         "inner": VQ, "phi": 1},
        (3, 2, 2), identity=True, graph=True,
    ),
    "hierarchical_ragged": bound(
        {"name": "hierarchical", "strides": [[4, 2, 2], [2, 1, 1]], "base": [4, 3, 5],
         "inner": EMA}, (4, 3, 5), identity=True
    ),
    "ms_lfq": bound(multi_scale({"name": "lfq", "bits": D}, scale_factor=0.7), identity=True),
    "ms_group_bsq": bound(
        multi_scale({"name": "grouped", "groups": each(2, {"name": "bsq", "bits": 4})}, code_dim=8)
    ),
    "folded": bound({"name": "folded", "inner": {**VQ, "dim": 4 * D}}, identity=True),
    "folded_mapped": bound(
        {"name": "folded", "inner": EMA, "fold": [3, 2]}, (4, 5), graph=True,
    ),
    "folded_sound": bound(
        {"name": "folded", "inner": each(1, {"name": "residual", "stages": each(2, EMA)}),
         "fold": 4, "axes": 1},
        (9,),
    ),
    "per_position": bound(
        {"name": "per_position", "grid": [4, 4], "tokens": 8, "codebook_size": 16,
         "restart_every": 2},
        sealed=True,
    ),
    "per_position_gradient": bound(
        {"name": "per_position", "grid": [9], "tokens": 27, "codebook_size": 16, "gradient": True},
        (9,), identity=True, graph=True,
    ),
    "per_position_rectified": bound(
        {"name": "per_position", "grid": [2, 3, 2], "tokens": 12, "codebook_size": 8,
         "restart_every": 0, "rectifier": "conv", "gradient": True},
        (2, 3, 2),
    ),
    "mcquic": bound(
        {"name": "mcquic", "codebook_size": 16, "levels": 3},
        (3, 5), noisy=True, graph=True, soft=True,
    ),
    "mcquic_drop": bound(
        {"name": "mcquic", "codebook_size": 8, "levels": 2, "codebooks": 2, "axes": 1,
         "code_dim": 4, "drop_frequent": True, "restart_every": 1}, (8,), noisy=True, soft=True
    ),
}  # fmt: skip
