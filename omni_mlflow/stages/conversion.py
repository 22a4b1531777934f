"""The other way to an index: exported Qwen records are converted, and no episode is read.

Nobody guarded the episodes behind such records, so no backbone is exported from this index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from omni_mlflow.spine.dataset_records import ConvertedWindow, PublishedLabels, convert_records
from omni_mlflow.spine.rows import file_digest, read_rows, write_document, write_rows
from omni_mlflow.spine.types import Labels, Skip, Split
from omni_mlflow.spine.windows import degenerate_labels
from omni_mlflow.stages.base import Report, Run
from omni_mlflow.stages.manifests import WindowIndexManifest


def convert(run: Run, records: Path) -> Report:
    """Write ``window_index.jsonl`` and its manifest, and check what a file can say about itself."""
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import converted_frame

    skips: list[Skip] = []
    per_episode: Counter[str] = Counter()
    per_split: Counter[Split] = Counter()
    answers: Counter[Labels] = Counter()

    def windows() -> Iterator[ConvertedWindow]:
        for made in convert_records(records):
            if isinstance(made, Skip):
                skips.append(made)
                continue
            per_episode[made.episode_id] += 1
            per_split[made.split] += 1
            answers[_yes_no_of(made.supervision)] += 1
            yield made

    out, summary = run.folder / "window_index.jsonl", run.folder / "window_index_manifest.json"
    num_windows = write_rows(out, windows())
    write_document(
        summary,
        WindowIndexManifest(
            num_windows=num_windows,
            windows_per_split={split: per_split[split] for split in Split},
            windows_per_episode=dict(sorted(per_episode.items())),
            degenerate_labels=degenerate_labels(answers.elements()),
            converted_from={"file": records.name, "sha256": file_digest(records), "skipped": len(skips)},
        ),
    )
    suite = check_suite(run.suites / "converted_index.yaml", converted_frame(read_rows(out, ConvertedWindow)))
    pages = write_suite_result(suite, run.folder / "validation")
    return Report(
        outputs=[out, summary, *pages],
        artifacts={"": [summary], "validation": pages},
        metrics={f"rows/windows_{split}": per_split[split] for split in Split},
        failures=suite.failures(),
        skipped=skips,
        taken=num_windows + len(skips),
        made=num_windows,
        rows="records",
    )


def _yes_no_of(labels: PublishedLabels) -> Labels:
    """One of nine, so that counting them takes no memory."""
    return PublishedLabels(transition=labels.transition, published_contact=labels.published_contact)
