"""Captions that two splits share are found copied or reworded; what everybody writes is not."""

from __future__ import annotations

import numpy as np

from omni_mlflow.spine.caption_print import caption_print
from omni_mlflow.spine.captions import FrameCaptions
from omni_mlflow.spine.fingerprints import Fingerprint
from omni_mlflow.spine.leaks import find_leaks
from omni_mlflow.spine.types import Episode, Split

WORDS = [f"word{number}" for number in range(400)]


def captions(starts, *, labels=None, seed=0, description=None, num_frames=6000):
    """Actions that begin at the frames ``starts``, each with a sentence of its own."""
    rng = np.random.default_rng(seed)
    labels = labels or [f"Do thing {number}" for number in range(len(starts))]
    told = [description or " ".join(rng.choice(WORDS, 12)) for _ in starts]
    place = np.searchsorted(starts, np.arange(num_frames), side="right") - 1
    action = tuple(labels[each] for each in place)
    empty = (None,) * num_frames
    return FrameCaptions(
        num_frames=num_frames,
        action=action,
        description=tuple(told[each] for each in place),
        subtask=empty,
        objects=empty,
        interaction=empty,
        segments=(),
        dropped_segments=0,
        main_task=None,
    )


def edges_of(all_captions):
    """Text edges among episodes that take turns in train, val and test."""
    prints, episodes = {}, []
    for place, each in enumerate(all_captions):
        name = f"e{place}"
        told = caption_print(each, np.arange(each.num_frames) / 20)
        prints[name] = Fingerprint(
            files={"annotation.hdf5": name}, datasets={}, device_id=name, device_clock_ns=(1, 2), caption=told
        )
        episodes.append(
            Episode(
                episode_id=name,
                session_id=name,
                path=name,
                split=list(Split)[place % 3],
                num_frames=each.num_frames,
                fps=20,
                bytes_by_file={},
            )
        )
    graph = find_leaks(episodes, prints, blocking=())
    return [edge for edge in graph.edges if edge.layer == "text"]


def two_second_lattice(seed):
    """Starts of about 25 actions in 5 minutes; annotators look at a picture every 2 s."""
    chosen = np.random.default_rng(seed).choice(np.arange(1, 150), 25, replace=False)
    return np.concatenate([[0], 40 * np.sort(chosen)])


def test_a_copied_description_is_an_edge_whatever_the_times():
    others = [captions(two_second_lattice(seed), seed=seed) for seed in range(2, 9)]
    copied = captions(two_second_lattice(1), seed=0)
    [edge] = edges_of([captions(two_second_lattice(0), seed=0), copied, *others])
    assert (edge.first, edge.second, edge.score) == ("e0", "e1", 1.0)
    assert edge.evidence == "100% of the uncommon five-word runs of the shorter caption"


def test_the_same_moments_in_other_words_are_an_edge_with_the_offset():
    starts = two_second_lattice(0)
    trimmed = np.concatenate([[0], starts[starts > 1000] - 1000])
    reworded = captions(trimmed, seed=1, num_frames=5000)
    [edge] = edges_of([captions(starts, seed=0), reworded])
    assert edge.offset_s == 50
    assert edge.evidence.endswith("changes of action at the same moments")
    assert edge.score > 0.9


def test_common_labels_of_a_shared_task_and_moments_on_the_same_lattice_are_no_edge():
    labels = ["Cut cardboard", "Fold paper strip"] * 13
    same_words = "The person cuts the cardboard along the line with scissors"
    told = [
        captions(two_second_lattice(seed), labels=labels, description=same_words, seed=seed)
        for seed in range(40)
    ]
    assert edges_of(told) == []


def test_the_words_of_a_caption_cannot_be_read_back():
    told = caption_print(captions(two_second_lattice(0)), np.arange(6000) / 20)
    assert "word" not in told.model_dump_json()
