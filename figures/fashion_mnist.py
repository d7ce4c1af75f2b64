"""Cut fashion_mnist_20.png, which page 09 shows, out of Fashion-MNIST: the first two test images of each class.

Debian's package dataset-fashion-mnist has the data; `vae_lib.data` says how to name its folder.
"""

from pathlib import Path

import torch
from PIL import Image

from vae_lib.data import load

FILE = Path(__file__).with_name("fashion_mnist_20.png")


def first_of_each_class(images, labels, each=2):
    """The first images of each of ten classes, class by class in a column: (each, 10, 28, 28)."""
    chosen = torch.stack([(labels == label).nonzero()[:each, 0] for label in range(10)], dim=1)
    return images[chosen, 0]


if __name__ == "__main__":
    data = load("FashionMNIST")
    rows = first_of_each_class(data.test, data.test_labels)
    sheet = torch.cat([torch.cat([*row], dim=1) for row in rows])
    Image.fromarray(sheet.numpy()).save(FILE, optimize=True)
    print(f"figures/{FILE.name}")
