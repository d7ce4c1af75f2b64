"""The four raw files of MNIST and its kin: found, held to their hashes, downloaded when they are missing."""

import gzip
import hashlib
import math
import queue
import tempfile
import threading
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from torchvision import datasets

PATIENCE = 5.0  # seconds without news from a server that end a download
SHAPES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
# MD5 of the unpacked files, in that order. KMNIST's are not on record here: its .gz files are held to
# torchvision's MD5, its unpacked files to their exact size and header.
MD5 = {
    "MNIST": ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
              "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
    "FashionMNIST": ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
                     "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
    "KMNIST": None,
}


def find(name, folder, filename):
    """Array from a file of the folder, plain or .gz, or None; and what is wrong with files not used."""
    damage = []
    for path in (folder / filename, folder / f"{filename}.gz"):
        try:
            if path.is_file():
                return _read_idx(name, path.name, path.read_bytes()), damage
        except ValueError as error:
            damage.append(f"damaged and not used: {error}")
    return None, damage


def _read_idx(name, filename, stored):
    """Array in the bytes of one of the four files, plain or .gz; ValueError names the file and its damage."""
    plain_name = filename.removesuffix(".gz")
    shape = SHAPES[plain_name]
    header = np.array([2048 + len(shape), *shape], dtype=">i4").tobytes()
    try:
        content = stored if filename == plain_name else gzip.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{filename}: {len(stored):,} bytes that do not unpack ({error})") from error
    if len(content) != len(header) + math.prod(shape):
        raise ValueError(f"{filename}: {len(content):,} bytes, wanted {len(header) + math.prod(shape):,}")
    if not content.startswith(header):
        raise ValueError(f"{filename}: header {content[:len(header)].hex()}, wanted {header.hex()}")
    if MD5[name]:
        found, wanted = _md5(content), dict(zip(SHAPES, MD5[name]))[plain_name]
    else:  # None for a plain file: nothing to compare
        found, wanted = _md5(stored), dict(getattr(datasets, name).resources).get(filename)
    if wanted and found != wanted:
        raise ValueError(f"{filename}: MD5 {found}, wanted {wanted}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def download(name, filenames):
    """The .gz files as {file name: (bytes, array)} from the first of torchvision's mirrors that has them.

    OSError if none has. A mirror that does not answer is the last one tried: a network that hangs costs
    PATIENCE seconds in all.
    """
    problem = "there is no mirror"
    for mirror in getattr(datasets, name).mirrors:
        try:
            packed = {filename: _fetch(f"{mirror}{filename}.gz") for filename in filenames}
            return {key: (content, _read_idx(name, f"{key}.gz", content)) for key, content in packed.items()}
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            problem = error
    raise OSError(problem)


def _fetch(url):
    """Body of a URL or OSError; TimeoutError after PATIENCE seconds without news, name look-up included."""
    chunks = queue.Queue()

    def pump():
        try:
            with urllib.request.urlopen(url, timeout=2 * PATIENCE) as response:
                while chunk := response.read(4096):
                    chunks.put(chunk)
            chunks.put(b"")
        except Exception as error:
            chunks.put(error)

    threading.Thread(target=pump, daemon=True).start()
    body = bytearray()
    try:
        while chunk := chunks.get(timeout=PATIENCE):
            if isinstance(chunk, Exception):
                raise chunk if isinstance(chunk, OSError) else OSError(repr(chunk))
            body += chunk
    except queue.Empty:
        raise TimeoutError(f"no answer within {PATIENCE:g} seconds") from None
    return bytes(body)


def keep(folder, filename, packed):
    """Store a .gz file whole or not at all, in place of a damaged one; a remark if it cannot be stored."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            whole = Path(temporary, f"{filename}.gz")
            whole.write_bytes(packed)
            whole.replace(folder / whole.name)
        (folder / filename).unlink(missing_ok=True)
    except OSError as error:
        return [f"{filename}.gz not stored: {error.strerror}"]
    return []
