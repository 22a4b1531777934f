from itertools import pairwise

import numpy as np
import pytest

from omni_mlflow.spine.synthetic.vocabulary import COMMON_ACTIONS
from omni_mlflow.spine.synthetic.world import BAR_PIXELS, DARK_NOISE, FRAME_SIZES, make_session
from omni_mlflow.spine.types import CAMERAS

FRAMES = 600


@pytest.fixture(scope="module")
def sessions():
    return [make_session(seed, frames=FRAMES) for seed in range(20)]


def test_the_same_seed_gives_the_same_pictures_and_sound_and_another_seed_does_not():
    world, again, other = (make_session(seed, frames=60) for seed in (7, 7, 8))
    assert world == again
    np.testing.assert_array_equal(world.clip("stereo_left", 0, 5), again.clip("stereo_left", 0, 5))
    np.testing.assert_array_equal(world.audio(8000), again.audio(8000))
    assert world.appearance != other.appearance


def test_segments_cover_every_media_frame_and_each_one_brings_another_action(sessions):
    for world in sessions:
        assert world.segments[0].start == 0
        assert world.segments[-1].stop == FRAMES + 1
        for one, following in pairwise(world.segments):
            assert one.stop == following.start
            assert one.action != following.action


def test_about_a_quarter_of_the_frames_show_an_action_of_this_session_alone(sessions):
    common = {action.label for action in COMMON_ACTIONS}
    for world in sessions:
        private = sum(world.action_at(frame) not in common for frame in range(FRAMES))
        assert 0.23 <= private / FRAMES <= 0.3


def test_labels_of_private_actions_hardly_ever_meet(sessions):
    labels = [
        label for world in sessions for label in {s.action.label for s in world.segments if s.action.private}
    ]
    assert len(set(labels)) >= 0.9 * len(labels)


def test_a_frame_holds_the_tinted_block_and_the_tool_and_a_dead_camera_is_dark_noise(sessions):
    world = next(world for world in sessions if len(world.appearance.views) < len(CAMERAS))
    action = world.segment_at(100).action
    images = world.render(100)
    for camera, image in images.items():
        height, width = FRAME_SIZES[camera]
        assert image.shape == (height, width, 3)
        if (view := world.appearance.views.get(camera)) is None:
            assert image.max() < DARK_NOISE
            assert not np.array_equal(image, world.render(101)[camera])
            continue
        assert np.abs(image[view.y, view.x].astype(int) - action.block).max() <= 30
        assert np.abs(image[:, width - BAR_PIXELS :].astype(int) - action.bar).max() <= 12


def test_contact_is_heard_as_a_tone_and_never_seen():
    world = make_session(3, frames=FRAMES)
    sound = world.audio(8000)
    assert len(sound) == (FRAMES + 1) * 8000 // 20
    loudness = np.sqrt((sound.reshape(FRAMES + 1, 400) ** 2).mean(axis=1))
    np.testing.assert_array_equal(loudness > 0.1, world.contacts())
    assert {world.in_contact_at(frame) for frame in range(FRAMES)} == {True, False}


def test_facts_name_colour_tool_sound_and_change_but_no_action(sessions):
    world = sessions[0]
    second = world.segments[1]
    facts = world.facts_at(second.start)
    action = second.action
    assert (facts.colour, facts.tool, facts.sound) == (action.colour, action.tool, second.in_contact)
    assert action.label.split()[0].lower() not in {facts.colour, facts.tool}
    assert facts.change
    assert not world.facts_at(second.start + 1).change
    assert not world.facts_at(0).change
