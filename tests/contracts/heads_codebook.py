"""Heads with codebooks of other kinds: soft gradients, one index for several, fixed lattices."""

from cases import Case

IBQ = {"name": "ibq", "codebook_size": 16}

CASES = {
    "ibq": Case(IBQ, soft=True, graph=True),
    "ibq_projected": Case({**IBQ, "code_dim": 3}, soft=True),
    "residual_ibq": Case({"name": "residual", "stages": {"repeat": 2, "of": IBQ}}, identity=True),
}
