"""The four raw files of MNIST and its kin: found, held to their hashes, downloaded when they are missing."""

import gzip
import hashlib
import math
import socket
import tempfile
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pooch

from vae_lib.files import write_whole

PATIENCE = 5.0  # seconds without news from a server that end a download
SHAPES = {"train-images-idx3-ubyte": (60_000, 28, 28), "train-labels-idx1-ubyte": (60_000,),
          "t10k-images-idx3-ubyte": (10_000, 28, 28), "t10k-labels-idx1-ubyte": (10_000,)}
# MD5 of the unpacked files, in that order. KMNIST's are not on record here: its .gz files are held to
# torchvision's MD5, its unpacked files to their exact size and header.
MD5 = {
    "MNIST": ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
              "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
    "FashionMNIST": ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
                     "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
    "KMNIST": None}
OWNERS = {md5: (name, filename) for name in MD5 for filename, md5 in zip(SHAPES, MD5[name] or ())}


def find(name, folder, filename):
    """Array from a file of the folder, plain or .gz, or None; and what is wrong with files not used."""
    damage = []
    for path in (folder / filename, folder / f"{filename}.gz"):
        try:
            return _read_idx(name, path.name, path.read_bytes()), damage
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            damage.append(f"not used: {path.name}: {error.strerror}")
        except ValueError as error:
            damage.append(f"not used: {error}")
    return None, damage


def _read_idx(name, filename, stored):
    """Array in the bytes of one of the four files, plain or .gz; ValueError names the file and its damage."""
    plain_name = filename.removesuffix(".gz")
    shape = SHAPES[plain_name]
    header = np.array([2048 + len(shape), *shape], dtype=">i4").tobytes()
    if stored.lstrip().startswith(b"<"):
        raise ValueError(f"{filename}: {len(stored):,} bytes of a web page, perhaps of a log-in to the network")
    try:
        content = stored if filename == plain_name else gzip.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{filename}: {len(stored):,} bytes that do not unpack ({error})") from error
    md5 = _md5(content)
    owner = OWNERS.get(md5, (name, plain_name))
    if owner != (name, plain_name):
        raise ValueError(f"{filename}: this is {owner[1]} of {owner[0]}")
    if len(content) != len(header) + math.prod(shape):
        raise ValueError(f"{filename}: {len(content):,} bytes, wanted {len(header) + math.prod(shape):,}")
    if not content.startswith(header):
        raise ValueError(f"{filename}: header {content[:len(header)].hex()}, wanted {header.hex()}")
    if MD5[name]:
        found, wanted = md5, dict(zip(SHAPES, MD5[name]))[plain_name]
    else:  # None for a plain file: nothing to compare
        found, wanted = _md5(stored), dict(_published(name).resources).get(filename)
    if wanted and found != wanted:
        raise ValueError(f"{filename}: MD5 {found}, wanted {wanted}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _published(name):
    """torchvision's class of the set: its mirrors, and the MD5 of each .gz file."""
    from torchvision import datasets  # two seconds, which a set that is there need not wait
    return getattr(datasets, name)


def download(name, filenames):
    """The .gz files as {file name: (bytes, array)} from the first of torchvision's mirrors that has them.

    OSError if none has. A mirror that does not answer is the last one tried.
    """
    problem = "there is no mirror"
    for mirror in _published(name).mirrors:
        try:
            packed = {key: _fetch(f"{mirror}{key}.gz") for key in filenames}
            return {key: (content, _read_idx(name, f"{key}.gz", content)) for key, content in packed.items()}
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            problem = error
    raise OSError(problem)


def _fetch(url):
    """The bytes of a URL; OSError, or TimeoutError after PATIENCE seconds without news."""
    look_up = threading.Thread(target=_look_up, args=(urlsplit(url).hostname,), daemon=True)
    look_up.start()
    look_up.join(PATIENCE)
    if look_up.is_alive():
        raise TimeoutError(f"no answer within {PATIENCE:g} seconds")
    pooch.get_logger().setLevel("WARNING")
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = pooch.retrieve(url, None, path=folder, downloader=pooch.HTTPDownloader(timeout=PATIENCE))
        except OSError as error:
            if "timed out" in str(error):
                raise TimeoutError(f"no answer within {PATIENCE:g} seconds") from error
            raise OSError(getattr((*error.args, error)[0], "reason", error)) from error  # without the retries
        return Path(path).read_bytes()


def _look_up(host):
    """Ask the name service for a host, in a thread, as this has no time-out; the download reports an unknown name."""
    with suppress(OSError):
        socket.getaddrinfo(host, None)


def keep(folder, filename, packed):
    """Store a .gz file in place of a damaged one; a remark if it cannot be stored."""
    try:
        write_whole(folder / f"{filename}.gz", packed)
    except OSError as error:
        return [f"{filename}.gz not stored: {error.strerror}"]
    with suppress(OSError):
        (folder / filename).unlink()
    return []
