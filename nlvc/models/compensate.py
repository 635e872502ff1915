"""Kernels in int8 whose rounding errors cancel on the inputs that a network sees."""

import numpy as np

DAMPING = 1e-2
"""Of the inputs' mean power: as if so much noise were added, which no crops have shown to be absent."""


def moments(x: np.ndarray, size: int) -> np.ndarray:
    """Sums of products of a convolution's inputs: (B, H, W, C) -> float64 (size^2 C, size^2 C).

    Of every second position in both directions: those between say the same.
    """
    total = np.zeros((size * size * x.shape[3],) * 2)
    for photo in x:
        patches = np.lib.stride_tricks.sliding_window_view(photo, (size, size), axis=(0, 1))[::2, ::2]
        rows = patches.transpose(0, 1, 3, 4, 2).reshape(-1, len(total))
        total += rows.T @ rows
    return total


def compensated(kernel: np.ndarray, moments: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """Rounds weights one after the other; the next ones make up for what has gone wrong so far.

    kernel: (k, k, C, C') in units of its integers; moments: (k^2 C, k^2 C) of the inputs, times any number. Returns
    int8 within +-127.

    It is GPTQ (Frantar et al. 2022, section 3), last weight first: for errors e of the weights, those of the output are
    e^T H e = |L^T e|^2 with H = L L^T, and each weight is the integer that makes one element of L^T e small. L, not the
    Cholesky factor of the inverse of H: the same integers with one factorisation.
    """
    wanted = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[3])
    noise = damping * np.mean(np.diag(moments)) + 1e-30
    factor = np.linalg.cholesky(moments + noise * np.eye(len(moments)))
    integers, errors = np.zeros_like(wanted), np.zeros_like(wanted)
    for n in reversed(range(len(wanted))):
        made_up = factor[n + 1 :, n] @ errors[n + 1 :] / factor[n, n]
        integers[n] = np.clip(np.rint(wanted[n] + made_up), -127, 127)
        errors[n] = wanted[n] - integers[n]
    return integers.astype(np.int8).reshape(kernel.shape)
