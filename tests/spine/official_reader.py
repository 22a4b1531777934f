"""What the data set's own toolkit makes of an annotation, restated from a description of its rules.

Only for tests, and on purpose without a line of our reader: where the two agree, they agree from two sides.
The toolkit does not mask and does not coerce: what it does not expect, it raises on, and so does this.
``old`` is the caption rule of its release, ``new`` that of its main branch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

Rule = Literal["old", "new"]
Frame = dict[str, Any]
Labels = list[tuple[Any, ...]]

SLAM = ("slam/quat_wxyz", "slam/trans_xyz", "slam/frame_names")
COUNTED_BY = ("hand_mocap/left_joints_3d", "depth/depth", "full_body_mocap/keypoints")
A_TIMESTAMP = 100_000_000


@dataclass(frozen=True)
class OfficialEpisode:
    """``frames`` has the keys theme, action_label, objects, interaction, each optional; None: no caption."""

    names: list[str]
    camera_to_world: np.ndarray
    hands: tuple[np.ndarray, np.ndarray] | None
    body: np.ndarray | None
    contacts: np.ndarray | None
    main_task: str
    frames: list[Frame] | None


def load(path: Path, *, rule: Rule) -> OfficialEpisode:
    """Read all frames, as ``load_from_annotation_hdf5(path, 0, -1)``."""
    with h5py.File(path, "r") as file:
        if "calibration" not in file:
            raise KeyError("calibration")
        names, poses = _placed(file)
        hands = _hands(file)
        body, contacts = (
            _without_sample_axis(file, f"full_body_mocap/{x}") for x in ("keypoints", "contacts")
        )
        document = _caption(file, path.parent)
    if document is None:
        return OfficialEpisode(names, poses, hands, body, contacts, "", None)
    task = document.get("config", {}).get("Main Task", "N/A")
    return OfficialEpisode(names, poses, hands, body, contacts, task, lay_out(document, names, rule=rule))


def labels(frames: list[Frame]) -> Labels:
    """Return action, subtask, objects and interaction of every frame; an empty text and N/A are no label."""

    def plain(text: Any) -> Any:
        return None if text in (None, "", "N/A") else text

    return [
        (
            plain(frame.get("action_label")),
            plain(frame.get("theme")),
            tuple(frame["objects"]) if frame.get("objects") else None,
            plain(frame.get("interaction")),
        )
        for frame in frames
    ]


def our_labels(captions: Any) -> Labels:
    """Return what our reader made of a caption, in the same shape."""
    return list(zip(captions.action, captions.subtask, captions.objects, captions.interaction, strict=True))


def _placed(file: h5py.File) -> tuple[list[str], np.ndarray]:
    if not all(name in file for name in SLAM):
        counted = next((name for name in COUNTED_BY if name in file), None)
        if counted is None:
            raise KeyError("no frame-length dataset")
        num_frames = file[counted].shape[0]
        return [f"frame_{i:06d}.jpg" for i in range(num_frames)], np.tile(np.eye(4), (num_frames, 1, 1))
    names = [name.decode(errors="replace").strip("\0") for name in file["slam/frame_names"]]
    body_from_world = np.tile(np.eye(4), (len(names), 1, 1))
    body_from_world[:, :3, :3] = Rotation.from_quat(file["slam/quat_wxyz"][()], scalar_first=True).as_matrix()
    body_from_world[:, :3, 3] = file["slam/trans_xyz"][()]
    rig = file.get("calibration/cam01/T_c0_b")
    camera_from_body = np.eye(4) if rig is None else rig[()]
    return names, np.linalg.inv(camera_from_body @ body_from_world)


def _hands(file: h5py.File) -> tuple[np.ndarray, np.ndarray] | None:
    if "hand_mocap/left_joints_3d" not in file:
        return None
    left = file["hand_mocap/left_joints_3d"][()]
    right = file.get("hand_mocap/right_joints_3d")
    return left, np.zeros_like(left) if right is None else right[()]


def _without_sample_axis(file: h5py.File, name: str) -> np.ndarray | None:
    if name not in file:
        return None
    array = file[name][()]
    return array[0] if array.shape[0] == 1 else array


def _caption(file: h5py.File, folder: Path) -> Any:
    """Return the JSON of the first caption that is not empty; broken JSON and absent ones are None."""
    for text in (_text(file[name]) for name in ("caption", "captions") if name in file):
        named = folder / text if text[:1] not in ("{", "[") and len(text) < 256 else None
        try:
            if text:
                return json.loads(named.read_text() if named and named.is_file() else text)
        except ValueError:
            return None
    return None


def _text(dataset: h5py.Dataset) -> str:
    value = dataset[()]
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    raw = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else value.tobytes()
    return raw.decode("utf-8", errors="replace").strip()


def lay_out(document: Any, names: list[str], *, rule: Rule) -> list[Frame]:
    """Lay the caption over the frames: later actions win, gaps go on, and nothing is filled backwards."""
    references = (NewReferences if rule == "new" else OldReferences)(names)
    frames: list[Frame] = [{} for _ in names]
    for segment in document.get("segments", []):
        _lay_out_segment(segment, frames, references)
    for before, frame in pairwise(frames):
        for key in ("theme", "action_label"):
            if key in before:
                frame.setdefault(key, before[key])
    return frames


def _lay_out_segment(segment: Any, frames: list[Frame], references: NewReferences | OldReferences) -> None:
    theme = segment.get("Sub Task", "")
    actions = []
    for action in segment.get("Current Action", []):
        if (span := references.action(action)) is not None:
            actions.append((*span, action.get("label", "")))
    actions.sort(key=lambda action: action[0])
    touched = set()
    for start, end, label in actions:
        for i in range(start, min(end + 1, len(frames))):
            frames[i] |= {"theme": theme, "action_label": label}
            touched.add(i)
    told = {key: segment.get(key, {}) for key in ("objects", "interaction")}
    for reference in [*told["objects"].keys(), *told["interaction"].keys()]:
        if (i := references.moment(reference)) is not None:
            touched.add(i)
            frames[i].setdefault("theme", theme)
            frames[i] |= {key: told[key][reference] for key in told if reference in told[key]}
    if not touched:
        return
    start, end = references.bounds(segment.get("start_frame", 0), segment.get("end_frame", 0))
    start, end = min(touched) if start is None else start, max(touched) if end is None else end
    going_on = {
        key: sorted(references.moment(each) for each in told[key] if references.carries(each)) for key in told
    }
    for i in range(start, end + 1):
        frames[i].setdefault("theme", theme)
        if actions and not frames[i].get("action_label"):
            frames[i]["action_label"] = _label_before(actions, i)
        for key, moments in going_on.items():
            if earlier := [moment for moment in moments if moment <= i]:
                frames[i].setdefault(key, frames[earlier[-1]].get(key))


def _label_before(actions: list[tuple[int, int, str]], i: int) -> str:
    """The label of the last action that is over at frame i; of the first one, when none is."""
    label = actions[0][2]
    for start, end, each in actions:
        if end < i:
            label = each
        elif start > i:
            break
    return label


class _References:
    """Which frame a reference means; None: none."""

    def __init__(self, names: list[str]) -> None:
        self.last = len(names) - 1
        self.index = {name.rsplit(".", 1)[0]: i for i, name in reversed(list(enumerate(names)))}
        self.index |= {name: i for i, name in enumerate(names)}
        self.stamps = {int(stem): i for stem, i in self.index.items() if stem.isdigit()}

    def nearest(self, stamp: int) -> int | None:
        return min(self.stamps.items(), key=lambda item: abs(item[0] - stamp))[1] if self.stamps else None


class NewReferences(_References):
    def moment(self, reference: Any) -> int | None:
        text = "" if reference is None else str(reference).strip()
        stem = text.rsplit(".", 1)[0]
        for known in (text, stem):
            if known in self.index:
                return self.index[known]
        numbered = re.search(r"frame_(\d+)", text)
        if numbered is None and not re.fullmatch(r"-?\d+", stem):
            return None
        number = int(numbered[1] if numbered else stem)
        if numbered is None and number >= A_TIMESTAMP:
            return self.nearest(number)
        return min(max(number - 1, 0), self.last)

    def action(self, action: Any) -> tuple[int, int] | None:
        return self._ordered(*(action.get(f"{end}_frame_name") or action.get(f"{end}_frame") for end in ENDS))

    def carries(self, reference: str) -> bool:
        return self.moment(reference) is not None

    def bounds(self, start: Any, end: Any) -> tuple[int | None, int | None]:
        return self._ordered(start, end) or (self.moment(start), self.moment(end))

    def _ordered(self, start: Any, end: Any) -> tuple[int, int] | None:
        found = [self.moment(start), self.moment(end)]
        return None if None in found else (min(found), max(found))


class OldReferences(_References):
    def moment(self, reference: str) -> int | None:
        if reference in self.index or not reference.isdigit():
            return self.index.get(reference)
        return self.nearest(int(reference))

    def action(self, action: Any) -> tuple[int, int] | None:
        start, end = (_given(action.get(f"{end}_frame_name"), action.get(f"{end}_frame")) for end in ENDS)
        if not start or not end:
            return None
        first, last = self.index.get(start), self.index.get(end)
        if start.isdigit():
            first = self.nearest(int(start)) if first is None else first
            last = self.nearest(int(end)) if last is None else last  # raises at the end of "frame_0000021"
        return None if first is None or last is None else (first, last)

    def carries(self, reference: str) -> bool:
        return reference in self.index

    def bounds(self, start: Any, end: Any) -> tuple[int | None, int | None]:
        try:
            first, last = int(start), int(end)
        except (TypeError, ValueError):
            return self.moment(str(start)), self.moment(str(end))
        if 0 <= first <= self.last and 0 <= last <= self.last:
            return min(first, last), last
        return self.moment(str(start)), self.moment(str(end))


ENDS = ("start", "end")


def _given(name: str | None, reference: Any) -> str | None:
    return name if name is not None or reference is None else str(reference)
