"""What one step costs, in time and memory, next to a plain gradient step."""

from f3eo.bench.cost.measure import Outcome, Plan, measure
from f3eo.bench.cost.methods import METHODS
from f3eo.bench.cost.models import MODELS, USUAL

__all__ = ["METHODS", "MODELS", "USUAL", "Outcome", "Plan", "measure"]
