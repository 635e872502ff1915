"""The mathematics of the codec, in JAX and Flax: priors, quantisation, transforms, the nested model and its loss."""
