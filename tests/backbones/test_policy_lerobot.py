"""The LeRobotDataset of the policy branch: every frame where it says, and its numbers are those of train."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from omni_mlflow.backbone_lookup import load_backbone
from omni_mlflow.backbones.base import ExportsEpisodes
from omni_mlflow.backbones.policy_vla_branch import BACKBONE
from omni_mlflow.backbones.policy_vla_branch.inputs import nominal_rate
from omni_mlflow.backbones.policy_vla_branch.lerobot_stats import column_stats, histogram, picture_stats
from omni_mlflow.backbones.policy_vla_branch.lerobot_v3 import Form, Recording, read_episodes, write_dataset
from omni_mlflow.backbones.policy_vla_branch.whole_episodes import COLUMNS, Tracks, columns_of
from omni_mlflow.publication.detectors import DETECTORS
from omni_mlflow.spine.rows import read_rows
from omni_mlflow.spine.types import Split, Window

CAMERA = "observation.images.head"
FORM = Form(
    fps=Fraction(20),
    camera=CAMERA,
    size=(64, 64),
    columns={"action": ("x", "y"), "observation.state": ("z", "valid")},
    robot_type="human_hands",
)
LENGTHS = (11, 7, 16)
TASKS = ("Sort blocks", "Wipe the table", "Sort blocks")


def stamped(episode: int, frame: int) -> np.ndarray:
    """A picture whose 8 x 8 squares spell episode and frame in binary, black or white."""
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    for bit in range(16):
        if (episode << 8 | frame) >> bit & 1:
            top, left = 8 * (bit // 8), 8 * (bit % 8)
            picture[top : top + 8, left : left + 8] = 255
    return picture


def read_stamp(squares: np.ndarray) -> tuple[int, int]:
    """The episode and frame that the middles of the squares spell; shape (8, 8), 0 to 1."""
    number = sum(1 << bit for bit in range(16) if squares[bit // 8, bit % 8] > 0.5)
    return number >> 8, number & 255


def recording(episode: int, *, first: int = 0) -> Recording:
    length = LENGTHS[episode]
    values = np.arange(2 * length, dtype=np.float32).reshape(length, 2) + 100 * (episode + first)
    known = np.ones((length, 2), dtype=bool)
    known[0, 0] = False
    return Recording(
        task=TASKS[episode],
        pictures=(stamped(episode, frame) for frame in range(length)),
        columns={"action": values, "observation.state": values / 2},
        known={"action": known},
    )


def recordings() -> Iterator[Recording]:
    return (recording(episode) for episode in range(3))


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("lerobot") / "train"
    write_dataset(root, recordings(), FORM, split="train", normal=None)
    return root


def test_info_counts_what_is_there_and_describes_every_column(train):
    info = json.loads((train / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 34, 2)
    assert (info["fps"], info["splits"]) == (20, {"train": "0:3"})
    table = pq.read_table(train / "data/chunk-000/file-000.parquet")
    assert {*table.column_names} | {CAMERA} == {*info["features"]}
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    assert info["features"][CAMERA]["shape"] == [64, 64, 3]


def test_every_frame_has_its_place_in_its_episode_and_in_the_whole(train):
    first = 0
    for number, episode in enumerate(read_episodes(train)):
        rows = pq.read_table(train / f"data/chunk-000/file-{number:03d}.parquet").to_pydict()
        length = LENGTHS[number]
        assert (episode["dataset_from_index"], episode["dataset_to_index"]) == (first, first + length)
        assert (episode["length"], episode["tasks"]) == (length, [TASKS[number]])
        assert rows["frame_index"] == [*range(length)]
        assert rows["index"] == [*range(first, first + length)]
        assert rows["episode_index"] == [number] * length
        assert rows["task_index"] == [(0, 1, 0)[number]] * length
        assert np.allclose(rows["timestamp"], np.arange(length) / 20, atol=1e-6)
        assert rows["action"][1] == [2 + 100 * number, 3 + 100 * number]
        first += length


def test_the_table_of_tasks_is_indexed_by_the_task_as_its_readers_expect(train):
    table = pq.read_table(train / "meta/tasks.parquet")
    assert table.to_pydict() == {"task_index": [0, 1], "task": ["Sort blocks", "Wipe the table"]}
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_every_picture_is_shown_at_its_own_time_and_none_is_built_from_a_later_one(train):
    for number, episode in enumerate(read_episodes(train)):
        with av.open(str(train / f"videos/{CAMERA}/chunk-000/file-{number:03d}.mp4")) as container:
            stream = container.streams.video[0]
            shown = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
            assert stream.codec_context.has_b_frames == 0
        assert [time for time, _ in shown] == pytest.approx(
            [k / 20 for k in range(LENGTHS[number])], abs=1e-9
        )
        assert [read_stamp(picture[4::8, 4::8, 0] / 255) for _, picture in shown] == [
            (number, k) for k in range(LENGTHS[number])
        ]
        assert episode[f"videos/{CAMERA}/from_timestamp"] == 0
        assert episode[f"videos/{CAMERA}/to_timestamp"] == pytest.approx(LENGTHS[number] / 20)
        assert episode[f"videos/{CAMERA}/file_index"] == number


def test_what_is_normal_is_counted_over_known_numbers_alone(train):
    stats = json.loads((train / "meta/stats.json").read_text())["action"]
    whole = np.concatenate([recording(episode).columns["action"] for episode in range(3)])
    known = np.concatenate([recording(episode).known["action"] for episode in range(3)])
    for place in range(2):
        values = whole[known[:, place], place].astype(np.float64)
        assert stats["mean"][place] == pytest.approx(values.mean())
        assert stats["std"][place] == pytest.approx(values.std())
        assert stats["q01"][place] == pytest.approx(np.quantile(values, 0.01))
        assert stats["min"][place] == values.min()
    assert stats["count"] == [34]


def test_another_split_says_what_is_normal_in_train(train, tmp_path):
    normal = json.loads((train / "meta/stats.json").read_text())
    write_dataset(tmp_path / "test", [recording(1, first=50)], FORM, split="test", normal=normal)
    assert json.loads((tmp_path / "test/meta/info.json").read_text())["splits"] == {"test": "0:1"}
    assert json.loads((tmp_path / "test/meta/stats.json").read_text()) == normal
    (episode,) = read_episodes(tmp_path / "test")
    assert episode["stats/action/mean"][0] > 5000 > normal["action"]["max"][0]


def test_the_same_recordings_make_the_same_bytes(train, tmp_path):
    write_dataset(tmp_path / "again", recordings(), FORM, split="train", normal=None)
    for path in sorted(each for each in train.rglob("*") if each.is_file()):
        assert (tmp_path / "again" / path.relative_to(train)).read_bytes() == path.read_bytes(), path.name


def test_a_number_that_is_never_known_is_told_as_zero():
    stats = column_stats(np.array([[5.0, 1.0], [7.0, 1.0]]), np.array([[False, True], [False, True]]))
    assert (stats["mean"], stats["std"], stats["max"]) == ([0.0, 1.0], [0.0, 0.0], [0.0, 1.0])


def test_numbers_of_pictures_follow_from_every_pixel():
    picture = np.zeros((2, 2, 3), dtype=np.uint8)
    picture[0, :, 0] = 255
    stats = picture_stats(histogram(picture), num_frames=1)
    assert stats["mean"] == [[[0.5]], [[0.0]], [[0.0]]]
    assert stats["std"][0] == [[0.5]]
    assert (stats["max"][0], stats["q10"][0], stats["q90"][0]) == ([[1.0]], [[0.0]], [[1.0]])


def tracks(num_frames: int) -> Tracks:
    """Hands that move 1 cm per frame along the camera's x; the camera moves 2 cm per frame along y."""
    rng = np.random.default_rng(1)
    hand = rng.normal((0, 0, 0.5), 0.05, (2, 21, 3))
    joints = np.repeat(hand[None], num_frames, axis=0)
    joints[..., 0] += 0.01 * np.arange(num_frames)[:, None, None]
    camera = np.repeat(np.eye(4)[None], num_frames, axis=0)
    camera[:, 1, 3] = 0.02 * np.arange(num_frames)
    return Tracks.of(
        {
            "hands_in_camera": joints.swapaxes(0, 1),
            "hands_valid": np.ones((2, num_frames), dtype=bool),
            "camera_to_world": camera,
            "camera_valid": np.ones(num_frames, dtype=bool),
        }
    )


