import pytest
import torch

from tokenizers_vq.data.base import SignalDataset, collate
from tokenizers_vq.errors import DataError, ShapeError
from tokenizers_vq.types import SignalSpec


class Epochs(SignalDataset):
    def item(self, index, epoch):
        return torch.tensor([float(index), float(epoch)])


def test_an_item_is_drawn_by_index_or_by_epoch_and_index():
    dataset = Epochs(["a", "b", "c"], SignalSpec("image"))
    assert dataset[1].tolist() == [1, 0]
    assert dataset[4, 2].tolist() == [2, 4]
    assert dataset[-1].tolist() == [2, 0]
    assert [x.tolist() for x in dataset] == [[0, 0], [1, 0], [2, 0]]
    assert len(dataset) == 3
    assert dataset.skipped == {}


def test_an_index_beyond_the_end_is_an_index_error():
    with pytest.raises(IndexError):
        Epochs(["a"], SignalSpec("image"))[1]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "Epochs: expected at least one item; got none."),
        (["b", "a"], "Epochs: expected unique and sorted ids; got ['b', 'a']."),
        (["a", "a"], "Epochs: expected unique and sorted ids; got ['a', 'a']."),
    ],
)
def test_ids_must_be_there_unique_and_sorted(ids, message):
    with pytest.raises(DataError) as error:
        Epochs(ids, SignalSpec("image"))
    assert str(error.value) == message


def test_collate_stacks_equal_shapes_and_names_unequal_ones():
    assert collate([torch.zeros(3, 4, 5)] * 2).shape == (2, 3, 4, 5)
    with pytest.raises(ShapeError) as error:
        collate([torch.zeros(3, 4, 5), torch.zeros(3, 4, 4)])
    assert str(error.value) == (
        "collate: expected items of one shape; got (3, 4, 4) and (3, 4, 5). "
        "Give the data set a size, or use batch_size=1."
    )
