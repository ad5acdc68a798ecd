"""Free energy = complexity − accuracy, for three approximate posteriors around a trained model."""

from f3eo.instruments.free_energy.change import Change, effect
from f3eo.instruments.free_energy.isotropic import IsotropicNoise
from f3eo.instruments.free_energy.laplace import Laplace
from f3eo.instruments.free_energy.measure import free_energy
from f3eo.instruments.free_energy.multiplicative import MultiplicativeNoise
from f3eo.instruments.free_energy.posterior import Posterior
from f3eo.instruments.free_energy.prior import GaussianPrior, LogUniformPrior, RelativePrior
from f3eo.instruments.free_energy.record import Energy

__all__ = [
    "Change",
    "Energy",
    "GaussianPrior",
    "IsotropicNoise",
    "Laplace",
    "LogUniformPrior",
    "MultiplicativeNoise",
    "Posterior",
    "RelativePrior",
    "effect",
    "free_energy",
]