def test_an_action_is_where_the_hands_are_a_frame_later_in_the_world():
    moving = tracks(6)
    columns, known = columns_of(moving, np.array([0, 2, 4]), fps=20.0)
    wrist = moving.joints[2, 0, 0] + [0, 0.04, 0]
    assert columns["action"][0, :3] == pytest.approx(wrist, abs=1e-6)
    assert np.array_equal(columns["action"][1], columns["action"][2])  # no frame follows the last one
    assert columns["observation.camera_pose"][1] == pytest.approx([0, 0.04, 0, 1, 0, 0, 0, 1, 0])
    assert known["action"].all()


def test_a_velocity_is_told_in_the_camera_of_now():
    columns, _ = columns_of(tracks(6), np.array([0, 2]), fps=20.0)
    names = slice(20, 23)
    assert columns["observation.state"][0, names] == pytest.approx([0, 0, 0])  # nothing comes before frame 0
    assert columns["observation.state"][1, names] == pytest.approx([0.2, 0.4, 0.0], abs=1e-6)


def test_a_hand_that_is_not_seen_is_zero_and_counts_as_unknown():
    moving = tracks(6)
    moving.valid[3, 1] = False
    columns, known = columns_of(moving, np.arange(6), fps=20.0)
    assert columns["action_valid"][2].tolist() == [1, 0]
    assert not columns["action"][2, 10:].any()
    assert known["action"][2].tolist() == [True] * 10 + [False] * 10
    assert known["observation.state"][3].tolist()[10:20] == [False] * 10


