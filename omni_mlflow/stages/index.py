"""index: decode every frame once per episode and camera, and cut the windows that all backbones share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omni_mlflow.code_digest import code_digest
from omni_mlflow.contract import SAME_WINDOWS, Contract, Windows
from omni_mlflow.spine.executors import each_task
from omni_mlflow.spine.processes import DIED, each_in_a_process
from omni_mlflow.spine.rows import file_digest, join_files, read_document, read_rows, write_document
from omni_mlflow.spine.types import Episode, Labels, Skip, Split, Window
from omni_mlflow.spine.windows import degenerate_labels
from omni_mlflow.stages.base import Options, Report, Run, Stage
from omni_mlflow.stages.conversion import convert
from omni_mlflow.stages.manifests import (
    MEDIA,
    EpisodeManifest,
    WindowIndexManifest,
    check_files,
    data_root_of,
)
from omni_mlflow.workspace import StageFolder, StaleInputError

if TYPE_CHECKING:
    from omni_mlflow.spine.indexing import IndexPlan


def _index(run: Run) -> Report:
    records = run.options.dataset_jsonl
    return _index_episodes(run) if records is None else convert(run, records)


def _index_episodes(run: Run) -> Report:
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import window_frame
    from omni_mlflow.spine.indexing import WINDOWS
    from omni_mlflow.spine.sound import WHOLE_S

    manifest = read_document(run.open("guard", "episode_manifest.json"), EpisodeManifest)
    made = _index_each(run, manifest.episodes)
    order = sorted(manifest.episodes, key=lambda episode: episode.episode_id)  # whatever finished first
    filled = [episode for episode in order if made[episode.episode_id].num_windows]
    out = run.folder / "window_index.jsonl"
    join_files(out, (run.folder / MEDIA / _folder(episode) / WINDOWS for episode in filled))
    skips = [skip for episode in order for skip in made[episode.episode_id].skips]
    answers = sum((each.answers for each in made.values()), Counter[Labels]())
    repeated = sum((each.repeated_frames for each in made.values()), Counter[str]())
    per_split = dict.fromkeys(Split, 0)
    for episode in filled:
        per_split[Split(str(episode.split))] += made[episode.episode_id].num_windows
    summary = run.folder / "window_index_manifest.json"
    write_document(
        summary,
        WindowIndexManifest(
            split_digest=manifest.split_digest,
            num_windows=sum(per_split.values()),
            windows_per_split=per_split,
            windows_per_episode={name: made[name].num_windows for name in sorted(made)},
            num_repeated_frames=repeated.total(),
            repeated_frames=dict(sorted(repeated.items())),
            silence_s={name: made[name].silence_s for name in sorted(made) if made[name].silence_s > WHOLE_S},
            sound_refused={
                name: made[name].sound_refused for name in sorted(made) if made[name].sound_refused
            },
            degenerate_labels=degenerate_labels(answers.elements()),
            episodes_without_windows=tuple(skips),
            plan=run.contract.windows.model_dump(mode="json"),
            synthetic=manifest.synthetic,
        ),
    )
    frame = window_frame(read_rows(out, Window), manifest.episodes)
    suite = check_suite(run.suites / "window_index.yaml", frame)
    pages = write_suite_result(suite, run.folder / "validation")
    return Report(
        outputs=[out, summary, run.folder / MEDIA, *pages],
        artifacts={"": [summary], "validation": pages},
        metrics={f"rows/windows_{split}": count for split, count in per_split.items()},
        tags=_told_emptied(run, order, per_split),
        failures=suite.failures(),
        skipped=skips,
        taken=len(manifest.episodes),
        made=len(filled),
    )


def _told_emptied(run: Run, episodes: Sequence[Episode], num_windows: Mapping[Split, int]) -> dict[str, str]:
    """Say of each split that has episodes and no window so, and return the tag for that."""
    counts = Counter(Split(str(episode.split)) for episode in episodes)
    emptied = [split for split in Split if counts[split] and not num_windows[split]]
    for split in emptied:
        run.say(
            f"no window of {split} is left: {counts[split]} of its {counts[split]} episodes have none, and "
            "'export' refuses an empty split; skipped_episodes.jsonl says why: mend or replace them, then "
            "begin at 'select'"
        )
    return {"omni.splits_without_windows": ", ".join(emptied)} if emptied else {}


class _Made(NamedTuple):
    """What crosses back from a worker: the windows themselves stay in the file beside their media.

    Attributes:
        answers: how often each pair of yes/no labels stands in them.
        repeated_frames: how often the proxy repeats a camera's last picture, by camera.
        silence_s: for how long the track of the sound holds nothing.
        sound_refused: why the sound of a camera's file cannot be used, by camera.
    """

    num_windows: int
    answers: Counter[Labels]
    repeated_frames: Counter[str]
    silence_s: float
    sound_refused: dict[str, str]
    skips: tuple[Skip, ...]


def _index_each(run: Run, episodes: Sequence[Episode]) -> dict[str, _Made]:
    """Index every episode, in any order, and return what became of each."""
    from omni_mlflow.spine.indexing import IndexPlan

    data_root, media, windows = data_root_of(run), run.folder / MEDIA, run.contract.windows
    plan = IndexPlan(
        scales=windows.scales,
        frame_grid=windows.frame_grid,
        context_frames=windows.context_frames,
        tile=windows.tile_pixels,
        min_label_share=windows.min_label_share,
        swap_fisheye_cam0_cam2=windows.swap_fisheye_cam0_cam2,
    )
    work = partial(_index_one, data_root=data_root, media=media, plan=plan)
    advance = run.bar.start("index episodes", total=len(episodes))
    made: dict[str, _Made] = {}
    results = each_task(
        work,
        episodes,
        workers=run.options.workers,
        cluster=run.options.cluster,
        code=partial(code_digest, __name__),
        died=_lost,
        say=run.say,
    )
    for episode, each in results:
        made[episode.episode_id] = each
        advance(len(made))
    for left in media.rglob(".*.tmp"):  # by a worker that died; another one did its episode
        left.unlink(missing_ok=True)
    return made


def _index_one(episode: Episode, *, data_root: Path, media: Path, plan: IndexPlan) -> _Made:
    """Index one episode into the folder of its split."""
    from omni_mlflow.spine.indexing import index_episode

    out = (media / _folder(episode)).parent
    index = index_episode(episode, data_root=data_root, out=out, plan=plan)
    labels = (window.supervision for window in index.windows)
    answers = Counter(Labels(in_contact=each.in_contact, transition=each.transition) for each in labels)
    told = index.windows[0].provenance if index.windows else {"repeated_frames": {}, "sound_refused": {}}
    repeated, refused = told["repeated_frames"], told["sound_refused"]
    silence_s = index.counts["silent_ms"] / 1000
    return _Made(len(index.windows), answers, Counter(repeated), silence_s, refused, index.skips)


def _lost(episode: Episode) -> _Made:
    skip = Skip(subject=episode.episode_id, stage="index", reason=DIED)
    return _Made(0, Counter(), Counter(), 0.0, {}, (skip,))


def _folder(episode: Episode) -> str:
    """Where the index of one episode lies: each split has a folder of its own."""
    return f"{episode.split}/{episode.episode_id}"


def _check_data(options: Options, inputs: Mapping[str, StageFolder]) -> None:
    """Only files that were compared with those of the other splits may be indexed."""
    if options.dataset_jsonl is not None:
        return
    manifest = read_document(inputs["guard"].open("episode_manifest.json"), EpisodeManifest)
    selection = inputs["select"].open("selection.json")
    data_root = check_files(options, selection, manifest.episodes, since="'guard' compared them")
    if options.verify_digests:
        _check_digests(manifest.episodes, data_root, workers=options.workers)


def _check_digests(episodes: Sequence[Episode], data_root: Path, *, workers: int) -> None:
    from omni_mlflow.spine.fingerprints import digest_of_files

    guarded = {data_root / each.path: each for each in episodes}
    found = each_in_a_process(digest_of_files, guarded, workers=workers)
    other = sorted(guarded[folder].path for folder, digest in found if digest != guarded[folder].digest)
    if other:
        raise StaleInputError(
            f"{len(other)} episodes hold other bytes than 'guard' compared, under the same sizes and times "
            f"of change: {', '.join(other)}; check the disk, then run 'guard --verify-digests'"
        )


def _settings(contract: Contract) -> Mapping[str, Any]:
    return contract.windows.model_dump(mode="json")


def _choices(options: Options) -> Mapping[str, Any]:
    records = options.dataset_jsonl
    return {} if records is None else {"dataset_jsonl": file_digest(records)}


def _needed(options: Options) -> Iterable[str]:
    return ("select", "guard") if options.dataset_jsonl is None else ()


def _serves(made: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether an index made for several backbones holds the windows and frames that one of them asks for."""
    had, wanted = Windows.model_validate(made), Windows.model_validate(asked)
    return (
        all(getattr(had, name) == getattr(wanted, name) for name in SAME_WINDOWS)
        and set(wanted.scales) <= set(had.scales)
        and wanted.frame_grid % had.frame_grid == 0
    )


INDEX = Stage(
    name="index",
    run=_index,
    rows="episodes",
    inputs={"select": ("selection.json",), "guard": ("episode_manifest.json",)},
    settings=_settings,
    serves=_serves,
    choices=_choices,
    per_backbone=False,
    resumable=True,
    suites=("window_index", "converted_index"),
    only_needs=_needed,
    check_data=_check_data,
    makes=("window_index.jsonl", "window_index_manifest.json"),
)
