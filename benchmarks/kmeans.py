"""Cluster more rows than fit in a matrix of scores: ``python benchmarks/kmeans.py``.

k-means of 1,000,000 x 64 random rows with 16,384 centroids, through the nearest-code search. The
scores would be 61 GiB; what is held is the rows, the centroids and a packed copy of them.
"""

import argparse
import resource
import time

import torch
from tqdm import tqdm

from tokenizers_vq.functional.codebook import kmeans
from tokenizers_vq.ops import nearest_code

PART = 50_000  # rows between two steps of the progress bar


def main() -> None:
    """Print CPU seconds, memory and the mean squared error before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--codes", type=int, default=16_384)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=2)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(options.rows, options.width, generator=generator)
    nearest_code(x[:1], x[:1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    centroids, counts = kmeans(
        x,
        options.codes,
        iterations=options.iterations,
        generator=generator,
        parts=lambda rows: tqdm(rows.split(PART), desc="search"),
    )
    seconds = time.process_time() - start
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    sample = x[: min(20_000, options.rows)]
    error = nearest_code(sample, centroids)[0].mean() / options.width
    print(
        f"{options.rows} x {options.width}, {options.codes} centroids, {options.iterations} "
        f"iterations: {seconds:.0f} CPU s, {added:.0f} MiB beside the {x.nbytes / 2**20:.0f} MiB "
        f"of rows, {int((counts > 0).sum())} centroids used, squared error {error:.4f}"
    )


if __name__ == "__main__":
    main()
