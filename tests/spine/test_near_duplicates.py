"""The same motion, sound or pictures are found over any offset; signals that say nothing abstain."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from omni_mlflow.spine.alignment import best_match, transform_size, transformed
from omni_mlflow.spine.fingerprints import Fingerprint
from omni_mlflow.spine.key_frames import (
    MAX_DIFFERENT_SIGNS,
    MIN_COMMON_SIGNS,
    MIRROR,
    THRESHOLD,
    KeyFrames,
    best_view,
    key_frames,
    looking_alike,
)
from omni_mlflow.spine.leaks import LEAK_RULES, find_leaks
from omni_mlflow.spine.motion_trace import motion_trace
from omni_mlflow.spine.path_trace import path_trace
from omni_mlflow.spine.sound_bits import SAMPLE_RATE, sound_bits
from omni_mlflow.spine.types import CAMERAS, Episode, Split

SECONDS = 20
IMU_HZ = 200


def noise(seed):
    return np.random.default_rng(seed)


def some_motion(seed):
    """Hands at work: bursts of shaking of 1 to 6 Hz over gravity and slow turns, with a sensor's noise."""
    rng = noise(seed)
    seconds = np.arange(0, SECONDS, 1 / IMU_HZ)
    shaking = gaussian_filter(rng.normal(size=(2, len(seconds))), (0, IMU_HZ / 20))
    norms = np.array([[9.81], [0.4]]) + np.array([[30.0], [6.0]]) * shaking
    return seconds, np.abs(norms + rng.normal(0, 0.01, norms.shape))


def some_sound(seed):
    """Clatter: noise whose colour and loudness change ten times a second."""
    rng = noise(seed)
    pieces = []
    for _ in range(SECONDS * 10):
        spectrum = rng.lognormal(0, 1.5, SAMPLE_RATE // 20 + 1) * np.exp(2j * np.pi * rng.random(401))
        pieces.append(np.fft.irfft(gaussian_filter(np.abs(spectrum), 8) * np.exp(1j * np.angle(spectrum))))
    sound = np.concatenate(pieces)
    return (0.1 * sound / sound.std()).astype(np.float32)


def some_view(seed, *, first=0.0, stop=SECONDS, every=0.2):
    """A camera that pans over a textured room, as pictures every 0.2 s from ``first`` on."""
    rng = noise(seed)
    room = gaussian_filter(rng.normal(size=(160, 160)), 3)
    room = np.clip(128 + 45 * room / room.std(), 0, 255).astype(np.float32)
    phases, hertz = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.03, 0.12, 4)
    seconds = np.arange(first, stop, every)
    turns = 2 * np.pi * hertz[:, None] * seconds + phases[:, None]
    rows, columns = (np.rint(64 + 32 * np.sin(turns[2 * axis : 2 * axis + 2]).sum(axis=0)) for axis in (0, 1))
    pictures = [
        room[int(row) : int(row) + 32, int(column) : int(column) + 32]
        for row, column in zip(np.clip(rows, 0, 127), np.clip(columns, 0, 127), strict=True)
    ]
    return seconds - first, np.stack(pictures)


def match_of(one, other, rate_hz):
    signals = one.signal(), other.signal()
    size = transform_size(max(each.shape[1] for each in signals))
    return best_match(*(transformed(each, size=size) for each in signals), rate_hz=rate_hz)


def test_a_trimmed_motion_is_found_with_its_offset_also_on_another_time_grid_and_mirrored():
    seconds, norms = some_motion(1)
    later = np.arange(6.5, 18, 1 / 173)  # the norms of a mirrored motion are the same
    part = np.stack([np.interp(later, seconds, each) for each in norms])
    match = match_of(motion_trace(seconds, norms), motion_trace(later - 6.5, part), 50)
    assert match.score > 0.9
    assert match.offset_s == pytest.approx(6.5, abs=0.02)
    assert match.overlap_s == pytest.approx(11.5, abs=0.1)


def test_motions_of_two_people_do_not_match():
    traces = [motion_trace(*some_motion(seed)) for seed in range(12)]
    scores = [match_of(one, other, 50).score for one in traces for other in traces if one is not other]
    assert max(scores) < 0.45


def test_a_steady_walk_abstains_because_every_step_looks_like_the_next():
    seconds, norms = some_motion(1)
    steps = 2 * np.sin(2 * np.pi * 1.9 * seconds) + 0.7 * np.sin(2 * np.pi * 3.8 * seconds + 1)
    walk = motion_trace(seconds, np.stack([norms[0] * 0 + 9.81 + steps, 0.4 + 0.1 * steps]))
    assert walk.abstains.startswith("it repeats itself after ")


