import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.frames import backbone_of, signal_of
from tokenizers_vq.losses.structure import FAPE


def signal(second):
    places = torch.tensor([[[0.0, 0, 0], [second, 0, 0]]])
    return signal_of(backbone_of(torch.eye(3).expand(1, 2, 3, 3), places))


def test_the_loss_of_two_residues_by_hand():
    # one of two is seen 1 off by the other one: 2 of 4 pairs, in units of 10
    assert FAPE()(signal(3), signal(4)).item() == pytest.approx(0.05, abs=1e-5)
    assert FAPE(unit=1)(signal(3), signal(4)).item() == pytest.approx(0.5, abs=1e-4)
    both = [torch.cat(pair) for pair in ((signal(3), signal(3)), (signal(4), signal(3)))]
    assert FAPE()(*both).item() == pytest.approx(0.025, abs=1e-5)
    assert FAPE(reach=0)(signal(3), signal(4)).item() == pytest.approx(0, abs=1e-4)  # only itself
    assert FAPE(reach=1)(signal(3), signal(4)).item() == pytest.approx(0.05, abs=1e-5)
    assert FAPE(clamp=0.5)(signal(3), signal(4)).item() == pytest.approx(0.025, abs=1e-5)


def test_no_cut_below_zero():
    with pytest.raises(ConfigError) as error:
        FAPE(clamp=0)
    assert str(error.value) == "FAPE: expected clamp and unit above 0; got 0 and 10.0. Use 10."