def test_a_velocity_is_known_where_the_hand_and_the_camera_are_at_both_frames():
    moving = tracks(8)
    moving.valid[2, 1] = False
    moving.posed[5] = False
    columns, known = columns_of(moving, np.arange(8), fps=20.0)
    flags = {"left": [0, 1, 1, 1, 1, 0, 0, 1], "right": [0, 1, 0, 0, 1, 0, 0, 1]}
    for place, side in enumerate(("left", "right")):
        names = slice(20 + 3 * place, 23 + 3 * place)
        assert columns["observation.valid"][:, 1 + place].tolist() == flags[side]
        assert known["observation.state"][:, names].tolist() == [[bool(flag)] * 3 for flag in flags[side]]
        assert (columns["observation.state"][:, names].any(axis=1) == flags[side]).all()
    told = column_stats(columns["observation.state"], known["observation.state"])
    assert told["mean"][20] == pytest.approx(0.2)  # every known velocity: 1 cm in a twentieth of a second
    assert told["std"][20] == pytest.approx(0.0, abs=1e-6)


def test_a_camera_pose_that_is_not_known_has_a_flag_that_says_so():
    moving = tracks(4)
    moving.posed[1] = False
    columns, known = columns_of(moving, np.arange(4), fps=20.0)
    assert columns["observation.valid"][:, 0].tolist() == [1, 0, 1, 1]
    assert not columns["observation.camera_pose"][1].any()
    assert known["observation.camera_pose"].all(axis=1).tolist() == [True, False, True, True]


def test_every_column_names_as_many_numbers_as_it_has():
    columns, _ = columns_of(tracks(3), np.arange(3), fps=20.0)
    assert {name: len(names) for name, names in COLUMNS.items()} == {
        name: values.shape[1] for name, values in columns.items()
    }


