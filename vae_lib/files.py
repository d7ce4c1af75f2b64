"""Files that are written whole or not at all."""

import os
import secrets
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path, content):
    """Write bytes to a file, whose folder is made if need be; if anything fails, an earlier file stays as it was.

    OSError names the file. A process that is killed meanwhile may leave NAME.*.part beside it, which nothing reads.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")  # its own, whoever else writes the file
    with _room_for(path):
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            with suppress(OSError):
                part.unlink()


def refuse_unwritable(*paths):
    """Raise OSError if no file can be made where one of these is to be: before the work whose results they hold."""
    for path in map(Path, paths):
        with _room_for(path):
            tempfile.TemporaryFile(dir=path.parent).close()


@contextmanager
def _room_for(path):
    """Make the folder of a file; any OSError meanwhile names that file, and none beside it."""
    try:
        with suppress(FileExistsError):  # a file stands there: what is opened in it says so
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
