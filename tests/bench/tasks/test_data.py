"""Files from a folder or the network, whoever packed them; never with another content."""

import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading

import numpy
import pooch
import pytest

from f3eo.bench.tasks import data
from f3eo.bench.tasks.data import cifar
from f3eo.bench.tasks.data.files import File, read
from f3eo.bench.tasks.data.idx import parse

TEXT = b"what is in the file\n" * 50
SHA = hashlib.sha256(TEXT).hexdigest()
FILE = File("set/raw/file", "http://localhost:1/file.gz", f"sha256:{SHA}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(data.FOLDER, str(tmp_path))
    (tmp_path / "set/raw").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("level", [1, 9])
def test_a_file_of_the_folder_may_be_packed_by_anyone(folder, level):
    (folder / "set/raw/file.gz").write_bytes(gzip.compress(TEXT, level))
    assert read(FILE) == TEXT


def test_a_file_of_the_folder_may_be_unpacked(folder):
    (folder / "set/raw/file").write_bytes(TEXT)
    assert read(FILE) == TEXT


def test_a_missing_file_is_named_with_the_folder_and_the_cure(folder):
    with pytest.raises(FileNotFoundError) as error:
        read(FILE)
    for part in (repr(str(folder)), "set/raw/file, set/raw/file.gz", "unset F3EO_DATA"):
        assert part in str(error.value)


def test_another_content_is_refused(folder):
    (folder / "set/raw/file").write_bytes(TEXT + b"!")
    with pytest.raises(ValueError, match=rf"set/raw/file has sha256 .* must be {SHA}; remove it"):
        read(FILE)


def test_a_damaged_archive_is_refused(folder):
    (folder / "set/raw/file.gz").write_bytes(gzip.compress(TEXT)[:-20])
    with pytest.raises(ValueError, match=r"file\.gz is damaged .*; remove it"):
        read(FILE)


def test_without_a_folder_a_file_is_downloaded_once(tmp_path, monkeypatch):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(gzip.compress(TEXT))

        def log_message(self, *words):
            pass

    monkeypatch.delenv(data.FOLDER, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    with http.server.HTTPServer(("localhost", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        file = FILE._replace(url=f"http://localhost:{server.server_port}/file.gz")
        assert read(file) == read(file) == TEXT
        server.shutdown()
    assert asked == ["/file.gz"]
    assert (tmp_path / "f3eo/set/raw/file.gz").is_file()


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv(data.FOLDER, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    with pytest.raises(FileNotFoundError) as error:
        read(FILE)
    for part in (FILE.url, str(tmp_path), "as set/raw/file.gz, and set F3EO_DATA"):
        assert part in str(error.value)


def test_idx_is_read_by_its_sizes():
    head = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3])
    array = parse(head + bytes(range(6)))
    assert array.tolist() == [[[0, 1, 2]], [[3, 4, 5]]] and array.dtype == numpy.uint8
    for wrong in (head, head + bytes(5), head + bytes(7), head[:7], b"", b"\x00\x00\x08"):
        with pytest.raises(ValueError, match="idx data"):
            parse(wrong)
    with pytest.raises(ValueError, match="start with 00 00 08, got 00 00 0d"):
        parse(bytes([0, 0, 13]) + head[3:] + bytes(6))


@pytest.fixture
def batches(monkeypatch):
    """The six batches of CIFAR-10 with three images each."""
    generator, made = numpy.random.default_rng(0), {}
    for number, name in enumerate(cifar.HASHES):
        rows = generator.integers(0, 256, (3, 3072), dtype=numpy.uint8)
        made[name] = pickle.dumps({b"data": rows, b"labels": [number, 8, 9]})
        monkeypatch.setitem(cifar.HASHES, name, f"md5:{hashlib.md5(made[name]).hexdigest()}")
    return made


def check(images, batches):
    assert images.source == "CIFAR-10, original"
    assert images.train[1].tolist() == [n if k == 0 else 7 + k for n in range(5) for k in range(3)]
    assert images.test[1].tolist() == [5, 8, 9] and images.train[0].shape == (15, 32, 32, 3)
    rows = pickle.loads(batches["test_batch"], encoding="bytes")[b"data"]
    assert (images.test[0][1, 4, 5] == rows[1].reshape(3, 32, 32)[:, 4, 5]).all()


def test_cifar10_is_read_from_torchvisions_folder(folder, batches):
    (folder / cifar.BATCHES).mkdir()
    for name, batch in batches.items():
        (folder / cifar.BATCHES / name).write_bytes(batch)
    (folder / cifar.JPEG).write_bytes(b"")  # the original is preferred
    check(data.cifar10(), batches)
    assert len(data.cifar10(4, 2).train[1]) == 4 and len(data.cifar10(4, 2).test[0]) == 2


def test_cifar10_is_read_from_the_archive_and_no_pickle_unchecked(folder, batches, monkeypatch):
    with tarfile.open(folder / cifar.ARCHIVE, "w:gz") as archive:
        for name, batch in batches.items():
            entry = tarfile.TarInfo(f"{cifar.BATCHES}/{name}")
            entry.size = len(batch)
            archive.addfile(entry, io.BytesIO(batch))
    check(data.cifar10(), batches)
    monkeypatch.setitem(cifar.HASHES, "data_batch_3", "md5:0")
    monkeypatch.setattr(pickle, "loads", None)
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz has md5 .* must be 0; remove it"):
        data.cifar10()
    (folder / cifar.ARCHIVE).write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"tar\.gz is damaged"):
        data.cifar10()


def test_the_jpeg_copy_says_that_it_is_one(folder, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    files, arrays = [], {}
    for shade in (0, 100, 255):
        buffer = io.BytesIO()
        image.new("RGB", (32, 32), (shade, 50, 50)).save(buffer, "jpeg", quality=95)
        files.append(buffer.getvalue())
    for part in ("train", "test"):
        arrays |= {
            f"{part}_jpeg": numpy.frombuffer(b"".join(files), numpy.uint8),
            f"{part}_offset": numpy.cumsum([0, *map(len, files)]),
            f"{part}_label": numpy.array([3, 1, 2], numpy.uint8),
        }
    numpy.savez_compressed(folder / cifar.JPEG, **arrays)
    with pytest.raises(ValueError, match=r"cifar10-jpeg\.npz has sha256"):
        data.cifar10()
    found = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
    monkeypatch.setattr(cifar, "JPEG_HASH", f"sha256:{found}")
    images = data.cifar10(2)
    assert "lossy" in images.source
    assert images.train[1].tolist() == [3, 1] and images.test[1].tolist() == [3, 1, 2]
    assert abs(images.test[0][:, 16, 16].astype(int)[:, 0] - [0, 100, 255]).max() < 4


def test_no_form_of_cifar10_is_a_missing_file(folder):
    with pytest.raises(FileNotFoundError, match=r"cifar-10-batches-py/.*tar\.gz, cifar10-jpeg"):
        data.cifar10()


@pytest.mark.parametrize("name", ["MNIST", "FASHION"])
def test_the_images_are_the_published_ones(name, needs_data):
    """Ten classes of equal size in all but MNIST; MNIST's training images by their known MD5."""
    x, y = data.images(getattr(data, name), "train")
    unseen, answers = data.images(getattr(data, name), "t10k")
    assert x.shape == (60_000, 28, 28) and unseen.shape == (10_000, 28, 28)
    if name == "FASHION":
        assert set(numpy.bincount(y)) == {6_000} and set(numpy.bincount(answers)) == {1_000}
    else:
        raw = bytes([0, 0, 8, 3, 0, 0, 0xEA, 0x60, 0, 0, 0, 28, 0, 0, 0, 28]) + x.tobytes()
        assert hashlib.md5(raw).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"


def test_the_text_is_the_published_one(needs_data):
    text = data.shakespeare()
    assert len(text) == 1_115_394 and len(set(text)) == 65 and text.startswith("First Citizen:")
