import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics import extractors
from tokenizers_vq.metrics.precision_recall import PrecisionRecall, precision_recall


def line(*places: float) -> torch.Tensor:
    return torch.tensor(places)[:, None]


def test_shares_worked_out_on_a_line():
    real = line(0, 1, 2, 3, 10)  # radii to the 3rd neighbour: 3, 2, 2, 3, 9
    fake = line(-3.5, -2.5, 4, 21, 22)  # radii: 24.5, 23.5, 17, 23.5, 24.5
    precision, recall = precision_recall(real, fake)
    assert precision == pytest.approx(2 / 5)  # -2.5 is within 3 of 0; 4 is within 3 of 3
    assert recall == 1.0


def test_a_set_covers_itself():
    x = torch.randn(30, 4)
    assert precision_recall(x, x) == (1.0, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_those_of_distances_taken_one_by_one(seed):
    generator = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(2, 600, 8, generator=generator).add(5).unbind()
    fake = fake * (0.6 + 0.2 * seed)

    def radii(x):
        return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sort().values[:, 3]

    def covered(x, centres):
        distances = torch.cdist(x, centres, compute_mode="donot_use_mm_for_euclid_dist")
        return float((distances <= radii(centres)).any(1).double().mean())

    a, b = real.double(), fake.double()
    assert precision_recall(real, fake) == (covered(b, a), covered(a, b))


def test_copies_cover_each_other():
    x = torch.full((9, 5), 0.1)
    assert precision_recall(x, x.clone()) == (1.0, 1.0)


def test_too_few_are_refused():
    with pytest.raises(ShapeError) as error:
        precision_recall(line(1, 2, 3), line(1, 2, 3, 4))
    assert str(error.value) == (
        "precision_recall: expected more than 3 rows on both sides; got 3 and 4. Give more images."
    )


def test_too_few_images_are_a_reason(monkeypatch):
    class Mean:
        id, dim = "mean", 3

        def __call__(self, images):
            x = images.float().mean((2, 3))
            return extractors.Features(x, x)

    extractors._built.cache_clear()
    monkeypatch.setitem(extractors.EXTRACTORS, "inception", lambda weights: Mean())
    metric = PrecisionRecall()
    images = torch.arange(24, dtype=torch.uint8).repeat_interleave(16).view(8, 3, 4, 4)
    metric.update(images[:3], images[:3])
    assert metric.compute()["recall"].reason == "needs at least 4 images, has 3"
    metric.update(images[3:], images[3:])
    scores = metric.compute()
    extractors._built.cache_clear()
    assert (scores["precision"].value, scores["recall"].value) == (1.0, 1.0)
    assert scores["recall"].detail["neighbours"] == 3
