"""The rate-distortion Lagrangian, with its units (Ballé et al. 2017; Pérez-Gonzalo et al. 2024).

mse:      loss = bits/pixel + lmbda * 255^2 * MSE         x in [0, 1]; bpp counts pixels, MSE samples
ms-ssim:  loss = bits/pixel + lmbda * (1 - MS-SSIM)
"""

import jax.numpy as jnp
from jax import Array, lax

from nlvc.config import Config
from nlvc.models.distortion import ms_ssim, mse
from nlvc.models.nested import Output


def rate_distortion(
    config: Config, output: Output, x: Array | None, lmbda: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """The mean Lagrangian of a batch and its named terms.

    x: (B, H, W, 3); lmbda: the config's, unless given: a scalar, or (B,), each photo's own for a model of variable
    rate. Lagrangians grow about as the root of lambda, so there each is divided by that of lambda / 0.013: all rates
    count alike. The terms: bpp (bits/pixel), bpp_levels (L,) for z_1..z_L, mse (of x in [0, 1]), psnr (dB, mean of
    the crops), and ms_ssim where that is the distortion. Of an output without x_hat the rate alone counts, and x may be
    None, which stands for crops of the config's size.
    """
    lmbda = config.lmbda if lmbda is None else lmbda
    pixels = config.patch_size**2 if x is None else x.shape[1] * x.shape[2]
    bpp_levels = jnp.stack(output.bits) / pixels
    lagrangians = jnp.sum(bpp_levels, axis=0)
    terms = {"bpp": jnp.mean(lagrangians), "bpp_levels": jnp.mean(bpp_levels, axis=1)}
    if output.x_hat is not None:
        errors = mse(x, output.x_hat)
        terms["mse"] = jnp.mean(errors)
        terms["psnr"] = jnp.mean(-10 * jnp.log10(jnp.maximum(errors, 1e-10)))
        if config.distortion == "ms-ssim":
            terms["ms_ssim"] = jnp.mean(ms_ssim(x, output.x_hat))
            return terms["bpp"] + lmbda * (1 - terms["ms_ssim"]), terms
        lagrangians = lagrangians + lmbda * 255.0**2 * errors
    if config.rate == "variable":
        lagrangians = lagrangians * lax.rsqrt(lmbda / 0.013)
    return jnp.mean(lagrangians), terms
