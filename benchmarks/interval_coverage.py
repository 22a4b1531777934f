"""How often does a 95 % interval over episodes hold the truth? Simulated at this field's test-split sizes.

    OMP_NUM_THREADS=1 python -m benchmarks.interval_coverage [--repeats 2000]

Each simulated test split has 32 samples per episode (or sizes from 8 to 56). ``icc`` is the share of a
sample's variance that lies between episodes. Episode means are normal, exponential (skewness 2), lognormal
(skewness 3.3; with sigma 1 it is 6.2), or success rates of yes/no samples from a beta distribution around
0.5 or 0.8; with an icc of 0.5 or more most of those episodes are all right or all wrong, which over-covers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from omni_mlflow.metrics.uncertainty import (
    EpisodeEstimate,
    FloatArray,
    Interval,
    cluster_t,
    interval,
    ratio_estimate,
    studentised_bootstrap,
)

SAMPLES = 32
METHODS: dict[str, Callable[[EpisodeEstimate], Interval]] = {
    "cluster-t": cluster_t,
    "studentised": studentised_bootstrap,
    "printed": interval,
}
SHAPES = ("normal", "exponential", "lognormal", "lognormal sigma 1", "yes/no 0.5", "yes/no 0.8")


def simulate(
    shape: str, *, icc: float, episodes: int, unequal: bool, random: np.random.Generator
) -> tuple[EpisodeEstimate, float]:
    """Draw one test split and return the estimate from it, together with the true mean."""
    sizes = random.integers(8, 57, episodes) if unequal else np.full(episodes, SAMPLES)
    if shape.startswith("yes/no"):
        truth = float(shape.split()[1])
        rates = np.full(episodes, truth)
        if icc > 0:
            spread = 1 / icc - 1
            rates = random.beta(truth * spread, (1 - truth) * spread, episodes)
        means, low, high = random.binomial(sizes, rates) / sizes, 0.0, 1.0
    else:
        truth, low, high = 0.0, -np.inf, np.inf
        noise = random.standard_normal(episodes) / np.sqrt(sizes)
        means = np.sqrt(icc) * _standardised(shape, episodes, random) + np.sqrt(1 - icc) * noise
    names = [f"episode {i:02}" for i in range(episodes)]
    found = ratio_estimate(list(means * sizes), [float(size) for size in sizes], names)
    return EpisodeEstimate(found.value, found.influence, found.episodes, low, high), truth


def coverage(
    shape: str, *, icc: float, episodes: int, unequal: bool, repeats: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Return, by method, the share of intervals that hold the truth and their median width."""
    random = np.random.default_rng(seed)
    held = dict.fromkeys(METHODS, 0)
    widths: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(repeats):
        estimate, truth = simulate(shape, icc=icc, episodes=episodes, unequal=unequal, random=random)
        for name, method in METHODS.items():
            found = method(estimate)
            held[name] += found.low - 1e-12 <= truth <= found.high + 1e-12
            widths[name].append(found.high - found.low)
    return {name: (held[name] / repeats, float(np.median(widths[name]))) for name in METHODS}


def _standardised(shape: str, count: int, random: np.random.Generator) -> FloatArray:
    """Draws with mean 0 and variance 1."""
    if shape == "normal":
        return random.standard_normal(count)
    if shape == "exponential":
        return random.exponential(size=count) - 1
    sigma = 1.0 if shape.endswith("sigma 1") else 0.75
    variance = (np.exp(sigma**2) - 1) * np.exp(sigma**2)
    return (random.lognormal(0.0, sigma, count) - np.exp(sigma**2 / 2)) / np.sqrt(variance)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--repeats", type=int, default=2000)
    repeats = options.parse_args().repeats
    print("| Episodes | Sizes | Shape | ICC | " + " | ".join(f"{name} (width)" for name in METHODS) + " |")
    print("|---:|---|---|---:|" + "---:|" * len(METHODS))
    for episodes in (8, 14, 16):
        for shape in SHAPES:
            for icc, unequal in ((0.0, False), (0.2, False), (0.5, False), (0.8, False), (0.5, True)):
                found = coverage(
                    shape, icc=icc, episodes=episodes, unequal=unequal, repeats=repeats, seed=episodes
                )
                cells = " | ".join(f"{share:.3f} ({width:.2f})" for share, width in found.values())
                print(
                    f"| {episodes} | {'8-56' if unequal else '32'} | {shape} | {icc} | {cells} |", flush=True
                )


if __name__ == "__main__":
    main()
