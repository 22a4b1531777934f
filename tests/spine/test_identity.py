"""An identity that is only made up is unknown, and an unknown identity is a failure."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import NUM_FRAMES, STAMPS_NS

from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.exact_leaks import unknown_identities
from omni_mlflow.spine.fingerprints import Fingerprint
from omni_mlflow.spine.identity import clock_doubt, is_placeholder
from omni_mlflow.spine.recording import recording_of
from omni_mlflow.spine.types import Episode, Split


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "  ",
        "unknown",
        "Unknown ",
        "none",
        "N/A",
        "null",
        "nan",
        "0",
        "0000000000",
        "00:00:00",
        "-",
        "?",
    ],
)
def test_a_placeholder_names_nothing(name):
    assert is_placeholder(name)


@pytest.mark.parametrize("name", ["7211577584", "rig 0", "unknown_street_3", "00a0", "厨房"])
def test_a_name_is_a_name(name):
    assert not is_placeholder(name)


@pytest.mark.parametrize(
    ("stamps", "doubt"),
    [
        ([0, 0, 0], "it does not advance from 0"),
        ([5, 50_000_005, 50_000_005], "it does not advance after frame 1"),
        ([5, 50_000_005, 7], "it does not advance after frame 1"),
        ([7], "one frame has no clock that advances"),
        ([0, 1, 2], "2e-09 s are not credible for 3 frames"),
        ([0, 10**9, 2 * 10**9], "2 s are not credible for 3 frames"),
        (STAMPS_NS, None),
        ([0, 50_000_000, 150_000_000], None),  # one frame of four was dropped
    ],
)
def test_a_clock_advances_at_every_frame_and_at_a_credible_rate(stamps, doubt):
    assert clock_doubt(np.array(stamps, np.int64)) == doubt


@pytest.fixture
def unknown_of(write_annotation):
    """What is unknown of an episode whose annotation has these changes."""

    def find(changes, *, session="kitchen"):
        with open_episode(write_annotation(changes)) as source:
            recording = recording_of(source)
        episode = Episode(
            episode_id="e",
            session_id=session,
            path="kitchen/ep1",
            split=Split.TEST,
            num_frames=NUM_FRAMES,
            fps=20,
            bytes_by_file={},
        )
        leaks = unknown_identities([episode], {"e": Fingerprint(**dict(recording), files={})})
        assert all(leak.blocks and leak.rule == "identity_known" for leak in leaks)
        return [
            leak.evidence.removesuffix(": it cannot be told apart from the other splits") for leak in leaks
        ]

    return find


def test_a_recording_that_names_its_device_and_time_is_known(unknown_of):
    assert unknown_of({}) == []


def test_a_made_up_device_clock_and_frame_names_are_all_told(unknown_of):
    made_up = {
        "metadata/device_id": "unknown",
        "video/device_timestamp": np.array(["0"] * NUM_FRAMES, "S14"),
        "slam/frame_names": np.array(["0.jpg"] * NUM_FRAMES, "S18"),
    }
    assert unknown_of(made_up) == [
        "unknown device id (unknown), device clock (it does not advance from 0), "
        "frame names (1 different ones for 8 frames)"
    ]


def test_a_session_may_not_be_called_unknown_either(unknown_of):
    assert unknown_of({}, session="Unknown") == ["unknown session (Unknown)"]
