"""Vector quantization under each of its options, alone and inside other heads."""

from cases import Case

VQ = {"name": "vq", "codebook_size": 16, "restart_threshold": 0.0}
DIVEQ = {
    "name": "vq",
    "codebook_size": 16,
    "estimator": "diveq",
    "commitment_weight": 0.0,
    "codebook_weight": 0.0,
}
GUMBEL = {"name": "gumbel", "codebook_size": 16, "straight_through": False}

CASES = {
    "vq_diveq": Case(DIVEQ, noisy=True, graph=True),
    "vq_sync": Case({**VQ, "sync_weight": 0.5}, identity=True),
    "vq_affine": Case({**VQ, "affine": True, "kmeans_init": "random"}, identity=True, graph=True),
    "vq_cvq": Case({**VQ, "restart": "cvq"}, identity=True),
    "vq_cvq_cosine": Case({**VQ, "restart": "cvq", "metric": "cosine", "code_dim": 4}),
    "vq_orthogonal": Case({**VQ, "orthogonal_weight": 1.0}, identity=True),
    "vq_entropy": Case(
        {**VQ, "entropy_weight": 0.1, "entropy_temperature": 1.0}, identity=True, graph=True
    ),
    "vq_entropy_ema": Case(
        {**VQ, "entropy_weight": 0.1, "metric": "cosine", "codebook_update": "ema"}
    ),
    "vq_sampled": Case({**VQ, "sample_temperature": 1.0}, noisy=True, identity=True, graph=True),
    "vq_larp": Case({**VQ, "sample_temperature": 0.3, "metric": "cosine"}, noisy=True),
    "vq_larp_learned": Case(
        {
            **VQ,
            "sample_temperature": 0.1,
            "learn_temperature": True,
            "metric": "cosine",
            "entropy_weight": 0.1,
        },
        noisy=True,
        graph=True,
    ),
    "gumbel": Case(GUMBEL, noisy=True, soft=True, graph=True),
    "gumbel_hard": Case({**GUMBEL, "straight_through": True, "code_dim": 4}, noisy=True),
    "binary_mapper": Case({"name": "binary_mapper", "bits": 4}, noisy=True, graph=True),
    "binary_mapper_projected": Case(
        {"name": "binary_mapper", "bits": 3, "code_dim": 4}, noisy=True
    ),
    "rvq_gumbel": Case(
        {"name": "residual", "stages": {"repeat": 2, "of": GUMBEL}}, noisy=True, identity=True
    ),
    "rvq_diveq": Case(
        {"name": "residual", "stages": {"repeat": 2, "of": DIVEQ}}, noisy=True, identity=True
    ),
    "group_affine_sync": Case(
        {
            "name": "grouped",
            "groups": {"repeat": 2, "of": {**VQ, "affine": True, "sync_weight": 1.0}},
        },
        identity=True,
    ),
}
