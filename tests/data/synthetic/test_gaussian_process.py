import numpy as np
import pytest

from tsbench.data.synthetic.gaussian_process import gaussian_process, random_kernels, sample_stationary
from tsbench.data.synthetic.primitives import Series


def kernels(length: int) -> Series:
    lag = np.arange(length)
    return np.stack(
        [
            np.exp(-lag / 8),
            np.exp(-((lag / 6) ** 2) / 2),
            np.exp(-2 * np.sin(np.pi * lag / 12) ** 2 - (lag / 20) ** 2 / 2),
            lag == 0,
        ]
    ).astype(np.float32)


def test_sample_covariance_is_that_of_the_kernel() -> None:
    length, draws = 64, 6000
    wanted = kernels(length)
    series = sample_stationary(np.random.default_rng(0), wanted, draws).reshape(4, draws, length)
    for kernel, sample in zip(wanted, series, strict=True):
        dense = kernel[np.abs(np.subtract.outer(np.arange(length), np.arange(length)))]
        np.testing.assert_allclose(sample.T @ sample / draws, dense, atol=0.075)


def test_real_and_imaginary_draws_are_independent() -> None:
    series = sample_stationary(np.random.default_rng(0), kernels(32)[:1], 8000)
    assert np.abs((series[::2, :, None] * series[1::2, None, :]).mean(axis=0)).max() < 0.075


def test_random_kernels_are_covariances() -> None:
    length = 200
    drawn = random_kernels(np.random.default_rng(0), 200, length).astype(np.float64)
    np.testing.assert_allclose(drawn[:, 0], 1, atol=1e-6)
    lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    assert min(np.linalg.eigvalsh(kernel[lags])[0] for kernel in drawn[:40]) > -1e-4


def test_little_variance_is_lost_on_the_ring() -> None:
    drawn = random_kernels(np.random.default_rng(0), 500, 1232)
    ring = np.concatenate([drawn, drawn[:, -2:0:-1]], axis=1)
    eigenvalues = np.fft.rfft(ring, axis=1).real
    lost = np.maximum(-eigenvalues, 0).sum(axis=1) / eigenvalues.sum(axis=1)
    assert np.quantile(lost, 0.95) < 0.05


@pytest.mark.parametrize("count", [0, 1, 5])
def test_any_count_is_drawn(count: int) -> None:
    assert gaussian_process(np.random.default_rng(0), count, 48).shape == (count, 48)
