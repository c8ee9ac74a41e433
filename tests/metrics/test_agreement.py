"""Our numbers beside those of torch-fidelity and clean-fid on the same features, to 1e-3."""

import warnings

import pytest
import torch

from tokenizers_vq.metrics.fidelity import frechet_distance, kernel_distance
from tokenizers_vq.metrics.gaussians import Moments, moments_distance
from tokenizers_vq.metrics.inception_score import inception_score
from tokenizers_vq.metrics.precision_recall import precision_recall

N, D = 400, 48


def extractor() -> torch.nn.Module:
    """A random network from 8 x 8 pictures to features of unequal variance."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 64), torch.nn.ReLU(), torch.nn.Linear(64, D)
    )


@pytest.fixture(scope="module")
def sets():
    with torch.no_grad():
        network = extractor()
        real = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        fake = (real * 0.8 + 0.1 * torch.randn(real.shape)).clamp(0, 1)
        return network(real), network(fake)


def test_frechet_is_that_of_torch_fidelity_and_clean_fid(sets):
    from cleanfid.fid import frechet_distance as clean
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    real, fake = sets
    ours = frechet_distance(real, fake)
    statistics = [fid_features_to_statistics(one) for one in sets]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)
    theirs = theirs["frechet_inception_distance"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an argument of scipy's that goes away
        third = clean(*(s for one in statistics for s in (one["mu"], one["sigma"])))
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert ours == pytest.approx(third, rel=1e-3)
    streams = []
    for one in sets:
        streams.append(Moments(D))
        for batch in one.split(64):
            streams[-1].add(batch)
    assert moments_distance(*streams) == pytest.approx(theirs, rel=1e-3)
    assert ours > 0.01


def test_kernel_distance_without_pairs_is_that_of_torch_fidelity_and_clean_fid(sets):
    from cleanfid.fid import kernel_distance as clean
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, fake = sets
    ours = kernel_distance(real, fake, paired=False)
    theirs = kid_features_to_metric(real, fake, kid_subset_size=N, kid_subsets=1, verbose=False)
    theirs = theirs["kernel_inception_distance_mean"]
    third = clean(real.numpy(), fake.numpy(), num_subsets=1, max_subset_size=N)
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert ours == pytest.approx(third, rel=1e-3)


def test_inception_score_is_that_of_torch_fidelity(sets):
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 40 * sets[0]
    theirs = isc_features_to_metric(logits, splits=1, shuffle=False)["inception_score_mean"]
    assert inception_score(logits) == pytest.approx(theirs, rel=1e-3)
    assert theirs > 1.5


def test_precision_and_recall_are_those_of_torch_fidelity(sets):
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, fake = sets[0][:150], sets[1][150:350]
    # its first argument is the judged set
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=3, prc_batch_size=100,
                                    verbose=False)  # fmt: skip
    ours = precision_recall(real, fake)
    assert ours == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-6)
    assert 0 < min(ours) < 1
