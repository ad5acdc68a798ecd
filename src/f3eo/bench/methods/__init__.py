"""Methods by name; one method or one family of methods per file."""

from collections.abc import Mapping

from f3eo.bench.methods import (
    adam,
    adamw,
    averaged,
    f3eo,
    hutchinson,
    ivon,
    kronecker,
    last_layer,
    lbfgs,
    momentum_sam,
    muon,
    partial_sam,
    sam,
    schedule_free,
    second_order,
    sgd,
    sharpness,
)
from f3eo.bench.methods.method import Closure, Method, Stepper

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        # first order
        sgd.METHOD,
        adam.METHOD,
        adamw.METHOD,
        muon.METHOD,
        *schedule_free.METHODS,
        averaged.METHOD,
        sam.METHOD,
        partial_sam.METHOD,
        momentum_sam.METHOD,
        *sharpness.METHODS,
        last_layer.METHOD,
        # second order
        *second_order.METHODS,
        lbfgs.METHOD,
        *hutchinson.METHODS,
        *kronecker.METHODS,
        ivon.METHOD,
        # third order
        f3eo.METHOD,
    )
}

USUAL = ("sgd", "adamw", "muon", "sam", "f3eo")
"""The default of `f3eo compare`."""


def label(name: str) -> str:
    """The label of a method in tables and figures; its name if this version has no such method."""
    return METHODS[name].label if name in METHODS else name


def colour(name: str) -> str:
    """The colour of a method as #rrggbb; dark grey if this version has no such method."""
    return METHODS[name].colour if name in METHODS else "#374151"


__all__ = ["METHODS", "USUAL", "Closure", "Method", "Stepper", "colour", "label"]
