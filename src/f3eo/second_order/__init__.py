"""Second-order optimizers: steps that minimise a quadratic model of the loss.

They take the same closure as F3EO. After every step `report` holds the predicted and the actual
reduction of the loss.
"""

from f3eo.second_order.gauss_newton import GaussNewton
from f3eo.second_order.layerwise_gauss_newton import LayerwiseGaussNewton
from f3eo.second_order.newton_cg import NewtonCG
from f3eo.second_order.optimizer import SecondOrder
from f3eo.second_order.report import Report

__all__ = ["GaussNewton", "LayerwiseGaussNewton", "NewtonCG", "Report", "SecondOrder"]
