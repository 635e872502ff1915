"""Between levels, beside the networks: z_{l+1} tells where z_l is busy, and with it the scales of p(z_l|z_{l+1}).

How large the coefficients of a transform code are changes from place to place, for all its components together. Telling
that is most of what a hyperprior does (Ballé et al. 2018, section 3), and it is nearly linear in the logarithm.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from nlvc.models.layers import add_bias, log_energy
from nlvc.models.rates import at

UNIT = 0.1
"""The maps are stored with entries around 1 and used times this, so that a step of Adam turns them a little."""


class EnergyPath(nn.Module):
    """Two linear maps between the log energies of z_l and z_{l+1}; they start at zero, or by `models.start`."""

    stride: int
    below: int
    above: int
    knots: tuple[int, ...] = ()

    def setup(self):
        zeros = nn.initializers.zeros
        self.analysis = self.param("analysis", zeros, (self.below, self.above))
        self.bias = self.param("bias", zeros, (*self.knots, self.above))
        self.synthesis = self.param("synthesis", zeros, (self.above, self.below))

    def analyse(self, z: Array, weights: Array | None = None) -> Array:
        """z_l (B, h, w, C_l) in bins -> its part of z_{l+1}, (B, ceil(h/stride), ceil(w/stride), C_{l+1})."""
        energy = jnp.dot(log_energy(z, self.stride), UNIT * self.analysis)
        return energy + at(self.bias, weights) if self.knots else add_bias(energy, self.bias)

    def synthesise(self, above: Array) -> Array:
        """z_{l+1} (B, h, w, C_{l+1}) -> the change of z_l's log scales, (B, stride h, stride w, C_l)."""
        change = jnp.dot(above, UNIT * self.synthesis)
        return change.repeat(self.stride, axis=1).repeat(self.stride, axis=2)
