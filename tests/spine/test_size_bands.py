"""The size-band rule of the published pilot, by hand and against the published selection."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omni_mlflow.spine.listing import EPISODE_FILES, ListedEpisode, ListingError
from omni_mlflow.spine.size_bands import (
    SizeBandRule,
    SizeStatistics,
    band_of,
    measure,
    pick,
    published_fields,
    score,
)
from omni_mlflow.spine.types import Split

RULE = SizeBandRule()
ONE_EACH = SizeBandRule(per_band={Split.TRAIN: 1, Split.VAL: 0, Split.TEST: 1}, min_annotation_bytes=0)

# What is known of the whole listing. Floors and edges are published. The five medians are not, they are
# solved from the 128 published scores, which have eight decimals: an annotation has a multiple of 4 bytes, so
# a median of them is even, and no other even numbers agree with all 128 scores.
PUBLISHED = SizeStatistics(
    min_annotation=1_040_984_156,
    min_training=1_315_043_041,
    band_edges=(1_869_570_778, 1_969_462_460, 1_989_975_778),
    median_annotation={
        "short": 1_693_161_892,
        "lower_mid": 1_942_181_032,
        "upper_mid": 1_973_219_428,
        "long": 1_990_033_896,
    },
    median_training=2_370_747_602,
)


def episode(path: str, annotation: int, videos: int = 600, **more: int) -> ListedEpisode:
    session, name = path.split("/")
    names = EPISODE_FILES[1:]
    sizes = dict.fromkeys(names, videos // 6) | {names[0]: videos - 5 * (videos // 6)}
    return ListedEpisode(session, name, {EPISODE_FILES[0]: annotation, **sizes, **more})


@pytest.fixture(scope="module")
def published() -> list[dict[str, str]]:
    default = Path(__file__).parents[3] / "shared" / "reference"
    file = Path(os.environ.get("OMNI_REFERENCE_DIR", default)) / "selection_128.csv"
    if not file.is_file():
        pytest.skip(f"no published selection at {file}; set OMNI_REFERENCE_DIR")
    with file.open(newline="") as rows:
        return list(csv.DictReader(rows))


@pytest.fixture
def listed(published) -> list[ListedEpisode]:
    """The published episodes in another order; the bytes of single videos are not published, their sum is."""
    found = []
    for row in published:
        annotation = int(row["annotation_bytes"])
        videos = int(row["training_bytes_excluding_visualization_rrd"]) - annotation
        viewer = {"visualization.rrd": 1} if row["has_visualization_rrd"] == "True" else {}
        found.append(episode(row["episode_path"], annotation, videos, **viewer))
    return sorted(found, key=lambda each: each.path)


def test_the_published_selection_is_reproduced_row_for_row(published, listed):
    """From its own 128 episodes and the numbers above: all twelve columns of all 128 rows, in their order."""
    picked, skips, unfilled = pick(listed, PUBLISHED, RULE)
    assert (skips, unfilled) == ([], [])
    made = [{key: str(value) for key, value in published_fields(each).items()} for each in picked]
    assert [{key: row[key] for key in published[0]} for row in made] == published


@pytest.mark.parametrize("band", [*RULE.bands, None])
@pytest.mark.parametrize("bytes_off", [-2, 2])
def test_medians_that_are_two_bytes_off_contradict_a_published_score(published, listed, band, bytes_off):
    medians = dict(PUBLISHED.median_annotation)
    if band:
        medians[band] += bytes_off
    training = PUBLISHED.median_training + (0 if band else bytes_off)
    sizes = replace(PUBLISHED, median_annotation=medians, median_training=training)
    by_path = {each.path: each for each in listed}
    found = [score(by_path[row["episode_path"]], row["size_band"], sizes, RULE) for row in published]
    assert [round(each, 8) for each in found] != [float(row["selection_score"]) for row in published]


def test_bands_are_quartiles_and_an_edge_belongs_to_the_shorter_band():
    complete = [episode(f"s{number}/ep1", number) for number in range(1, 6)]
    sizes = measure(complete, ONE_EACH)
    assert sizes.band_edges == (2, 3, 4)
    assert [band_of(each, sizes, ONE_EACH) for each in complete] == [
        "short",
        "short",
        "lower_mid",
        "upper_mid",
        "long",
    ]


def test_percentiles_lie_between_two_episodes():
    complete = [episode(f"s{number}/ep1", size) for number, size in enumerate((100, 200, 300, 500))]
    sizes = measure(complete, replace(ONE_EACH, num_bands=2, floor_percentile=10))
    assert sizes.min_annotation == pytest.approx(130)
    assert sizes.min_training == pytest.approx(730)
    assert sizes.band_edges == (250,)
    assert sizes.median_annotation == {"band_1": 200, "band_2": 400}
    assert sizes.median_training == 900


def test_the_score_by_hand():
    """0.1 off the band's median, a quarter of 0.2 off the other, 0.02 * 32/64, and up to 0.001 by chance."""
    sizes = SizeStatistics(0, 0, (2000, 3000, 4000), {"short": 1000}, 1000)
    each = episode("a/ep32", 900, 300)
    assert 0 <= score(each, "short", sizes, RULE) - (0.1 + 0.05 + 0.01) < 0.001
    assert score(each, "short", sizes, RULE) != score(each, "short", sizes, replace(RULE, tie_seed=8))


