"""What an installation says and does where kernels cannot be compiled."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "kernels"))
import build as kernels  # kernels/build.py is a script beside the package


def no_compiler(folder):
    return "missing-g++", "no compiler missing-g++"


def broken_compiler(folder):
    path = folder / "g++"
    path.write_text("#!/bin/sh\necho 'g++: internal compiler error: always' >&2\nexit 1\n")
    path.chmod(0o755)
    return str(path), "g++: internal compiler error: always"


@pytest.mark.parametrize("machine", [no_compiler, broken_compiler])
def test_without_a_library_one_line_says_why_or_it_is_an_error(
    machine, tmp_path, monkeypatch, capsys
):
    compiler, reason = machine(tmp_path)
    target = tmp_path / "_C.abi3.so"
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.delenv("TOKENIZERS_VQ_REQUIRE", raising=False)
    assert not kernels.attempt(target, tmp_path / "work")
    line = f"tokenizers_vq: CPU kernels not built ({reason}); plain torch is used\n"
    assert capsys.readouterr().out == line
    monkeypatch.setenv("TOKENIZERS_VQ_REQUIRE", "cpu")
    with pytest.raises(SystemExit) as error:
        kernels.attempt(target, tmp_path / "work")
    assert str(error.value) == f"tokenizers_vq: CPU kernels required but not built: {reason}"
    assert not target.exists()
