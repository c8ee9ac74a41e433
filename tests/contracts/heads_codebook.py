"""Heads with codebooks of other kinds: soft gradients, one index for several, fixed lattices."""

from cases import Case

IBQ = {"name": "ibq", "codebook_size": 16}
SHARED = {"name": "shared_index", "codebook_size": 16, "parts": [4, 2], "restart_threshold": 0.0}
RANDOM = {"name": "random_projection", "codebook_size": 16}

CASES = {
    "ibq": Case(IBQ, soft=True, graph=True),
    "ibq_projected": Case({**IBQ, "code_dim": 3}, soft=True),
    "residual_ibq": Case({"name": "residual", "stages": {"repeat": 2, "of": IBQ}}, identity=True),
    "shared_index": Case({**SHARED, "weights": [1.0, 2.0]}),
    "shared_index_ema": Case({**SHARED, "codebook_update": "ema", "kmeans_init": "random"}),
    "shared_index_projected": Case({**SHARED, "parts": [3, 2]}),
    "rvq_shared_index": Case(
        {"name": "residual", "stages": {"repeat": 2, "of": SHARED}}, identity=True
    ),
    "d4": Case({"name": "lattice", "lattice": "d4", "commitment_weight": 0.25}, fixed_point=True),
    "e8": Case({"name": "lattice", "lattice": "e8"}, fixed_point=True),
    "leech": Case({"name": "lattice", "lattice": "leech"}, fixed_point=True, graph=True),
    "random_projection": Case(
        {**RANDOM, "projection_dim": 2, "codebooks": 2}, fixed_point=True, graph=True, sealed=True
    ),
    "random_projection_wide": Case({**RANDOM, "projection_dim": 8}, sealed=True),
}
