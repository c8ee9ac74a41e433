"""Codebook health: survey, diagnosis, advice and repair; ``tvq doctor``."""
