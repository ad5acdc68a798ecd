"""The lengths of kept structure directions, which stay from one measurement to the next."""

from collections.abc import Sequence
from typing import Any
from weakref import ref

from torch import Tensor

from f3eo.tensors import Vector, norms, stacked


class Lengths:
    """Squared lengths of the tensors of a vector, measured again where one was written into.

    Tensors are recognised by identity and version, and not kept alive. A copy knows nothing.
    """

    def __init__(self) -> None:
        self._tensors: list[ref[Tensor]] = []
        self._versions: list[int] = []
        self._squares: list[float] = []

    def __reduce__(self) -> Any:
        return Lengths, ()

    def squares(self, vector: Vector) -> Sequence[float]:
        """‖v_p‖² of every tensor, as `f3eo.tensors.squares` gives it.

        Args:
            vector: tensors; those of the last call are not measured again.
        """
        versions = [v._version for v in vector]
        known = versions == self._versions and len(vector) == len(self._tensors)
        if not known or any([r() is not v for r, v in zip(self._tensors, vector, strict=True)]):
            self._squares = stacked(norms(vector)).square().tolist()
            self._tensors = [ref(v) for v in vector]
            self._versions = versions
        return self._squares