def test_small_episodes_are_no_candidates_and_say_which_floor_they_miss():
    sizes = SizeStatistics(500, 1200, (2000, 3000, 4000), {"short": 1000}, 1600)
    small, light = episode("a/ep1", 499, 9000), episode("b/ep1", 500, 699)
    good = [episode("c/ep1", 1000), episode("d/ep1", 1000)]
    rule = replace(ONE_EACH, num_bands=1)
    sizes = replace(sizes, band_edges=(), median_annotation={"band_1": 1000})
    picked, skips, _ = pick([small, light, *good], sizes, rule)
    assert {each.episode.session for each in picked} == {"c", "d"}
    assert {skip.subject: skip.reason for skip in skips} == {
        "a__ep1": "too small: its annotation has less than 500 bytes",
        "b__ep1": "too small: annotation and videos have less than 1200 bytes",
    }


def many(sessions: int, per_session: int) -> list[ListedEpisode]:
    rng = np.random.default_rng(3)
    return [
        episode(f"s{session}/ep{number}", int(rng.integers(1000, 2000)), int(rng.integers(500, 700)))
        for session in range(sessions)
        for number in range(1, per_session + 1)
    ]


def test_bands_are_filled_and_no_session_is_taken_twice_and_nothing_is_lost():
    complete = many(30, 4)
    picked, skips, unfilled = pick(complete, measure(complete, ONE_EACH), ONE_EACH)
    assert unfilled == []
    assert [each.band for each in picked] == [band for band in ONE_EACH.bands for _ in range(2)]
    assert len({each.episode.session for each in picked}) == 8
    assert Counter((each.band, each.split) for each in picked) == dict.fromkeys(
        [(band, split) for band in ONE_EACH.bands for split in (Split.TRAIN, Split.TEST)], 1
    )
    assert len(picked) + len(skips) == len(complete)
    assert {skip.reason.partition(":")[0] for skip in skips} == {"not needed", "too small"}


def test_the_order_of_the_listing_changes_nothing():
    complete = many(30, 4)
    sizes = measure(complete, ONE_EACH)
    assert (
        pick(complete, sizes, ONE_EACH)[0]
        == pick(complete[::-1], measure(complete[::-1], ONE_EACH), ONE_EACH)[0]
    )


def test_every_band_that_cannot_be_filled_is_named():
    complete = many(3, 4)
    picked, skips, unfilled = pick(complete, measure(complete, RULE), replace(RULE, min_annotation_bytes=0))
    assert picked == []
    assert len({skip.subject for skip in skips}) == len(skips) == len(complete), "none is lost"
    assert [check.subject for check in unfilled] == [f"band {band}" for band in RULE.bands]
    assert "--per-band" in unfilled[0].expected


def test_a_listing_without_a_complete_episode_cannot_be_measured():
    with pytest.raises(ListingError, match="no complete episode"):
        measure([], RULE)
