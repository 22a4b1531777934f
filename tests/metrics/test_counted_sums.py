"""Counting equal contributions before they are summed changes no bit of a sum."""

import random

from omni_mlflow.metrics import episode_sums
from omni_mlflow.metrics.episode_sums import EpisodeSums


def test_sums_are_the_same_to_the_last_bit_however_many_contributions_are_counted_first(monkeypatch):
    draw = random.Random(2)
    parts = [(f"ep{number % 7}", (draw.random(), float(draw.random() < 0.9))) for number in range(500)]
    found = []
    for most in (0, 10, 10_000):
        monkeypatch.setattr(episode_sums, "_MOST_COUNTED", most)
        sums = EpisodeSums()
        for episode, part in [*parts, *parts, ("ep1", None)]:
            sums.add(episode, part)
        found.append((sums.num_samples, sums.estimate().value, sums.effective_sample_size()))
    assert found[0] == found[1] == found[2]
    assert found[0][0] == 1000
