"""What a user installs: a wheel with code, configs and weights that works away from the clone."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in", "tokenizers_vq", "conf",
    "kernels",
)  # fmt: skip
PROGRAM = """
from importlib.resources import files

import tokenizers_vq
from tokenizers_vq.configs import config_names, tokenizer_config

assert "site" in tokenizers_vq.__file__, tokenizers_vq.__file__
tok = tokenizers_vq.Tokenizer.from_config(tokenizer_config("tiny_cnn2d", "fsq"))
assert (files("tokenizers_vq.conf") / "train.yaml").is_file()
for name in tokenizers_vq.list("mini_*"):
    tokenizers_vq.load(name)
print(len(config_names("quantizer")), len(tokenizers_vq.list("mini_*")))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(
                path, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so")
            )
        else:
            shutil.copy(path, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*command, "-w", str(out), str(source)], check=True, timeout=900)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_config_and_weight(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "tokenizers_vq").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT)) in names
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"tokenizers_vq/{path.relative_to(ROOT)}" in names


def test_the_wheel_works_away_from_the_clone(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{PROGRAM}"
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, timeout=300)
    heads, shipped = map(int, printed.split())
    assert heads == len(list((ROOT / "conf" / "quantizer").glob("*.yaml")))
    assert shipped >= 1