@pytest.mark.parametrize("still", [0.0, np.nan])
def test_a_rig_that_measured_nothing_abstains(still):
    seconds = np.arange(0, SECONDS, 1 / IMU_HZ)
    assert motion_trace(seconds, np.full((2, len(seconds)), still)).abstains is not None


def test_a_sound_is_found_in_a_louder_noisier_part_of_it():
    whole = some_sound(1)
    part = 2.0 * whole[int(4.03 * SAMPLE_RATE) : 15 * SAMPLE_RATE]
    part = part + noise(2).normal(0, 0.02, len(part)).astype(np.float32)
    match = match_of(sound_bits(whole), sound_bits(part), 16)
    assert match.score > 0.35
    assert match.offset_s == pytest.approx(4.03, abs=0.04)


def test_sounds_of_two_rooms_do_not_match():
    sounds = [sound_bits(some_sound(seed)) for seed in range(8)]
    scores = [match_of(one, other, 16).score for one in sounds for other in sounds if one is not other]
    assert max(scores) < 0.25


def test_silence_abstains():
    assert sound_bits(np.zeros(SECONDS * SAMPLE_RATE, np.float32)).abstains == "it is silent"
    hiss = noise(1).normal(0, 2e-4, SECONDS * SAMPLE_RATE).astype(np.float32)
    assert sound_bits(hiss).abstains == "it is silent"


def test_a_sound_that_repeats_itself_abstains():
    seconds = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    alarm = 0.3 * np.sin(2 * np.pi * np.where(seconds % 1 < 0.5, 700, 1500) * seconds)
    assert sound_bits(alarm.astype(np.float32)).abstains.startswith("it repeats itself after ")


