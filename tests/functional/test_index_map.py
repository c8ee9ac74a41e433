import pytest
import torch

from tokenizers_vq import hub
from tokenizers_vq.errors import CheckpointError, ConfigError, ShapeError
from tokenizers_vq.functional.index_map import IndexMap, IndexMaps
from tokenizers_vq.types import Codes

OLD = IndexMap("a@1", (torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0])))
NEW = IndexMap("b@2", (torch.tensor([1, 0, 0]), torch.tensor([0, 0])))


def test_indices_are_looked_up_and_missing_ones_stay():
    indices = torch.tensor([[3, 0], [2, 1], [-1, 1]])
    assert OLD.codebook_sizes == (4, 2)
    assert OLD.apply(indices).tolist() == [[2, 1], [1, 0], [-1, 0]]
    with pytest.raises(ShapeError) as error:
        OLD.apply(torch.tensor([[4, 0]]))
    assert str(error.value) == "index map: index 4 in codebook 0 is outside 0..3."


def test_maps_compose():
    both = OLD.then(NEW)
    indices = torch.cartesian_prod(torch.arange(4), torch.arange(2))
    assert both.model == "a@1"
    assert torch.equal(both.apply(indices), NEW.apply(OLD.apply(indices)))
    with pytest.raises(ConfigError) as error:
        OLD.then(IndexMap("c@3", NEW.tables[:1]))
    assert str(error.value) == (
        "index map: expected maps of 2 codebooks; got 1. Compose maps of one family of tokenizers."
    )


def test_the_file_gives_them_back_and_always_has_the_same_bytes():
    maps = IndexMaps.of([OLD, NEW])
    again = IndexMaps(maps.data).by_model
    assert list(again) == ["a@1", "b@2"]
    assert again["a@1"].codebook_sizes == (4, 2)
    assert all(map(torch.equal, again["b@2"].tables, NEW.tables))
    assert maps.data == IndexMaps.of([OLD, NEW]).data


@pytest.mark.parametrize("damage", [b"", b"no file", IndexMaps.of([OLD]).data[:-9]])
def test_other_files_are_refused_when_they_are_needed(damage):
    maps = IndexMaps(damage)
    with pytest.raises(CheckpointError, match=r"expected a tokenizers_vq\.index_map\.1 file; got"):
        _ = maps.by_model


def with_map(tokenizer, folder):
    """Save a tokenizer that has a parent whose first codebook was in reverse order."""
    size = tokenizer.quantizer.codebook_sizes[0]
    parent = IndexMap("parent@12345678", (torch.arange(size).flip(0),))
    tokenizer.index_maps = IndexMaps.of([parent])
    return hub.load(hub.save(tokenizer, folder))


def test_a_tokenizer_decodes_the_codes_of_its_parent(tiny_tokenizer, tmp_path):
    tokenizer = with_map(tiny_tokenizer, tmp_path / "tok")
    codes = tokenizer.encode(torch.rand(1, 3, 40, 24) * 2 - 1)
    size = codes.codebook_sizes[0]
    old = Codes(size - 1 - codes.indices, codes.shape, codes.codebook_sizes, "parent@12345678")
    assert torch.equal(tokenizer.decode(old), tokenizer.decode(codes))
    adopted = tokenizer.adopt(old)
    assert adopted.model == tokenizer.model_id
    assert torch.equal(adopted.indices, codes.indices)
    assert tokenizer.adopt(codes) is codes
    stranger = Codes(codes.indices, codes.shape, codes.codebook_sizes, "other@1")
    assert tokenizer.adopt(stranger) is stranger


def test_the_map_travels_with_the_folder_and_is_checked(tiny_tokenizer, tmp_path):
    folder = tmp_path / "tok"
    tokenizer = with_map(tiny_tokenizer, folder)
    again = hub.load(hub.save(tokenizer, tmp_path / "copy"))
    assert again.index_maps.data == tokenizer.index_maps.data
    (folder / "index_map.safetensors").write_bytes(b"no map")
    with pytest.raises(CheckpointError, match=r"index_map.safetensors is damaged or was changed"):
        hub.load(folder)


def test_a_tokenizer_without_a_map_has_no_file_and_replaces_one_that_had(tiny_tokenizer, tmp_path):
    tokenizer = with_map(tiny_tokenizer, tmp_path / "tok")
    tokenizer.train()  # its weights learn: what the old indices meant is no longer true
    assert tokenizer.index_maps is None
    hub.save(tokenizer, tmp_path / "tok")
    assert sorted(path.name for path in (tmp_path / "tok").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
