"""Counting equal contributions, and equal rows, before they are summed changes no bit of a sum."""

import random
from collections import Counter

from omni_mlflow.metrics import episode_sums, row_tally
from omni_mlflow.metrics.episode_sums import EpisodeSums
from omni_mlflow.metrics.row_tally import RowTally


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


def test_rows_counted_together_give_what_each_row_gives_alone(monkeypatch):
    draw = random.Random(3)
    rows = [
        {
            "episode_id": f"ep{draw.randrange(3)}",
            "true_label": draw.choice("ab"),
            "predicted_label": draw.choice(["a", "c", None]),
            "weight": draw.choice([None, (draw.random(), 1.0), (1.0, 1.0)]),
        }
        for _ in range(300)
    ]
    found = []
    for most in (0, 7, 10_000):
        monkeypatch.setattr(row_tally, "_MOST_COUNTED", most)
        tally = RowTally({"weight": lambda row: row["weight"]})
        for row in rows:
            tally.add_answers(row)
        macro_f1 = tally.classes.macro_f1(["a", "b", "c"])
        found.append(
            (list(tally.pairs.items()), tally.samples_per_episode, tally.sums["weight"].estimate(), macro_f1)
        )
    assert list(found[0][0]) == list(Counter((r["true_label"], r["predicted_label"]) for r in rows).items())
    assert found[0][1] == Counter(row["episode_id"] for row in rows)
    assert found[0][2].value == EpisodeSums.over(rows, lambda row: row["weight"]).estimate().value
    for other in found[1:]:
        assert other[:2] == found[0][:2]
        assert [each.value for each in other[2:]] == [each.value for each in found[0][2:]]
