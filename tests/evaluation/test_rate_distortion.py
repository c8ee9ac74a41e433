import math

import numpy as np
import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.evaluation.rate_distortion import Curve, bd_rate, monotone_cubic


def curve(scale: float, rates=(100, 200, 400, 800), pictures: int = 3) -> Curve:
    """PSNR is 6 dB per doubling, 20 dB at 100 bytes; ``scale`` times the bytes for the same."""
    quality = [20 + 6 * math.log2(rate / 100) for rate in rates]
    return Curve.of([[scale * r] * pictures for r in rates], [[q] * pictures for q in quality])


def test_a_coder_of_twice_the_bytes_is_100_percent_worse():
    found = bd_rate(curve(2), curve(1))
    assert found.percent == pytest.approx(100)
    assert found.shared == (20, 38)
    assert bd_rate(curve(0.5), curve(1)).percent == pytest.approx(-50)
    assert bd_rate(curve(1), curve(1)).percent == pytest.approx(0, abs=1e-9)


def test_only_the_shared_quality_counts():
    found = bd_rate(curve(1.5, (50, 100, 300)), curve(1, (150, 600, 1200)))
    assert found.percent == pytest.approx(50)
    assert found.shared == pytest.approx((20 + 6 * math.log2(1.5), 20 + 6 * math.log2(3)))


def test_one_setting_is_compared_at_its_own_quality():
    found = bd_rate(curve(3, (300,)), curve(1))
    assert found.percent == pytest.approx(200)
    assert bd_rate(curve(1, (50,)), curve(1)).percent is None


def test_curves_that_share_no_quality_have_no_difference():
    found = bd_rate(curve(1, (10, 20)), curve(1))
    assert (found.percent, found.interval, found.shared) == (None, None, None)


def test_the_curve_is_that_of_scipy():
    from scipy.interpolate import PchipInterpolator

    x, y = [0.0, 1.0, 1.5, 4.0, 6.0], [2.0, 2.5, 4.0, 4.1, 9.0]
    at, expected = monotone_cubic(x, y), PchipInterpolator(x, y)
    for t in np.linspace(0, 6, 41):
        assert at(float(t)) == pytest.approx(float(expected(t)), abs=1e-9)
    bent = monotone_cubic([0.0, 1.0, 2.0], [0.0, 1.0, 0.5])
    assert bent(0.7) == pytest.approx(float(PchipInterpolator([0, 1, 2], [0, 1, 0.5])(0.7)))
    assert monotone_cubic([0.0, 2.0], [1.0, 3.0])(0.5) == 1.5


def test_the_mean_of_a_bent_curve_is_the_integral_of_scipys():
    from scipy.interpolate import PchipInterpolator

    q1, r1 = [20, 24, 27, 33], [90, 210, 500, 1900]
    q2, r2 = [21, 25, 30, 34], [100, 190, 600, 1500]
    one = Curve.of([[r] for r in r1], [[q] for q in q1])
    two = Curve.of([[r] for r in r2], [[q] for q in q2])
    a, b = (PchipInterpolator(q, np.log(r)).integrate(21, 33) for q, r in ((q1, r1), (q2, r2)))
    expected = 100 * (math.exp((a - b) / 12) - 1)
    assert bd_rate(one, two).percent == pytest.approx(expected, abs=1e-3)


def test_the_interval_is_over_pictures_and_holds_the_value():
    generator = torch.Generator().manual_seed(0)
    noise = 1 + 0.2 * torch.rand(12, generator=generator, dtype=torch.float64)
    base = curve(1, pictures=12)
    other = Curve(base.rates * noise, base.quality)
    found = bd_rate(other, base, resamples=50)
    assert found.interval[0] < found.percent < found.interval[1]
    assert found == bd_rate(other, base, resamples=50)


def test_other_pictures_are_refused():
    with pytest.raises(ShapeError) as error:
        bd_rate(curve(1), curve(1, pictures=4))
    assert str(error.value) == (
        "bd_rate: expected two curves of the same pictures, the second of at least 2 settings; got "
        "(4, 3) and (4, 4) (settings, pictures). Measure both on the same files."
    )
