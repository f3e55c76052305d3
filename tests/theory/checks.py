"""How a sample of trajectories is held against a law: p-values, or a stated band for an approximation.

Nothing here uses the package's own comparison.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def p_values(logs, law):
    """p-values by name of trajectories (chains, L+1) under an exact law, at layer 0 and halfway up."""
    depth = logs.shape[1] - 1
    result = {}
    for layer in sorted({0, depth // 2}):
        alive = logs[np.isfinite(logs[:, layer]), layer]
        dead = len(logs) - len(alive)
        result[f"deaths {layer}"] = stats.binomtest(dead, len(logs), float(law.p_dead[layer])).pvalue
        if math.isnan(law.mean[layer]):
            result[f"second moment {layer}"] = second_moment(logs[:, layer], law.log_second_moment[layer])
        elif law.var[layer] == 0.0:
            result[f"value {layer}"] = float(np.abs(alive - law.mean[layer]).max() < 1e-12)
        else:
            result |= {f"{name} {layer}": p for name, p in spread(alive, law, layer).items()}
    alive = logs[np.isfinite(logs).all(axis=1)]
    increments = alive[:, :-1] - alive[:, 1:]
    if law.increments is not None and (law.increments.var > 0).all() and depth > 1:
        correlation = stats.pearsonr(increments[:, 0], increments[:, 1])
        result["neighbouring layers"] = correlation.pvalue
    return result


def spread(sample, law, layer):
    n, mean, var = len(sample), law.mean[layer], law.var[layer]
    result = {
        "mean": normal((sample.mean() - mean) / math.sqrt(var / n)),
        "variance": normal((sample.var() - var) / math.sqrt((law.fourth[layer] - var**2) / n)),
    }
    sample = np.sort(sample)
    # An atom may be met from either side by rounding.
    ends = law.cdf(np.stack([sample - 1e-9, sample + 1e-9]), layer)
    if ends is not None:
        low, high = ends
        distance = max((np.arange(1, n + 1) / n - high).max(), (low - np.arange(n) / n).max(), 0.0)
        result["ks"] = float(stats.kstwo.sf(distance, n))
    return result


def second_moment(logs, log_expected):
    ratio = np.exp(2.0 * logs - log_expected)
    return normal((ratio.mean() - 1.0) / (ratio.std() / math.sqrt(len(ratio))))


def normal(z):
    return 2.0 * float(stats.norm.sf(abs(z)))


def within_leading_order(logs, law, gaussian):
    """Whether mean and variance at layer 0 lie within 5 errors and 0.3 of the law's correction."""
    sample = logs[np.isfinite(logs[:, 0]), 0]
    n = len(sample)
    fourth = np.mean((sample - sample.mean()) ** 4)
    mean_error = 5 * math.sqrt(sample.var() / n)
    variance_error = 5 * math.sqrt((fourth - sample.var() ** 2) / n)
    correction = abs(gaussian["true"].var[0] - gaussian["law"].var[0])
    return bool(
        abs(sample.mean() - law.mean[0]) < mean_error + 0.15 * correction
        and abs(sample.var() - law.var[0]) < variance_error + 0.3 * correction
    )


def within_mean_field(logs, law, width):
    """Whether ln E||g_0||^2 lies within 5 errors and L/(2 n), and the mean of ln||g_0|| at most (3/2) L/n
    below it.
    """
    depth = logs.shape[1] - 1
    squared = np.exp(2.0 * logs[:, 0] - law.log_second_moment[0])
    error = 5 * squared.std() / math.sqrt(len(squared)) / squared.mean()
    below = law.mean[0] - logs[:, 0].mean()
    noise = 5 * logs[:, 0].std() / math.sqrt(len(logs))
    return bool(
        abs(math.log(squared.mean())) < error + 0.5 * depth / width and -noise < below < 1.5 * depth / width + noise
    )
