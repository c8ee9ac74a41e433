"""Every file of conf/data builds a training and a validation set that have nothing in common."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import trimesh
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from tokenizers_vq.data.base import SignalDataset
from tokenizers_vq.data.resumable import ResumableLoader
from tokenizers_vq.data.synthetic_motion import SyntheticMotion
from tokenizers_vq.data.synthetic_protein import SyntheticProtein
from tokenizers_vq.data.wheels import WheelPhotos
from tokenizers_vq.functional.frames import atoms_of

FILES = sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"))


def write_video(path, seed):
    generator = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.height, stream.width = 16, 16
        for _ in range(17):
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def root(tmp_path):
    generator = np.random.default_rng(0)
    for index in range(30):
        pixels = generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((70, 50), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{index:02d}.png")
        sound = generator.uniform(-0.5, 0.5, 2000)
        soundfile.write(tmp_path / f"{index:02d}.flac", sound, 8000)
        if index < 10:
            trimesh.creation.box((1, 2, 1 + index / 10)).export(tmp_path / f"{index:02d}.stl")
        if index < 8:
            write_video(tmp_path / f"{index:02d}.avi", index)
    held = WheelPhotos("heldout")
    for index, id_ in enumerate(held.ids):
        held.photo(index).resize((160, 120)).save(tmp_path / f"{id_}.jpg", quality=80)
    for index, protein in enumerate(SyntheticProtein(n=30, residues=24, missing=0, seed=5)):
        lines = [
            f"ATOM  {3 * i + k + 1:5d}  {name:<3s} ALA A{i + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
            "  1.00  0.00"
            for i, residue in enumerate(atoms_of(protein).tolist())
            for k, (name, (x, y, z)) in enumerate(zip(("N", "CA", "C"), residue, strict=True))
        ]
        (tmp_path / f"{index:02d}.pdb").write_text("\n".join(lines))
    (tmp_path / "new_joint_vecs").mkdir()
    for index, motion in enumerate(SyntheticMotion(n=30, frames=64, seed=5)):
        np.save(tmp_path / "new_joint_vecs" / f"{index:02d}.npy", motion.T.numpy())
    (tmp_path / "train.txt").write_text("\n".join(f"{index:02d}" for index in range(3, 30)))
    (tmp_path / "val.txt").write_text("00\n01\n02\n")
    pictures = {".png", ".jpg"}
    names = sorted(path.name for path in tmp_path.iterdir() if path.suffix in pictures)
    rows = [f"{name},{'research' if name < '05' else 'open'}" for name in names]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,licence_class", *rows]))
    return tmp_path


def load(path, root):
    config = OmegaConf.create({"data": OmegaConf.load(path)})
    if OmegaConf.is_missing(config.data, "root"):
        config.data.root = str(root)
    return config.data


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_builds_its_data(path, root):
    config = load(path, root)
    train, val = instantiate(config.train), instantiate(config.val)
    assert isinstance(train, SignalDataset)
    assert isinstance(val, SignalDataset)
    loader = ResumableLoader(train, config.batch_size, repeat=config.repeat)
    channels = train.signal.channels
    assert next(iter(loader)).shape[:2] == (config.batch_size, channels)
    shape = next(iter(ResumableLoader(val, 2, shuffle=False))).shape[:2]
    assert shape in ((2, channels), (1, channels))
    assert not {x.numpy().tobytes() for x in val} & {x.numpy().tobytes() for x in train}


@pytest.mark.parametrize("name", ["open_photos", "mixed_photos"])
def test_copies_of_held_out_photos_are_never_trained_on(name, root):
    config = load(FILES[0].with_name(f"{name}.yaml"), root)
    train = instantiate(config.train)
    left_out = [key.removeprefix("00/") for key, reason in train.skipped.items()]
    assert left_out == ["chelsea.jpg", "china.jpg", "coffee.jpg", "grace_hopper.jpg"]
    own = [id_ for id_ in train.ids if id_.startswith("00/")]
    assert len(own) == (25 if name == "open_photos" else 30)
    assert len(train) == len(own) + 8
