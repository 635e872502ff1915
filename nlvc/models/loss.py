"""The rate-distortion Lagrangian, with its units (Ballé et al. 2017; Pérez-Gonzalo et al. 2024).

    mse:      loss = bits/pixel + lmbda * 255^2 * MSE         x in [0, 1]; bpp counts pixels, MSE samples
    ms-ssim:  loss = bits/pixel + lmbda * (1 - MS-SSIM)
"""

import jax.numpy as jnp
from jax import Array

from nlvc.config import Config
from nlvc.models.distortion import ms_ssim, mse
from nlvc.models.nested import Output


def rate_distortion(config: Config, output: Output, x: Array) -> tuple[Array, dict[str, Array]]:
    """The mean Lagrangian of a batch and its named terms.

    x: (B, H, W, 3). The terms: bpp (bits/pixel), bpp_levels (L,) for z_1..z_L, mse (of x in [0, 1]), psnr (dB, mean
    of the crops), and ms_ssim where that is the distortion.
    """
    pixels = x.shape[1] * x.shape[2]
    bpp_levels = jnp.stack([jnp.mean(bits) for bits in output.bits]) / pixels
    errors = mse(x, output.x_hat)
    terms = {
        "bpp": jnp.sum(bpp_levels),
        "bpp_levels": bpp_levels,
        "mse": jnp.mean(errors),
        "psnr": jnp.mean(-10 * jnp.log10(jnp.maximum(errors, 1e-10))),
    }
    if config.distortion == "ms-ssim":
        terms["ms_ssim"] = jnp.mean(ms_ssim(x, output.x_hat))
        distortion = 1 - terms["ms_ssim"]
    else:
        distortion = 255.0**2 * terms["mse"]
    return terms["bpp"] + config.lmbda * distortion, terms
