"""Prices: the time and memory of a step, over those of a plain gradient step."""

from f3eo.bench.models import MODELS, USUAL
from f3eo.bench.price.cost import Outcome, Plan, measure_cost
from f3eo.bench.price.variants import VARIANTS

__all__ = ["MODELS", "USUAL", "VARIANTS", "Outcome", "Plan", "measure_cost"]
