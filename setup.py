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
LIBRARY = WORK / "done" / kernels.MODULE.name


class CopyLibrary(build_ext):
    """Put the library, which exists by now, where setuptools wants it."""

    def build_extension(self, ext):
        """Copy instead of compiling."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(LIBRARY, target)


# Compiled before setup() runs: the wheel's name depends on whether there is a library inside.
built = bool(BUILDING & set(sys.argv)) and kernels.attempt(LIBRARY, WORK)
setup(
    ext_modules=[Extension("tokenizers_vq.ops._C", [], py_limited_api=True)] if built else [],
    cmdclass={"build_ext": CopyLibrary},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if built else {},
)
