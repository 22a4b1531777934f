"""Every anomaly of the synthetic twin, read by us and by the rules of the data set's own toolkit."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import official_reader
import pytest

from omni_mlflow.spine.episodes import UnreadableEpisodeError, open_episode
from omni_mlflow.spine.selection import scan_data_root
from omni_mlflow.spine.synthetic import PLANTINGS, Anomaly

DOCUMENT = Path(__file__).parents[2] / "docs" / "synthetic_twin.md"

OFFICIAL_RAISES = {
    Anomaly.CUT_SHORT: OSError,
    Anomaly.EMPTY_FILE: OSError,
    Anomaly.FLIPPED_BYTE: RuntimeError,
    Anomaly.NO_CALIBRATION: KeyError,
    Anomaly.BAD_SLAM: ValueError,
    Anomaly.CAPTION_WITH_NULLS: TypeError,
    Anomaly.CAPTION_SEGMENTS_NULL: TypeError,
    Anomaly.CAPTION_WITH_LISTS: AttributeError,
    Anomaly.CAPTION_IS_A_LIST: AttributeError,
}
ONLY_THE_OLD_RULE_RAISES = {Anomaly.MIXED_REFERENCES: ValueError}
OFFICIAL_HAS_NO_CAPTION = {Anomaly.NO_CAPTION, Anomaly.CAPTION_EMPTY, Anomaly.CAPTION_TRAILING_GARBAGE}
OFFICIAL_LOSES_THE_LABELS = {Anomaly.NO_SLAM}  # its frames are counted, the caption's are timed


@pytest.fixture(scope="module")
def folder_of(every_anomaly) -> dict[Anomaly | None, Path]:
    root, synthesis = every_anomaly
    return {episode.anomaly: root / episode.path for episode in synthesis.episodes}


@pytest.fixture(scope="module")
def toolkit() -> Callable[[Path], dict[str, Any]]:
    """The loader of a checkout of the real toolkit."""
    checkout = os.environ.get("OMNI_HOMIE_TOOLKIT")
    if not checkout:
        pytest.skip("set OMNI_HOMIE_TOOLKIT to a checkout of HOMIE-toolkit to run its own loader")
    sys.path.insert(0, checkout)
    load = importlib.import_module("data_loader").load_from_annotation_hdf5
    return lambda path: load(path, 0, -1)


@pytest.mark.parametrize("rule", ["new", "old"])
@pytest.mark.parametrize("anomaly", Anomaly)
def test_where_the_official_rules_raise_or_lose_labels_we_do_not_and_elsewhere_both_agree(
    folder_of, anomaly, rule
):
    annotation = folder_of[anomaly] / "annotation.hdf5"
    raised = OFFICIAL_RAISES | (ONLY_THE_OLD_RULE_RAISES if rule == "old" else {})
    if anomaly in raised:
        with pytest.raises(raised[anomaly]):
            official_reader.load(annotation, rule=rule)
        return
    official = official_reader.load(annotation, rule=rule)
    with open_episode(folder_of[anomaly]) as ours:
        captions = ours.captions(rule)
        if anomaly in OFFICIAL_HAS_NO_CAPTION:
            assert official.frames is None
            assert captions is None
        elif anomaly in OFFICIAL_LOSES_THE_LABELS:
            assert not any(map(any, official_reader.labels(official.frames)))
            assert all(captions.action)
        else:
            assert official_reader.our_labels(captions) == official_reader.labels(official.frames)
            assert ours.num_frames == len(official.names)


def test_the_toolkit_itself_does_what_its_restated_rules_do(folder_of, toolkit):
    rule = "new" if hasattr(sys.modules["utils.caption_utils"], "_resolve_frame_ref") else "old"
    raised = OFFICIAL_RAISES | (ONLY_THE_OLD_RULE_RAISES if rule == "old" else {})
    for anomaly, folder in folder_of.items():
        annotation = folder / "annotation.hdf5"
        if anomaly in raised:
            with pytest.raises(raised[anomaly]):
                toolkit(annotation)
            continue
        real, restated = toolkit(annotation), official_reader.load(annotation, rule=rule)
        assert real["img_names"] == restated.names
        np.testing.assert_allclose(real["R_c2w_all"], restated.camera_to_world[:, :3, :3], atol=1e-9)
        np.testing.assert_allclose(real["t_c2w_all"], restated.camera_to_world[:, :3, 3], atol=1e-9)
        frames = real["caption_frame_info_map"]
        in_order = None if frames is None else [frames[i] for i in range(len(restated.names))]
        assert (in_order is None) == (restated.frames is None), anomaly
        assert official_reader.labels(in_order or []) == official_reader.labels(restated.frames or []), (
            anomaly
        )


def test_the_old_and_the_new_rule_differ_where_frames_are_counted(folder_of):
    annotation = folder_of[Anomaly.INTEGER_REFERENCES] / "annotation.hdf5"
    old, new = (official_reader.load(annotation, rule=rule).frames for rule in ("old", "new"))
    assert official_reader.labels(old) != official_reader.labels(new)


def test_counted_frames_say_what_timed_ones_said(every_anomaly, folder_of):
    """The caption was written with timestamps, then rewritten: by the world, each frame has one action."""
    from omni_mlflow.spine.synthetic.world import make_session

    [plan] = [each for each in every_anomaly[1].episodes if each.anomaly is Anomaly.INTEGER_REFERENCES]
    world = make_session(plan.world_seed, frames=60)
    with open_episode(folder_of[Anomaly.INTEGER_REFERENCES]) as episode:
        assert list(episode.captions().action) == [world.action_at(frame) for frame in range(60)]


def masked(valid: np.ndarray) -> list[int]:
    return np.flatnonzero(~valid).tolist()


def test_bad_rows_are_masked_and_only_they(folder_of):
    with open_episode(folder_of[Anomaly.BAD_SLAM]) as episode:
        assert masked(episode.camera_to_world()[1]) == [7, 8]
        assert all(episode.captions().action)
    with open_episode(folder_of[Anomaly.INVALID_RUNS]) as episode:
        body = [*range(20, 25), *range(40, 48), 52]
        assert masked(episode.body()[1]) == body
        assert masked(episode.contacts()[1]) == body
        left, right = episode.hands()[1]
        assert masked(left) == [30, 31, 32, 33]
        assert masked(right) == list(range(15))
    with open_episode(folder_of[Anomaly.NO_SLAM]) as episode:
        assert masked(episode.camera_to_world()[1]) == masked(episode.body()[1]) == list(range(60))


@pytest.mark.parametrize(
    ("anomaly", "modalities"),
    [
        (Anomaly.NO_DEPTH, {"depth"}),
        (Anomaly.NO_IMU, {"imu"}),
        (Anomaly.NO_HANDS, {"hand_mocap_left", "hand_mocap_right"}),
        (Anomaly.NO_CALIBRATION, {"camera_pose"}),
        (Anomaly.NO_SLAM, {"camera_pose", "body_mocap", "contact"}),
        (Anomaly.SAMPLE_AXIS, set()),
        (Anomaly.COMPRESSED, set()),
        (Anomaly.DROPPED_FRAMES, set()),
        (Anomaly.TINY, set()),
    ],
)
def test_what_an_annotation_lacks_is_named_and_no_more(folder_of, anomaly, modalities):
    with open_episode(folder_of[anomaly]) as episode:
        assert set(episode.missing()) == modalities


def documented() -> dict[str, tuple[str, str]]:
    rows = re.findall(
        r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: (what, outcome) for name, what, outcome in rows}


def test_the_document_lists_every_anomaly_as_the_code_does():
    assert list(documented()) == list(Anomaly)
    assert {name: what for name, (what, _) in documented().items()} == {
        name: planting.what for name, planting in PLANTINGS.items()
    }


def test_select_does_with_every_anomaly_what_the_document_says_and_loses_none(every_anomaly):
    root, synthesis = every_anomaly
    episodes, skips = scan_data_root(root)
    assert len(episodes) + len(skips) == len(synthesis.episodes) == 3 + len(Anomaly)
    selected = {episode.episode_id for episode in episodes}
    reasons = {skip.subject: skip.reason for skip in skips}
    for plan in synthesis.episodes:
        episode_id = plan.path.replace("/", "__")
        verdict, _, told = (
            documented()[plan.anomaly][1].partition(": ") if plan.anomaly else ("selected", "", "")
        )
        assert (episode_id in selected) == verdict.startswith("selected"), plan.anomaly
        if verdict == "skipped":
            assert told in reasons[episode_id]


def test_a_damaged_index_of_any_group_is_no_absent_modality(folder_of, tmp_path):
    """HDF5 itself answers "no such member" there, and an episode without a body would be taken for whole."""
    intact = (folder_of[None] / "annotation.hdf5").read_bytes()
    places = [
        found.start() for signature in (b"TREE", b"SNOD", b"HEAP") for found in re.finditer(signature, intact)
    ]
    assert len(places) > 30
    for place in places:
        damaged = bytearray(intact)
        damaged[place] ^= 0xFF
        (tmp_path / "annotation.hdf5").write_bytes(damaged)
        with pytest.raises(UnreadableEpisodeError, match="download it again"), open_episode(tmp_path):
            pass


def readable(folder: Path) -> bool:
    try:
        with open_episode(folder) as episode:
            episode.coverage()
    except UnreadableEpisodeError:
        return False
    return True


def test_a_flipped_bit_anywhere_is_a_refusal_or_another_number_and_never_takes_the_reader_down(
    folder_of, tmp_path
):
    intact = (folder_of[None] / "annotation.hdf5").read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for place in [*rng.integers(0, 20_000, 40).tolist(), *rng.integers(0, len(intact), 10).tolist()]:
        damaged = bytearray(intact)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "annotation.hdf5").write_bytes(damaged)
        outcomes.add(readable(tmp_path))
    assert outcomes == {True, False}
