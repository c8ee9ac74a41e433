"""Codebook use while training."""

import pytest
import torch

from tokenizers_vq.training.codebook import LARGEST, CodebookUse

CPU = torch.device("cpu")


def test_usage_and_perplexity_are_means_over_codebooks():
    use = CodebookUse([4, 2])
    # codebook 0 sees codes 0 and 3 equally often; codebook 1 only code 1
    use.add(torch.tensor([[0, 1], [3, 1]]))
    use.add(torch.tensor([[[0, 1], [3, -1]]]))
    assert use.take(CPU) == pytest.approx(
        {"codebook/usage": (0.5 + 0.5) / 2, "codebook/perplexity": (2 + 1) / 2}
    )


def test_taking_begins_anew():
    use = CodebookUse([4])
    use.add(torch.tensor([[0]]))
    use.take(CPU)
    assert use.take(CPU)["codebook/usage"] == 0.0


def test_huge_codebooks_are_not_counted():
    use = CodebookUse([LARGEST + 1])
    use.add(torch.tensor([[0]]))
    assert use.take(CPU) == {}


def test_without_codebooks_nothing_is_counted():
    use = CodebookUse([])
    use.add(torch.empty(2, 3, 0, dtype=torch.int64))
    assert use.take(CPU) == {}
