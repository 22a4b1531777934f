"""What the labels of the train episodes alone give away: the floors that every model must beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Self

from omni_mlflow.metrics.answers import LABEL_QUESTIONS, UNKNOWN
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import FittedOnTrain, Target


class TrainPriors(FittedOnTrain):
    """Label counts of the train samples; fitted in ``train``, stored in the checkpoint.

    Attributes:
        action, subtask, contact, transition, next_action, next_contact: number of train samples per label.
        objects: number of train samples that name the object.
        objects_per_sample: number of train samples that name no object, one, two and so on; those whose
            objects nobody annotated are in none of them.
        next_given_action, next_given_contact: for each current action or contact, counts of the next one.
    """

    num_samples: int
    action: dict[str, int]
    subtask: dict[str, int]
    objects: dict[str, int]
    objects_per_sample: tuple[int, ...]
    contact: dict[str, int]
    transition: dict[str, int]
    next_action: dict[str, int]
    next_contact: dict[str, int]
    next_given_action: dict[str, dict[str, int]]
    next_given_contact: dict[str, dict[str, int]]

    @classmethod
    def fit(cls, targets: Iterable[Target]) -> Self:
        """Count labels; unlabelled values are not counted. Order of ``targets`` does not matter."""
        counts: dict[str, Counter[str]] = {name: Counter() for name in (*LABEL_QUESTIONS, "objects")}
        sizes: Counter[int] = Counter()
        next_action: dict[str, Counter[str]] = {}
        next_contact: dict[str, Counter[str]] = {}
        episodes: set[str] = set()
        num_samples = 0
        for target in targets:
            labels = target.labels
            episodes.add(target.episode_id)
            num_samples += 1
            contact, contact_then = yes_no(labels.in_contact), yes_no(labels.next_in_contact)
            for name, value in (
                ("action", labels.action),
                ("subtask", labels.subtask),
                ("contact", contact),
                ("transition", yes_no(labels.transition)),
                ("next_action", labels.next_action),
                ("next_contact", contact_then),
            ):
                if value is not None:
                    counts[name][value] += 1
            if labels.objects is not None:
                counts["objects"].update(labels.objects)
                sizes[len(labels.objects)] += 1
            for following, now, then in (
                (next_action, labels.action, labels.next_action),
                (next_contact, contact, contact_then),
            ):
                if now is not None and then is not None:
                    following.setdefault(now, Counter())[then] += 1
        return cls(
            episode_ids=tuple(sorted(episodes)),
            episodes_digest=digest_of(sorted(episodes)),
            num_samples=num_samples,
            objects_per_sample=tuple(sizes[size] for size in range(max(sizes, default=-1) + 1)),
            next_given_action={now: _sorted(next_action[now]) for now in sorted(next_action)},
            next_given_contact={now: _sorted(next_contact[now]) for now in sorted(next_contact)},
            **{name: _sorted(counter) for name, counter in counts.items()},
        )

    @property
    def num_without_objects(self) -> int:
        """Number of train samples whose objects nobody annotated."""
        return self.num_samples - sum(self.objects_per_sample)

    @classmethod
    def of_actions(cls, actions: Iterable[str]) -> Self:
        """What is known when only the action of each train sample is: no floor for another question.

        Samples whose action nobody annotated, ``unknown``, are counted in ``num_samples`` alone.
        """
        counts = Counter(actions)
        num_samples = counts.total()
        del counts[UNKNOWN]
        return cls.fit([]).model_copy(update={"num_samples": num_samples, "action": _sorted(counts)})

    @property
    def num_without_action(self) -> int:
        """Number of train samples whose action nobody annotated."""
        return self.num_samples - sum(self.action.values())


def yes_no(value: bool | None) -> str | None:
    """``yes``/``no`` as the published JSON spells it; None stays None."""
    return None if value is None else "yes" if value else "no"


def most_common(counts: dict[str, int]) -> str | None:
    """The most frequent label, alphabetically first on a tie; None when nothing was counted."""
    return min(counts, key=lambda label: (-counts[label], label)) if counts else None


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {label: counter[label] for label in sorted(counter)}
