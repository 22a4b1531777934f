"""Where an episode keeps its caption: in the annotation under one of two names, or in a file beside it."""

from __future__ import annotations

from pathlib import Path

from omni_mlflow.spine.annotation import AnnotationFile, UnreadableEpisodeError, plain
from omni_mlflow.spine.layout import MOST_BYTES

_LONGEST_FILE_NAME = 255


def caption_texts(annotation: AnnotationFile, folder: Path) -> dict[str, str | bytes]:
    """Return what may be the caption, by the name of the dataset that holds it or of the file beside it.

    Args:
        folder: of the episode; a caption never names a file outside it.

    Raises:
        UnreadableEpisodeError: one of them cannot be read.
    """
    found: dict[str, str | bytes] = {}
    for name in ("caption", "captions"):
        if text := annotation.text(name):
            linked = _linked(text, folder)
            found |= {linked.name: _bytes_of(linked)} if linked else {name: text}
    return found


def _linked(caption: str | bytes, folder: Path) -> Path | None:
    """Return the file in the episode folder that a caption names, if it is no caption but a name."""
    name = plain(caption) or ""
    if not name or len(name) > _LONGEST_FILE_NAME or Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    linked = folder / name
    return linked if linked.is_file() else None


def _bytes_of(file: Path) -> bytes:
    try:
        if (size := file.stat().st_size) <= MOST_BYTES:
            return file.read_bytes()
        reason = f"the caption is said to be here, in {size:,} bytes, and at most {MOST_BYTES:,} are read"
    except OSError as error:
        reason = f"the caption is said to be here and cannot be read: {error}"
    raise UnreadableEpisodeError(file, reason, "check the file, or leave this episode out")
