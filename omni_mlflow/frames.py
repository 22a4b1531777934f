"""Turn rows of our files into the flat tables that the suites in ``expectations/`` check.

Each function gives one dict per table row with the columns that its suite documents. Joins happen here,
so that a suite holds only simple statements about one table.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from sys import intern
from typing import Any, NamedTuple

from omni_mlflow.spine.dataset_records import ConvertedWindow
from omni_mlflow.spine.leak_graph import LeakGraph
from omni_mlflow.spine.strict_json import strict_json
from omni_mlflow.spine.types import Episode, Split, Window

TableRow = dict[str, Any]


def manifest_frame(episodes: Iterable[Episode], graph: LeakGraph) -> list[TableRow]:
    """Return the table of ``episode_manifest.yaml``: one row per episode, with its leaks."""
    blocking, warnings = (
        Counter(end for edge in graph.edges if edge.blocks is blocks for end in (edge.first, edge.second))
        for blocks in (True, False)
    )
    near_duplicates = [rule for rule in graph.rules if rule.layer == "near_duplicate" and rule.blocks]
    abstained = Counter(each.episode_id for rule in near_duplicates for each in rule.abstained)
    return [
        {
            "episode_id": episode.episode_id,
            "session_id": episode.session_id,
            "folder": _folder_around(episode.path),
            "path": episode.path,
            "split": _text(episode.split),
            "size_bytes": episode.size_bytes,
            "digest": episode.digest,
            "missing_modalities": ",".join(sorted(episode.missing_modalities)),
            "num_frames": episode.num_frames,
            "fps": episode.fps,
            "num_leaks": blocking[episode.episode_id],
            "num_leak_warnings": warnings[episode.episode_id],
            "num_signals": len(near_duplicates) - abstained[episode.episode_id],
        }
        for episode in episodes
    ]


def window_frame(windows: Iterable[Window], episodes: Iterable[Episode]) -> Iterator[TableRow]:
    """Yield the table of ``window_index.yaml``: windows joined with their episodes."""
    manifest = {episode.episode_id: episode for episode in episodes}
    for window in windows:
        episode = manifest.get(window.episode_id)
        yield {
            "id": window.id,
            "episode_id": window.episode_id,
            "split": _text(window.split),
            "m_split": _text(episode.split) if episode else None,
            "start": window.span.start,
            "stop": window.span.stop,
            "anchor": window.anchor,
            "m_num_frames": episode.num_frames if episode else None,
            "action": window.supervision.action,
        }


def converted_frame(windows: Iterable[ConvertedWindow]) -> Iterator[TableRow]:
    """Yield the table of ``converted_index.yaml``: windows joined with the first of their episode."""
    first_split: dict[str, Split] = {}
    for window in windows:
        yield {
            "id": window.id,
            "episode_id": window.episode_id,
            "split": _text(window.split),
            "first_split": _text(first_split.setdefault(window.episode_id, window.split)),
            "start": window.span.start,
            "stop": window.span.stop,
            "action": window.supervision.action,
        }


def ledger_frame(
    episodes: Iterable[Episode],
    *,
    fitted_on: Collection[str],
    samples_consumed: Mapping[str, int],
    windows: Iterable[Window] = (),
) -> list[TableRow]:
    """Return the table of ``training_ledger.yaml``: manifest episodes, then unknown ones that training names.

    Args:
        fitted_on: ids of the episodes that label lists and normalisers were fitted on.
        samples_consumed: number of samples that training read, repetitions counted, by episode id.
        windows: labelled windows, where the share of labels that train never shows is to be reported.
    """
    known = list(episodes)
    train_by_session = Counter(episode.session_id for episode in known if episode.split is Split.TRAIN)
    unseen = _unseen_label_share(known, windows)
    table = [
        {
            "episode_id": episode.episode_id,
            "split": _text(episode.split),
            "in_fit": episode.episode_id in fitted_on,
            "num_samples_consumed": samples_consumed.get(episode.episode_id, 0),
            "num_train_same_session": train_by_session[episode.session_id] - (episode.split is Split.TRAIN),
            "unseen_label_share": unseen.get(episode.episode_id),
        }
        for episode in known
    ]
    unknown = {*samples_consumed, *fitted_on} - {episode.episode_id for episode in known}
    return table + [
        {
            "episode_id": episode_id,
            "split": None,
            "in_fit": episode_id in fitted_on,
            "num_samples_consumed": samples_consumed.get(episode_id, 0),
            "num_train_same_session": 0,
            "unseen_label_share": None,
        }
        for episode_id in sorted(unknown)
    ]


class _Told(NamedTuple):
    """What all lines about one sample say; the last one has the last word."""

    num_lines: int
    json_error: str | None
    outcome: Any
    split: Any


def prediction_frame(expected: Iterable[str], lines: Iterable[str]) -> Iterator[TableRow]:
    """Yield the table of ``predictions.yaml``: ids that were asked, in order, then ids nobody asked for.

    Args:
        expected: ids of the samples that were asked.
        lines: lines of the predictions file, unparsed.
    """
    asked = {intern(each): _NOTHING for each in expected}
    others: dict[str, _Told] = {}
    for number, line in enumerate(lines, start=1):
        sample_id, told = _read_prediction(line, number)
        of_whom = asked if sample_id in asked else others
        before = of_whom.get(sample_id, _NOTHING)
        errors = "; ".join(error for error in (before.json_error, told.json_error) if error) or None
        of_whom[sample_id] = told._replace(num_lines=before.num_lines + 1, json_error=errors)
    for expected_here, of_whom in ((True, asked), (False, others)):
        for sample_id, told in of_whom.items():
            yield {"id": sample_id, "expected": expected_here, **told._asdict()}


_NOTHING = _Told(0, None, None, None)


def _read_prediction(line: str, number: int) -> tuple[str, _Told]:
    error = None
    try:
        row = strict_json(line)
    except ValueError as problem:
        error = f"line {number}: {problem}"
        row = _lenient_json(line)
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        return f"line {number}", _Told(1, error or f"line {number}: no object with an id", None, None)
    outcome, split = (_shared(row.get(name)) for name in ("outcome", "split"))
    return row["id"], _Told(1, error, outcome, split)


def _shared(value: Any) -> Any:
    """The same word once in memory, however many lines hold it."""
    return intern(value) if isinstance(value, str) else value


def _lenient_json(line: str) -> Any:
    """What Python makes of a line that is not strict JSON: enough to name its sample."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _unseen_label_share(episodes: Sequence[Episode], windows: Iterable[Window]) -> dict[str, float]:
    labels: dict[str, list[str]] = {}
    for window in windows:
        if window.supervision.action is not None:
            labels.setdefault(window.episode_id, []).append(window.supervision.action)
    in_train = {
        label
        for episode in episodes
        if episode.split is Split.TRAIN
        for label in labels.get(episode.episode_id, ())
    }
    return {
        episode_id: sum(label not in in_train for label in found) / len(found)
        for episode_id, found in labels.items()
    }


def _folder_around(path: str) -> str:
    parent = PurePosixPath(path).parent.as_posix()
    return path if parent == "." else parent


def _text(split: Split | None) -> str | None:
    return None if split is None else split.value
