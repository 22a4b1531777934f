"""Reading an annotation once as the later stages will, so that what they could not read is left out first."""

from __future__ import annotations

from omni_mlflow.spine.annotation import UnreadableEpisodeError
from omni_mlflow.spine.episodes import EpisodeFile
from omni_mlflow.spine.features import window_features
from omni_mlflow.spine.recording import recording_of
from omni_mlflow.spine.types import Span


def read_as_later_stages_do(source: EpisodeFile) -> None:
    """Read everything of an annotation that ``guard`` and ``index`` read, by what they read it with.

    Depth is 99 % of a file, so it is only sampled: 16 frames spread over the episode that are digested, the
    middle one, and two more for the features. Damage between them is left for ``index`` to find, which skips
    the episode with the reason.
    For an episode of 6,000 frames this adds about 0.4 s to what selecting it costs anyway: every recorded
    array is digested.

    Raises:
        UnreadableEpisodeError: of the first read that fails, or what is computed from the annotation does not
            fit into memory.
    """
    last = source.num_frames - 1
    try:
        recording_of(source)
        window_features(source, [Span(start=0, stop=source.num_frames)])
        source.captions()
        source.hand_contact()
        for frame in (0, last // 2, last):
            source.depth_rows(frame, frame + 1)
    except MemoryError as error:
        reason = "what the later stages compute from it does not fit into the memory of this machine"
        raise UnreadableEpisodeError(source.annotation.path, reason, "leave this episode out") from error
