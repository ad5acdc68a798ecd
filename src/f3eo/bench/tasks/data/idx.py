"""MNIST and Fashion-MNIST: 28×28 grey images and labels in the idx format."""

import math
import struct
from typing import Literal

import numpy

from f3eo.bench.tasks.data.files import File, read

Part = Literal["train", "t10k"]
Set = dict[tuple[Part, str], File]


def _files(folder: str, url: str, hashes: dict[tuple[Part, str], str]) -> Set:
    files = {}
    for (part, kind), hash in hashes.items():
        name = f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
        files[part, kind] = File(f"{folder}/raw/{name}", f"{url}/{name}.gz", f"sha256:{hash}")
    return files


MNIST = _files(
    "MNIST",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    {
        ("train", "images"): "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ("train", "labels"): "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ("t10k", "images"): "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ("t10k", "labels"): "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
FASHION = _files(
    "FashionMNIST",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    {
        ("train", "images"): "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ("train", "labels"): "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ("t10k", "images"): "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ("t10k", "labels"): "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)


def images(files: Set, part: Part) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Images (N, 28, 28) and labels (N,), both uint8.

    Args:
        files: `MNIST` or `FASHION`.
        part: "train" (60,000 images) or "t10k" (10,000 test images).

    Raises:
        FileNotFoundError, ValueError: see `f3eo.bench.tasks.data.files.read`.
    """
    return parse(read(files[part, "images"])), parse(read(files[part, "labels"]))


def parse(data: bytes) -> numpy.ndarray:
    """Parse an uint8 array in the idx format: 0, 0, 8, number of dimensions, sizes, entries.

    Raises:
        ValueError: the data have another format, or their length does not match the sizes.
    """
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"idx data of type uint8 start with 00 00 08, got {data[:3].hex(' ')}")
    start = 4 + 4 * data[3]
    shape = struct.unpack_from(f">{data[3]}I", data, 4) if len(data) >= start else ()
    if len(data) != start + math.prod(shape):
        raise ValueError(f"idx data of shape {shape} do not have {len(data)} bytes")
    return numpy.frombuffer(data, numpy.uint8, offset=start).reshape(shape)
