"""The methods the benchmark knows, by name: one file each, listed here."""

from collections.abc import Mapping

from f3eo.bench.methods import adamw, f3eo, muon, sam, sgd
from f3eo.bench.methods.method import Closure, Method, Stepper

METHODS: Mapping[str, Method] = {
    module.METHOD.name: module.METHOD for module in (sgd, adamw, muon, sam, f3eo)
}

__all__ = ["METHODS", "Closure", "Method", "Stepper"]
