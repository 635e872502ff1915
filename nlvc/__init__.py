"""nlvc: lossy image compression with L-level nested latent variable models, in JAX and Flax.

    data = nlvc.compress(image, model="runs/mine")     uint8 array or Pillow image -> bytes of a .nlvc file
    image = nlvc.decompress(data, model="runs/mine")   -> uint8 array

The heavy imports (JAX, Numba) happen at the first use of a name, so that `import nlvc` is light.
"""

__version__ = "0.1.0"

__all__ = ["compress", "decompress", "load"]


def __getattr__(name: str):
    if name in __all__:
        from nlvc import image_codec

        return getattr(image_codec, name)
    raise AttributeError(f"module 'nlvc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
