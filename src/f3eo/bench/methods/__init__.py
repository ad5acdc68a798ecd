"""The methods the benchmark knows, by name: one file each, listed here."""

from collections.abc import Mapping

from f3eo.bench.methods import adamw, f3eo, muon, sam, sgd
from f3eo.bench.methods.method import Closure, Method, Stepper

METHODS: Mapping[str, Method] = {
    module.METHOD.name: module.METHOD for module in (sgd, adamw, muon, sam, f3eo)
}


def label(name: str) -> str:
    """How tables and figures call a method, even one this version does not know."""
    return METHODS[name].label if name in METHODS else name


def colour(name: str) -> str:
    """The colour of a method as #rrggbb, dark grey for one this version does not know."""
    return METHODS[name].colour if name in METHODS else "#374151"


__all__ = ["METHODS", "Closure", "Method", "Stepper", "colour", "label"]