@pytest.mark.parametrize(
    ("category", "name"),
    [
        ("raw_video", f"videos/{CAMERA}/chunk-000/file-000.mp4"),
        ("annotation_hdf5", "data/chunk-000/file-000.parquet"),
        ("annotation_hdf5", "meta/episodes/chunk-000/file-000.parquet"),
    ],
)
def test_a_file_of_it_is_recognised_under_any_name_and_cannot_be_published(train, tmp_path, category, name):
    renamed = tmp_path / "metrics.json"
    renamed.write_bytes((train / name).read_bytes())
    assert DETECTORS[category](renamed)


@pytest.mark.lerobot
def test_lerobot_reads_every_frame_where_it_was_written(train):
    python = os.environ.get("OMNI_MLFLOW_LEROBOT_PYTHON")
    if python is None:
        pytest.skip("OMNI_MLFLOW_LEROBOT_PYTHON names no interpreter with lerobot")
    script = Path(__file__).with_name("lerobot_reader.py")
    done = subprocess.run(
        [python, str(script), str(train), CAMERA], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    wanted = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]
    assert [(each["episode"], each["frame"]) for each in told["frames"]] == wanted
    for (episode, frame), each in zip(wanted, told["frames"], strict=True):
        assert read_stamp(np.array(each["picture"])) == (episode, frame)
        assert each["action"] == recording(episode).columns["action"][frame].tolist()
        assert each["task"] == TASKS[episode]
        assert each["timestamp"] == pytest.approx(frame / 20)
    assert told["chunk"] == recording(0).columns["action"][:4].tolist()
    normal = json.loads((train / "meta/stats.json").read_text())
    assert told["mean"] == pytest.approx(normal["action"]["mean"])
    assert told["fps"] == 20


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    """What the branch writes of one episode per split of a finished job's index."""
    index, root = finished.workspace / "index", tmp_path_factory.mktemp("export")
    first: dict[Split, list[Window]] = {}
    for window in read_rows(index / "window_index.jsonl", Window):
        first.setdefault(window.split, [window])
    media = {split: index / "episodes" / split for split in Split}
    BACKBONE.export_episodes(first, media=media, out={split: root / split for split in Split})
    return root


def test_each_split_has_a_folder_of_its_own_and_all_say_what_is_normal_in_train(exported):
    stats = {split: (exported / split / "meta/stats.json").read_bytes() for split in Split}
    assert len(set(stats.values())) == 1
    (episode,) = read_episodes(exported / "train")
    assert json.loads(stats[Split.TRAIN])["action"]["mean"] == episode["stats/action/mean"]
    (held_out,) = read_episodes(exported / "test")
    assert held_out["stats/action/mean"] != episode["stats/action/mean"]


def test_each_folder_names_the_split_that_it_is_and_all_have_the_same_rate(exported):
    infos = {split: json.loads((exported / split / "meta/info.json").read_text()) for split in Split}
    assert [info["splits"] for info in infos.values()] == [{split.value: "0:1"} for split in infos]
    # 20 frames per second, and the index of the finished job keeps every fourth
    assert [(info["fps"], type(info["fps"])) for info in infos.values()] == [(5, int)] * 3


def test_the_rate_is_the_one_recordings_were_set_to_though_clocks_drift_and_frames_are_dropped():
    assert nominal_rate([20.0005, 19.9971, 17.8, 20.0082]) == 20
    assert nominal_rate([29.97]) == 30


def test_no_label_of_an_episode_is_a_column_or_its_task(exported, finished):
    columns = pq.read_table(exported / "test/data/chunk-000/file-000.parquet").column_names
    assert {*COLUMNS} < {*columns}
    assert not [name for name in columns if any(word in name for word in ("label", "contact", "object"))]
    windows = read_rows(finished.workspace / "index/window_index.jsonl", Window)
    (episode,) = read_episodes(exported / "test")
    assert episode["tasks"] == [
        next(each for each in windows if each.split is Split.TEST).modalities.language.main_task
    ]


def test_the_policy_offers_whole_episodes_and_a_backbone_that_does_not_is_left_alone():
    assert isinstance(BACKBONE, ExportsEpisodes)
    assert not isinstance(load_backbone("qwen3_omni_lora"), ExportsEpisodes)
