"""Sums over processes of many tensors at once, in flat buckets."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

BUCKET = 25 * 2**20
"""Bytes of a bucket, as in DistributedDataParallel; a larger tensor is one by itself."""

Start = Callable[[Tensor], Any]
"""Begins to sum a tensor over all processes, in place; the result has `wait()`."""


def plan(like: Sequence[Tensor], limit: int = BUCKET) -> list[list[int]]:
    """The tensors that share a bucket: of one type and device, in order.

    Args:
        like: tensors of the shapes, types and devices that are summed.
        limit: bytes of a bucket.

    Returns:
        positions in `like`, a list a bucket; the same on every process.
    """
    buckets: list[list[int]] = []
    open_ones: dict[Any, tuple[list[int], int]] = {}
    for i, tensor in enumerate(like):
        kind, own = (tensor.dtype, tensor.device), tensor.numel() * tensor.element_size()
        bucket, filled = open_ones.get(kind, ([], 0))
        if not bucket or filled + own > limit:
            bucket, filled = [], 0
            buckets.append(bucket)
        bucket.append(i)
        open_ones[kind] = bucket, filled + own
    return buckets


def pack(tensors: Sequence[Tensor | None], like: Sequence[Tensor], share: float) -> Tensor:
    """share · x of all tensors, one behind the other; zeros for None, and for a share of 0.

    Args:
        tensors: x, of one type and device.
        like: of their shapes; one at least.
        share: of this process.
    """
    flat = torch.empty(sum([t.numel() for t in like]), dtype=like[0].dtype, device=like[0].device)
    for x, place in zip(tensors, unpack(flat, like), strict=True):
        if x is None or share == 0:  # what does not count may not be finite
            place.zero_()
        else:
            place.copy_(x).mul_(share)
    return flat


def unpack(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of the bucket in the shapes of the tensors."""
    views, start = [], 0
    for tensor in like:
        count = prod(tensor.shape)
        views.append(flat[start : start + count].view(tensor.shape))
        start += count
    return views


class Sums:
    """Σ_r a_r x_r of many tensors over processes r: all sums are begun, then waited for.

    Args:
        start: begins the sum of a bucket.
        share: a_r of this process.
    """

    def __init__(self, start: Start, share: float) -> None:
        self._start = start
        self._share = share
        self._begun: list[tuple[Any, Tensor]] = []
        self.bytes = 0
        """Of all buckets so far, in one process."""

    def begin(self, tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
        """Begin sums of these tensors.

        Args:
            tensors: x_r; None counts as zeros.
            like: of the same shapes; with the types and devices of the sums.

        Returns:
            the sums, contiguous, which are there after `wait`.
        """
        sums: list[Tensor] = list(like)
        for bucket in plan(like):
            shapes = [like[i] for i in bucket]
            flat = pack([tensors[i] for i in bucket], shapes, self._share)
            self.bytes += flat.numel() * flat.element_size()
            self._begun.append((self._start(flat), flat))
            for i, view in zip(bucket, unpack(flat, shapes), strict=True):
                sums[i] = view
        return sums

    def wait(self) -> None:
        """Wait for all sums that were begun."""
        for work, _ in self._begun:
            work.wait()
        self._begun.clear()
