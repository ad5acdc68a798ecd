"""Second-order optimizers: ∇L preconditioned with the curvature of the loss.

They take the same closure as F3EO. `report` says after every step what was promised and what came.
"""

from f3eo.second_order.gauss_newton import GaussNewton
from f3eo.second_order.layerwise_gauss_newton import LayerwiseGaussNewton
from f3eo.second_order.newton_cg import NewtonCG
from f3eo.second_order.optimizer import SecondOrder
from f3eo.second_order.report import Report

__all__ = ["GaussNewton", "LayerwiseGaussNewton", "NewtonCG", "Report", "SecondOrder"]
