"""Adds the compiled kernels, where they can be compiled, to what pyproject.toml describes."""

import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).resolve().parent / "kernels"))
import build as kernels  # kernels/build.py, which also runs without setuptools

BUILDING = {"build", "build_ext", "bdist_wheel", "editable_wheel", "install", "develop"}
WORK = Path(__file__).resolve().parent / "build" / "kernels"
PARTS = {"cpu": kernels.MODULE, "cuda": kernels.CUDA_MODULE}


class CopyLibrary(build_ext):
    """Put the libraries, which exist by now, where setuptools wants them."""

    def build_extension(self, ext):
        """Copy instead of compiling."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(WORK / "done" / target.name, target)


# Compiled before setup() runs: the wheel's name depends on whether there is a library inside.
built = [
    path.name.split(".")[0]
    for part, path in PARTS.items()
    if BUILDING & set(sys.argv) and kernels.attempt(WORK / "done" / path.name, WORK, part)
]
setup(
    ext_modules=[Extension(f"tokenizers_vq.ops.{name}", [], py_limited_api=True) for name in built],
    cmdclass={"build_ext": CopyLibrary},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if built else {},
)
