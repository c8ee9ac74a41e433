"""The rules of the house as tests: imports go one way, names agree, configs compose."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tokenizers_vq import registry
from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tokenizers_vq"
FILES = sorted(PACKAGE.rglob("*.py"))

# Level of every room: a file may import from lower levels, and from its own room.
LEVELS = {
    "types": 0, "errors": 0, "files": 0, "weights": 0,
    "functional": 1, "ops": 1, "bitstream": 1,
    "quantizers": 2, "backbones": 2, "discriminators": 2, "losses": 2, "metrics": 2, "data": 2,
    "registry": 3, "configs": 3, "tokenizer": 3, "allocation": 3, "stream": 3,
    "clips": 3,
    "hub": 4, "evaluation": 4, "viz": 4, "page": 4, "training": 4, "matrix": 4, "demo": 4,
    "doctor": 4, "tiling": 4, "chunking": 4, "posttraining": 4, "published": 4, "verify": 4,
    "foreign": 3, "robustness": 4, "tokbench": 4, "shapes": 4,
    "cli": 5, "__init__": 5,
}  # fmt: skip
SIDEWAYS = {  # imports between rooms of one level, each for a reason
    ("registry", "configs"), ("tokenizer", "registry"), ("tokenizer", "allocation"),
    ("tokenizer", "stream"), ("tokenizer", "clips"), ("clips", "allocation"), ("stream", "clips"),
    ("ops", "functional"), ("functional", "ops"), ("weights", "errors"),
}  # fmt: skip
CONTINUOUS = {"gaussian"}  # heads without codes
OWNERS = {  # slow packages and the only places that may import them
    "lightning": {"training"},
    "hydra": {"training/run.py"},
    "torchmetrics": {"metrics"},
    "lpips": {"losses/perceptual.py", "metrics/perceptual.py"},
    "timm": {
        "backbones",
        "losses",
        "discriminators",
        "metrics/transformers_2d.py",
        "training/optim.py",
    },
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path, *, top_level: bool = False):
    """Yield the dotted modules that a file imports (typing-only imports do not count)."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = room_of(path)
    assert room in LEVELS, f"{room} has no level; add it to LEVELS in this file"
    for module in imports_of(path, top_level=True):
        if not module.startswith("tokenizers_vq."):
            continue
        other = module.split(".")[1]
        allowed = (
            other == room
            or (room, other) in SIDEWAYS
            or LEVELS[other] < LEVELS[room]
            or LEVELS[room] == 4 == LEVELS[other]
        )
        assert allowed, f"{path.name} (level {LEVELS[room]}) imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_slow_packages_have_one_owner(path):
    where = str(path.relative_to(PACKAGE))
    for module in imports_of(path):
        owners = OWNERS.get(module.split(".")[0])
        assert owners is None or any(where.startswith(owner) for owner in owners), (
            f"{where} imports {module}; only {sorted(owners or [])} may"
        )


def test_no_assert_outside_tests():
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)], path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_can_be_seen_whole(path):
    source = path.read_text()
    assert source.count("\n") <= 450, "split the file"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{node.name} has {length} lines"


def test_the_package_list_is_complete():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")}
    assert listed == {".".join(folder.parts) for folder in folders} | {"tokenizers_vq.conf"}


@pytest.mark.parametrize("kind", ["quantizer", "encoder", "discriminator", "metric"])
def test_a_registry_name_is_its_file_and_its_test(kind):
    for name in registry.names(kind):
        module = registry.TABLES[kind][name].partition(":")[0]
        assert module.rpartition(".")[2] == name
        room = module.split(".")[1]
        assert (ROOT / "tests" / room / f"test_{name}.py").is_file(), f"tests/{room}/test_{name}.py"


def test_encoders_and_decoders_come_in_pairs():
    alone = set(registry.names("encoder")) ^ set(registry.names("decoder"))
    # encoders and a decoder that are used with others of other names
    assert alone == {"spectrum", "vocos", "whisper"}


@pytest.mark.parametrize("name", config_names("quantizer"))
def test_every_quantizer_config_builds_with_the_tiny_backbone(name):
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": read_config("quantizer", name)}
    head = Tokenizer.from_config(config).quantizer
    assert head.bits_per_position > 0 or config["quantizer"]["name"] in CONTINUOUS


def test_every_head_has_a_config():
    used = {read_config("quantizer", name)["name"] for name in config_names("quantizer")}
    # for sequences of one axis; the importer of SNAC writes its config
    assert used == set(registry.QUANTIZERS) - {"temporal_scales"}


@pytest.mark.parametrize("name", config_names("quantizer"))
def test_every_quantizer_config_is_explained(name):
    assert f"`{name}`" in (ROOT / "docs" / "heads.md").read_text()


@pytest.mark.parametrize("name", config_names("experiment"))
def test_every_experiment_begins_with_its_command(name):
    lines = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"  # Hydra reads this only in the first line
    assert re.match(r"# (python train\.py experiment=|tvq \w+)", lines[1]), lines[1]


@pytest.mark.parametrize(
    "path",
    [p for p in ROOT.rglob("*.md") if not {".venv", "outputs", "node_modules"} & set(p.parts)],
    ids=str,
)
def test_links_in_documents_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"
