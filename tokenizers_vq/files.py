"""Writing files so that a crash leaves the old one or the new one, never half of one."""

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write ``data`` beside ``path``, flush it to the disk, and rename it.

    Args:
        path: of the file; its folder is made if it is not there.
        data: bytes, or text that is stored as UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
