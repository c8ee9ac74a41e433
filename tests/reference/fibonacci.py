"""Two sets of points without a generator: a Fibonacci sphere, and the same stretched."""

import numpy as np

J = np.arange(1000) + 0.5
PHI, THETA = np.arccos(1 - 2 * J / 1000), np.pi * (1 + 5**0.5) * J
SPHERE = np.stack([np.cos(THETA) * np.sin(PHI), np.sin(THETA) * np.sin(PHI), np.cos(PHI)], axis=1)
STRETCHED = SPHERE * (1, 0.9, 1.05) + (0.02, 0, 0)
