"""Data sets that come as files: fetched once, or taken from a folder, and checked either way."""

from f3eo.bench.tasks.data.cifar import cifar10
from f3eo.bench.tasks.data.files import FOLDER, File, content
from f3eo.bench.tasks.data.idx import FASHION, MNIST, images
from f3eo.bench.tasks.data.text import shakespeare

__all__ = ["FASHION", "FOLDER", "MNIST", "File", "cifar10", "content", "images", "shakespeare"]
