"""A user whom permissions bind: root, as which CI runs the tests, may read and write everything."""

import os
from contextlib import contextmanager


@contextmanager
def as_nobody(folder, closed_path, mode):
    """In a folder, as a user whom the mode of one file or folder binds; its path is relative, as are all within."""
    before, home, root = closed_path.stat().st_mode, os.getcwd(), os.geteuid() == 0
    folder.chmod(0o777)
    os.chdir(folder)
    closed_path.chmod(mode)
    if root:
        os.seteuid(65534)
    try:
        yield closed_path.relative_to(folder)
    finally:
        if root:
            os.seteuid(0)
        closed_path.chmod(before)
        os.chdir(home)
