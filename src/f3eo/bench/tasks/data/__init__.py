"""Data sets in files: read from a folder or downloaded once, always checked by checksum."""

from f3eo.bench.tasks.data.cifar import cifar10
from f3eo.bench.tasks.data.files import FOLDER, File, read
from f3eo.bench.tasks.data.idx import FASHION, MNIST, images
from f3eo.bench.tasks.data.text import shakespeare

__all__ = ["FASHION", "FOLDER", "MNIST", "File", "cifar10", "images", "read", "shakespeare"]