def some_path(seed):
    """Poses of a wearer who sways and looks around, 20 a second, as 4x4 matrices from rig to world."""
    rng = noise(seed)
    seconds = np.arange(0, 2 * SECONDS, 0.05)
    waves = rng.uniform(0.03, 0.4, (6, 3))[..., None] * seconds + rng.uniform(0, 1, (6, 3, 1))
    sway = (rng.uniform(0.02, 0.1, (6, 3, 1)) * np.sin(2 * np.pi * waves)).sum(axis=1).T
    poses = np.tile(np.eye(4), (len(seconds), 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(3 * sway[:, 3:]).as_matrix()
    poses[:, :3, 3] = sway[:, :3]
    return seconds, poses


def mirrored_poses(poses):
    """What a rig records that is the mirror image of another one, left for right."""
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    return flip @ poses @ flip


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_trimmed_path_is_found_with_its_offset_also_rounded_mirrored_or_elsewhere(graph_of, mirrored):
    seconds, poses = some_path(1)
    elsewhere = np.eye(4)
    elsewhere[:3, 3] = 3, -2, 1  # SLAM began at another place, and looked another way
    elsewhere[:3, :3] = Rotation.from_euler("z", 70, degrees=True).as_matrix()
    copied = elsewhere @ (mirrored_poses(poses) if mirrored else poses)
    part = seconds >= 6
    graph = graph_of(
        {"path": path_trace(seconds, poses)},
        {"path": path_trace(seconds[part] - 6, copied[part].astype(np.float32).astype(float))},
    )
    [edge] = graph.edges
    assert (edge.rule, edge.threshold) == ("motion_disjoint", 0.97)
    assert edge.evidence == f"the same path of the rig for 34.0 s{', mirrored' if mirrored else ''}"
    assert edge.offset_s == pytest.approx(6, abs=0.06)


def test_paths_of_two_people_do_not_match(graph_of):
    traces = [path_trace(*some_path(seed)) for seed in range(8)]
    pairs = list(combinations(traces, 2))
    assert all(graph_of({"path": one}, {"path": other}).edges == () for one, other in pairs)


def test_a_rig_on_a_table_and_a_rig_on_a_turntable_abstain():
    seconds, _ = some_path(1)
    assert path_trace(seconds, np.tile(np.eye(4), (len(seconds), 1, 1))).abstains == "the rig hardly moved"
    turning = np.tile(np.eye(4), (len(seconds), 1, 1))
    turning[:, :3, :3] = Rotation.from_euler("y", (20 * seconds)[:, None], degrees=True).as_matrix()
    assert path_trace(seconds, turning).abstains.startswith("it repeats itself after ")


def rig(seed, change=lambda pictures: pictures, **when):
    """All six cameras of one recording."""
    views = {camera: some_view([seed, place], **when) for place, camera in enumerate(CAMERAS)}
    return {
        camera: key_frames(seconds, change(pictures), length_s=float(seconds[-1] + 0.2))
        for camera, (seconds, pictures) in views.items()
    }


@pytest.mark.parametrize("mirrored", [False, True])
def test_pictures_are_found_trimmed_at_odd_moments_coarse_and_mirrored(mirrored):
    def spoil(pictures):
        coarse = 12 * np.rint((0.8 * pictures + noise(3).normal(0, 4, pictures.shape)) / 12)
        return (coarse[..., ::-1] if mirrored else coarse).astype(np.float32)

    match = best_view(rig(1), rig(1, spoil, first=5.07, stop=17))
    assert match.score >= THRESHOLD
    assert match.mirrored is mirrored
    assert match.offset_s == pytest.approx(5.07, abs=0.15)


def test_pictures_of_two_rooms_do_not_match():
    rigs = [rig(seed) for seed in range(6)]
    matches = [best_view(one, other) for one in rigs for other in rigs if one is not other]
    assert max(match.score for match in matches) < 0.5


def per_pair(one, other, *, mirrored):
    """The pairs that look the same, counted sign by sign."""
    flip = int(MIRROR) if mirrored else 0
    return [
        float(one_s - other_s)
        for one_s, mine, strong in zip(one.seconds, one.signs, one.strong, strict=True)
        for other_s, theirs, trusted in zip(other.seconds, other.signs, other.strong, strict=True)
        if (common := int(strong) & int(trusted)).bit_count() >= MIN_COMMON_SIGNS
        and ((int(mine) ^ int(theirs) ^ flip) & common).bit_count() <= MAX_DIFFERENT_SIGNS
    ]


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_same_pairs_look_alike_as_when_signs_are_counted_one_by_one(mirrored):
    one, copy, unrelated = rig(1), rig(1, lambda pictures: pictures[..., ::-1]), rig(2)
    numbers = 0
    for camera in CAMERAS:
        for each in (one[camera], copy[camera], unrelated[camera]):
            found = looking_alike(one[camera], each)[mirrored].tolist()
            assert found == per_pair(one[camera], each, mirrored=mirrored)
            numbers += len(found)
    assert numbers > 100


@pytest.mark.parametrize("own_rhythm", [False, True])
def test_looking_for_copies_only_finds_each_with_its_score_and_offset(own_rhythm):
    def shown(views):
        if not own_rhythm:
            return views
        return {
            camera: view.model_copy(update={"seconds": view.seconds + np.float32(0.003 * place)})
            for place, (camera, view) in enumerate(views.items())
        }

    rigs = [shown(each) for each in (rig(1), rig(1, first=5.07, stop=17), rig(2), rig(3))]
    copies = 0
    for one, other in permutations(rigs, 2):
        whole, quick = best_view(one, other), best_view(one, other, at_least=THRESHOLD)
        assert quick == whole or max(quick.score, whole.score) < THRESHOLD
        copies += whole.score >= THRESHOLD
    assert copies == 2


def test_views_whose_moments_never_meet_are_not_compared_rather_than_found_different():
    def at(views, seconds):
        places = list(range(len(seconds)))
        return {
            camera: KeyFrames(
                seconds=np.array(seconds, np.float32),
                signs=view.signs[places],
                strong=view.strong[places],
                length_s=60.0,
            )
            for camera, view in views.items()
        }

    steady = at(rig(1), [0.4 * place for place in range(10)])
    sparse = at(rig(2), [0.9 * place**2 for place in range(8)])
    assert best_view(steady, sparse) is None
    assert best_view(steady, sparse, at_least=THRESHOLD) is None
    assert best_view(steady, at(rig(2), steady["fisheye_cam0"].seconds), at_least=THRESHOLD).score == 0


def test_a_dark_camera_and_one_that_sees_the_same_all_the_time_abstain():
    seconds, pictures = some_view(1)
    dark = key_frames(seconds, pictures / 50, length_s=SECONDS)
    assert dark.abstains == "too few frames have contrast"
    fixed = key_frames(seconds, np.repeat(pictures[:1], len(pictures), axis=0), length_s=SECONDS)
    assert fixed.abstains.startswith("the scene hardly changes")


def a_fingerprint(name, **signals):
    return Fingerprint(
        files={"annotation.hdf5": name}, datasets={}, device_id=name, device_clock_ns=(1, 2), **signals
    )


@pytest.fixture
def graph_of():
    def find(first, second):
        episodes = [
            Episode(
                episode_id=name,
                session_id=name,
                path=name,
                split=split,
                num_frames=8,
                fps=20,
                bytes_by_file={},
            )
            for name, split in (("a", Split.TRAIN), ("b", Split.TEST))
        ]
        prints = {"a": a_fingerprint("a", **first), "b": a_fingerprint("b", **second)}
        return find_leaks(episodes, prints, blocking=LEAK_RULES)

    return find


def test_an_edge_says_how_alike_both_ends_are_and_at_which_offset(graph_of):
    seconds, norms = some_motion(1)
    part = seconds >= 5
    graph = graph_of(
        {"motion": motion_trace(seconds, norms)}, {"motion": motion_trace(seconds[part] - 5, norms[:, part])}
    )
    [edge] = graph.edges
    assert (edge.rule, edge.layer, edge.first, edge.second) == ("motion_disjoint", "near_duplicate", "a", "b")
    assert edge.score > edge.threshold == 0.6
    assert edge.offset_s == pytest.approx(5, abs=0.02)
    assert edge.evidence == "the same motion for 15.0 s"


def test_a_mirrored_recording_is_an_edge(graph_of):
    mirrored = rig(1, lambda pictures: np.ascontiguousarray(pictures[..., ::-1]))
    [edge] = graph_of({"key_frames": rig(1)}, {"key_frames": mirrored}).edges
    assert (edge.rule, edge.evidence) == ("pictures_disjoint", "the same pictures for 20.0 s, mirrored")


def test_silence_on_both_sides_is_no_edge_and_both_abstain(graph_of):
    silence = {"sound": sound_bits(np.zeros(SECONDS * SAMPLE_RATE, np.float32))}
    graph = graph_of(silence, silence)
    assert graph.edges == ()
    [report] = [each for each in graph.rules if each.rule == "sound_disjoint"]
    assert report.pairs == 0
    assert [(each.episode_id, each.reason) for each in report.abstained] == [
        ("a", "it is silent"),
        ("b", "it is silent"),
    ]


def test_a_copy_of_four_seconds_is_too_short_to_compare_and_the_graph_says_so(graph_of):
    seconds, norms = some_motion(1)
    part = seconds < 4
    short = {"motion": motion_trace(seconds[part], norms[:, part])}
    graph = graph_of({"motion": motion_trace(seconds, norms)}, short)
    assert graph.edges == ()
    [report] = [each for each in graph.rules if each.rule == "motion_disjoint"]
    assert (report.pairs, report.pairs_not_compared, report.abstained) == (0, 1, ())
    [pair] = report.pairs_abstained
    assert (pair.first, pair.second) == ("a", "b")
    assert pair.reason.startswith("too short to compare: no offset has 5 s")
    assert report.sees_from == "5 s, and 25% of the shorter recording"


def test_two_episodes_without_a_signal_in_common_are_named_as_not_compared(graph_of):
    felt, went = motion_trace(*some_motion(1)), path_trace(*some_path(2))
    [report] = [
        each for each in graph_of({"motion": felt}, {"path": went}).rules if each.rule == "motion_disjoint"
    ]
    assert [each.reason for each in report.pairs_abstained] == ["they have no signal in common"]


def test_every_rule_accounts_for_every_pair(graph_of):
    for report in graph_of({"motion": motion_trace(*some_motion(1))}, {}).rules[1:]:
        assert report.pairs + report.pairs_not_compared == 1, report.rule


def test_an_episode_that_no_witness_could_compare_is_named_where_others_were():
    """Motion and sound block; what has neither may be a copy of anything."""
    from omni_mlflow.spine.leak_graph import Abstention, LeakGraph, RuleReport

    def rule(name, *silent, blocks=True):
        return RuleReport(
            rule=name,
            layer="near_duplicate",
            blocks=blocks,
            looks_at="",
            sees_from="",
            pairs=7,
            pairs_not_compared=4,
            edges=0,
            abstained=tuple(Abstention(episode_id=each, reason="") for each in silent),
        )

    rules = (
        rule("motion_disjoint", "a", "b"),
        rule("sound_disjoint", "b", "c"),
        rule("pictures_disjoint", "d", blocks=False),
    )
    graph = LeakGraph(nodes=(), edges=(), rules=rules)
    assert graph.gaps == ["b could be compared by no near-duplicate rule that blocks"]
    assert LeakGraph(nodes=(), edges=(), rules=()).gaps == []
