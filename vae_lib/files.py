"""Files that are written whole or not at all."""

import os
from pathlib import Path


def write_whole(path, content):
    """Write bytes to a file, whose folder is made if need be; if anything fails, an earlier file stays as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
