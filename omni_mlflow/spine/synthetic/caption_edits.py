"""Captions in other containers, with other references, of other types, and in other words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from omni_mlflow.spine.captions import FrameCaptions, map_captions
from omni_mlflow.spine.synthetic.edits import edit_caption, editing, frame_clock, replace

SHORT_SEGMENTS = 60

_OTHER_VERBS = {
    "Brush": "Sweep", "Scrape": "Scour", "Fold": "Crease", "Stir": "Mix", "Peel": "Strip", "Pour": "Decant",
    "Tape": "Seal", "Weigh": "Put on the scale", "Polish": "Buff", "Measure": "Take the size of",
}  # fmt: skip
_OTHER_WORDS = {
    "The person works on the": "Somebody is busy with the",
    "with the": "using the",
    "The right hand touches": "Contact of the right hand with",
    "The right hand hovers over": "No contact of the right hand with",
    "Handle": "Deal with",
    " block": " cube",
}


def edited(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Return an edit that puts what ``change`` makes of the caption's JSON in its place."""

    def edit(folder: Path) -> None:
        with editing(folder) as file:
            edit_caption(file, change)

    return edit


def stored(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return an edit that puts what ``change`` makes of the caption's bytes in their place."""

    def edit(folder: Path) -> None:
        with editing(folder) as file:
            replace(file, "caption", change(file["caption"][()]))

    return edit


def with_segment(**fields: Any) -> Callable[[Path], None]:
    """Return an edit that adds a last segment of these fields."""
    return edited(lambda document: {**document, "segments": [*document["segments"], fields]})


def in_an_array(folder: Path) -> None:
    with editing(folder) as file:
        replace(file, "captions", np.array([file["caption"][()]]))
        del file["caption"]


def in_a_file(folder: Path) -> None:
    with editing(folder) as file:
        (folder / "caption.json").write_bytes(file["caption"][()])
        replace(file, "caption", b"caption.json")


def as_of_a_tiny_episode(document: Any) -> Any:
    config = {"Main Task": document["config"]["Main Task"], "segment_sec": 20, "sample_fps": 0.5}
    config["total_tokens"] = document["config"]["total_tokens"]
    return {**document, "config": config, "global_summary": f"{config['Main Task']}, one action."}


def with_unknown_keys(document: Any) -> Any:
    return {**document, "quality": {"score": None}, "reviewers": [1, 2]}


def action_not_applicable(folder: Path) -> None:
    """Let an action that has no label cover the last third."""
    with editing(folder) as file:
        clock = frame_clock(file).tolist()
        start, end = clock[2 * len(clock) // 3], clock[-1]
        action = {"label": "N/A", "description": "", "start_frame": start, "end_frame": end}

        def change(document: Any) -> Any:
            document["segments"][-1]["Current Action"].append(action)
            return document

        edit_caption(file, change)


def mixed_references(folder: Path) -> None:
    """Let the last action end at a numbered frame, as last segments do."""
    with editing(folder) as file:
        last = f"frame_{len(frame_clock(file)):07d}"

        def change(document: Any) -> Any:
            described = [segment for segment in document["segments"] if segment["Current Action"]]
            described[-1]["Current Action"][-1]["end_frame"] = last
            return document

        edit_caption(file, change)


def integer_references(folder: Path) -> None:
    """Say the same in 60 segments that number frames from 1: as number, text, name, or last frame first."""
    with editing(folder) as file:
        names = [f"{stamp}.jpg" for stamp in frame_clock(file)]
        told = map_captions(file["caption"][()], names)
        assert told is not None
        edges = np.linspace(0, len(names), SHORT_SEGMENTS + 1).astype(int).tolist()
        segments = [
            _numbered_segment(told, start, stop, number=number)
            for number, (start, stop) in enumerate(pairwise(edges))
        ]
        edit_caption(file, lambda document: {**document, "segments": segments})


def _numbered_segment(told: FrameCaptions, start: int, stop: int, *, number: int) -> dict[str, Any]:
    """Describe frames [start, stop) as what is told of the first of them."""
    first, last = start + 1, stop
    styles: tuple[tuple[int | str, int | str], ...] = (
        (first, last),
        (str(first), str(last)),
        (f"frame_{first:06d}", f"frame_{last:06d}"),
        (last, first),
    )
    span = dict(zip(("start_frame", "end_frame"), styles[number % len(styles)]))
    return {
        **span,
        "segment_id": number,
        "Sub Task": told.subtask[start],
        "Current Action": [{**span, "label": told.action[start], "description": ""}],
        "objects": {str(first): list(told.objects[start] or ())},
        "interaction": {},
    }


def renamed_labels(document: Any) -> Any:
    """Call every action by another verb; which is which stays clear to a person."""
    for segment in document["segments"]:
        for action in segment["Current Action"]:
            action["label"] = _other_verb(action["label"])
    return document


def paraphrased(document: Any) -> Any:
    """Say all of a caption in other words."""

    def reworded(value: Any) -> Any:
        if isinstance(value, str):
            return _replaced(_other_verb(value), _OTHER_WORDS)
        if isinstance(value, list):
            return [reworded(each) for each in value]
        if isinstance(value, dict):
            return {key: reworded(each) for key, each in value.items()}
        return value

    return {**document, "segments": reworded(document["segments"])}


def _other_verb(text: str) -> str:
    verb, space, rest = text.partition(" ")
    return _OTHER_VERBS.get(verb, verb) + space + rest


def _replaced(text: str, words: Mapping[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text
