"""What one step costs, in time and memory, next to a plain gradient step."""

from f3eo.bench.models import MODELS, USUAL
from f3eo.bench.price.measure import Outcome, Plan, measure
from f3eo.bench.price.methods import METHODS

__all__ = ["METHODS", "MODELS", "USUAL", "Outcome", "Plan", "measure"]
