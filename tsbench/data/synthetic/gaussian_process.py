"""Gaussian processes with random composed kernels, sampled by circulant embedding."""

import numpy as np
from scipy import fft

from tsbench.data.synthetic.primitives import Series, chosen, log_uniform, split_rows, uniform, white
from tsbench.data.synthetic.seasonal import PERIODS, draw_periods

_SERIES_PER_KERNEL = 4
# Shares of the five kernels, in the order of `_terms`: of the first term, and of those that join it.
_FIRST = (0.65, 0.12, 0.1, 0.13, 0.0)
_FURTHER = (0.4, 0.15, 0.12, 0.18, 0.15)


def gaussian_process(rng: np.random.Generator, count: int, length: int) -> Series:
    """Sample Gaussian processes whose kernels are sums and products of simple ones.

    Each kernel has one to three terms from: quasi-periodic exp(-2·sin²(πτ/p)/s² - (τ/l)²/2), squared
    exponential, rational quadratic, Matérn-3/2 and white noise; each further term is added or multiplied.
    A third get a linear kernel on top, which is a random line.

    Args:
        rng: Source of randomness.
        count: Number of series.
        length: Steps per series.

    Returns:
        [count, length] float32, not scaled.

    Source: KernelSynth, Ansari et al. 2024 (arXiv 2403.07815, appendix B). It factorises a dense covariance
    matrix for each series; here kernels are stationary, so that the FFT samples them, four series share a
    kernel, and a periodic kernel always decays, as the embedding needs.
    """
    kernels = -(-count // _SERIES_PER_KERNEL)
    series = sample_stationary(rng, random_kernels(rng, kernels, length), _SERIES_PER_KERNEL)[:count]
    series = series[rng.permutation(count)]
    rows = chosen(rng, 0.33, count)
    slope = 1.5 * white(rng, len(rows), 1)
    series[rows] += slope * np.linspace(-1, 1, length, dtype=np.float32)
    return series


def random_kernels(rng: np.random.Generator, count: int, length: int) -> Series:
    """Covariances at lags 0..length-1 of random composed kernels, [count, length], 1 at lag 0."""
    kernels = _terms(rng, _FIRST, count, length)
    for probability in (0.65, 0.35):
        rows = chosen(rng, probability, count)
        term = _terms(rng, _FURTHER, len(rows), length)
        weight = uniform(rng, 0.1, 0.6, len(rows))
        product = rng.random((len(rows), 1)) < 0.25
        kernels[rows] = np.where(product, kernels[rows] * term, (1 - weight) * kernels[rows] + weight * term)
    return kernels


def sample_stationary(rng: np.random.Generator, kernels: Series, draws: int) -> Series:
    """Sample zero-mean Gaussian processes with given covariances.

    The covariance is laid on a ring of twice the length; its eigenvalues are the Fourier transform, and
    real and imaginary part of one complex sample are two independent series. Eigenvalues below zero (a
    kernel that has not died out by half the ring) are set to zero.

    Args:
        rng: Source of randomness.
        kernels: [kernels, length] float32, covariance at lags 0..length-1.
        draws: Series per kernel, even.

    Returns:
        [kernels · draws, length] float32, the draws of a kernel side by side.

    Source: Dietrich and Newsam 1997, "Fast and exact simulation of stationary Gaussian processes through
    circulant embedding of the covariance matrix", doi:10.1137/S1064827592240555.
    """
    count, length = kernels.shape
    size = 2 * fft.next_fast_len(length, real=True)
    half = np.zeros((count, size // 2 + 1), np.float32)
    half[:, :length] = kernels
    ring = np.concatenate([half, half[:, -2:0:-1]], axis=1)
    eigenvalues = np.maximum(fft.rfft(ring, axis=1).real, 0)
    spectrum = np.sqrt(np.concatenate([eigenvalues, eigenvalues[:, -2:0:-1]], axis=1) / size)
    noise = rng.standard_normal((count, draws // 2, size, 2), dtype=np.float32).view(np.complex64)[..., 0]
    samples = fft.fft(noise * spectrum[:, None], axis=-1)[..., :length]
    return np.stack([samples.real, samples.imag], axis=2).reshape(count * draws, length)


def _terms(rng: np.random.Generator, shares: tuple[float, ...], count: int, length: int) -> Series:
    lag = np.arange(length, dtype=np.float32)
    terms = np.empty((count, length), np.float32)
    periodic, smooth, rational, matern, rough = split_rows(rng, shares, count)

    period = draw_periods(rng, PERIODS, len(periodic))
    width = log_uniform(rng, 0.2, 1.0, len(periodic))
    decay = np.minimum(period * log_uniform(rng, 3.0, 60.0, len(periodic)), length / 2.5)
    terms[periodic] = np.exp(-2 * (np.sin(np.pi * lag / period) / width) ** 2 - (lag / decay) ** 2 / 2)

    scale = log_uniform(rng, 3, max(length / 4, 4), len(smooth))
    terms[smooth] = np.exp(-((lag / scale) ** 2) / 2)

    scale = log_uniform(rng, 3, max(length / 10, 4), len(rational))
    shape = log_uniform(rng, 0.5, 4.0, len(rational))
    terms[rational] = (1 + (lag / scale) ** 2 / (2 * shape)) ** -shape

    scaled = np.sqrt(np.float32(3)) * lag / log_uniform(rng, 2, max(length / 6, 3), len(matern))
    terms[matern] = (1 + scaled) * np.exp(-scaled)

    terms[rough] = lag == 0
    return terms
