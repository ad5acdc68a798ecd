"""Sizes of batches of one kind that differ from step to step, as lengths of sequences do."""

Sizes = tuple[tuple[int, ...], ...]
"""The shape of every tensor of a batch; dimension 0 counts the samples and does not vary."""

Places = frozenset[tuple[int, int]]
"""Where sizes vary: (number of the tensor in the batch, dimension)."""

SMALLEST = 2
"""Smallest size that can be a symbol: torch treats sizes 0 and 1 apart."""


def varying(sizes: Sizes, other: Sizes) -> Places:
    """The places at which two batches of one kind have different sizes."""
    return frozenset(
        (k, d)
        for k, (own, its) in enumerate(zip(sizes, other, strict=True))
        for d, (a, b) in enumerate(zip(own, its, strict=True))
        if a != b
    )
