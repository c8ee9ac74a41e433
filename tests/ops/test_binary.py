"""The compiled library needs nothing of torch, Python or C++ that changes between releases."""

import re
import shutil
import subprocess
from pathlib import Path

from tokenizers_vq.ops.nearest_code import KERNELS

LIBRARY = Path(__file__).resolve().parents[2] / "tokenizers_vq" / "ops" / "_C.abi3.so"
PYTHON = {  # of the limited API of Python 3.10, https://docs.python.org/3.10/c-api/stable.html
    "PyModule_Create2", "PyModule_AddStringConstant", "Py_BuildValue",
}  # fmt: skip
SHIMS = re.compile(r"(aoti_)?torch_\w+$")  # torch's stable C interface


def symbols(*options):
    """What ``nm`` says of the library, one word per symbol."""
    nm = shutil.which("nm")
    assert nm, "this test needs nm, which comes with the compiler"
    lines = subprocess.check_output([nm, "-D", *options, str(LIBRARY)], text=True).splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines}


def test_it_uses_the_stable_interfaces_only():
    if not KERNELS.names:
        assert not LIBRARY.exists()
        return
    used = symbols("--undefined-only")
    assert {name for name in used if name.startswith(("Py", "_Py"))} <= PYTHON
    torch = {name for name in used if "torch" in name or "c10" in name or "at6" in name}
    assert torch, "the library registers its ops with torch"
    assert [name for name in torch if not SHIMS.match(name)] == []


def test_it_shows_nothing_but_its_entry():
    if KERNELS.names:
        shown = {name for name in symbols("--defined-only") if not name.startswith("_Z")}
        assert {name for name in shown if "init" in name.lower()} == {"PyInit__C"}
        ours = [name for name in symbols("--defined-only") if "tokenizers_vq" in name]
        assert ours == []
