"""The words of a report: names of metrics and floors, verdicts, and what a run class may claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omni_mlflow.metrics.floors import SAME_AS_NOW
from omni_mlflow.metrics.metric import LABEL_METRICS
from omni_mlflow.metrics.metrics_file import reasons_of
from omni_mlflow.reporting.facts import RunFacts
from omni_mlflow.reporting.spelling import NOTHING, bounds, number, signed, within
from omni_mlflow.spine.evidence import Evidence

FLOOR_TITLES = {
    "majority": "most frequent train answer",
    "train_prior": "drawn from train frequencies",
    "same_as_now": "same as what is true now",
    "next_given_current": "usual successor of what is true now",
    "copy_prompt": "the window in the prompt",
}
DIFFERS = "differs"
BLOCKS = "blocks"
BEATS = "beats its floor"
DOES_NOT_BEAT = "does not beat its floor"

NO_INTERVAL = "no interval"

_HOW_TO_READ_FLOORS = (
    "A floor is an answer that needs no model, given to the same samples where it has one; a positive "
    "difference is in the model's favour. Of several floors the hardest is shown, the one whose 95 % "
    "interval of the paired difference reaches lowest. On held-out evidence, and on no other, a verdict "
    "says whether that interval lies above zero: then every other one does."
)
_HOW_DRAWN_LABELS_ARE_GRADED = (
    "A label drawn from train frequencies is graded by its chance to be right; for objects and macro-F1 one "
    "draw is graded."
)
_NO_FLOORS = (
    "No metric comes with a floor, which is an answer that needs no model: nothing here says whether a value "
    "is good."
)
_HOW_TO_READ_INTERVALS = (
    "Intervals are over episodes, because windows of one episode are not independent; where all episodes "
    "have the same value, the interval is what that many identical episodes still allow, and nothing bounds "
    "a metric without an end."
)
HOW_TO_READ_CONTROLS = (
    "Each control answers the same samples with one input exchanged or removed; a positive difference says "
    "that the answers got worse. What needs that input gets as bad as its floor; what does not change was "
    "answered without it."
)


def how_to_read(facts: RunFacts) -> str:
    """What the table of metrics means, as far as it has floors and intervals."""
    floors = facts.section("baselines")
    told = [_HOW_TO_READ_FLOORS if floors else _NO_FLOORS]
    if floors and facts.questions:
        told.append(_HOW_DRAWN_LABELS_ARE_GRADED)
    if facts.section("intervals"):
        told.append(_HOW_TO_READ_INTERVALS)
    return " ".join(told)


def floor_title(name: str) -> str:
    return FLOOR_TITLES.get(name, name.replace("_", " "))


def floor_of(facts: RunFacts, metric: str, floor: str) -> str:
    """The title of a floor that a metric is held against, and over which samples where not over all."""
    judged = facts.section("verdicts").items()
    questions = {question for question, verdict in judged if verdict["metric"] == metric}
    unknown = (facts.section("more").get("unknown_now") or {}).keys() & questions
    limited = ", where that is known" if floor == SAME_AS_NOW and unknown else ""
    return f"{floor_title(floor)}{limited}"


def control_title(name: str) -> str:
    return name.replace("_", " ")


def title(facts: RunFacts) -> str:
    """What the report is called: only a held-out evaluation is called one."""
    kinds = {
        Evidence.SYNTHETIC: "evaluation on synthetic episodes",
        Evidence.SMOKE: "smoke run",
        Evidence.HELD_OUT: "held-out evaluation",
    }
    return f"{facts.display_name}: {kinds[facts.evidence]}"


def run_class(facts: RunFacts) -> str:
    """The first line of every report: what kind of evidence this is."""
    return class_line(
        facts.evidence,
        samples=(facts.answered_samples, facts.split_samples),
        episodes=(facts.answered_episodes, facts.split_episodes),
        overlapping_episodes=facts.overlapping_episodes,
    )


def class_line(
    evidence: Evidence,
    *,
    samples: tuple[int, int],
    episodes: tuple[int, int],
    overlapping_episodes: int,
) -> str:
    """The line that a class demands.

    Args:
        samples, episodes: how many were answered, and how many the split holds out.
    """
    answered = (
        f"{samples[0]} of {samples[1]} held-out samples in {episodes[0]} of {episodes[1]} held-out episodes"
    )
    if evidence is Evidence.SYNTHETIC:
        return "SYNTHETIC DATA: these numbers say nothing about model quality on real episodes."
    if overlapping_episodes:
        return (
            f"NOT HELD OUT: {overlapping_episodes} test episodes share a recording with train or val "
            f"({answered}); these numbers say nothing about model quality."
        )
    if evidence is Evidence.SMOKE:
        return f"SMOKE RUN ({answered}): these numbers say nothing about model quality."
    return f"HELD-OUT EVALUATION: {answered}, none of them seen in training."


def verdict(baseline: Mapping[str, Any] | None, evidence: Evidence) -> str:
    """Say whether the interval of the difference to the hardest floor lies above zero.

    That is a statement about quality: what is not held-out evidence shows its numbers and gets none.
    """
    if not baseline or evidence is not Evidence.HELD_OUT:
        return NOTHING
    low = baseline["difference"]["low"]
    if low is None:
        return undecided(baseline["difference"])
    return BEATS if low > 0 else DOES_NOT_BEAT


def undecided(difference: Mapping[str, Any]) -> str:
    """Why a difference without limits decides nothing."""
    if difference.get("method"):
        return "undecided: no two episodes differ, and the metric has no end"
    return "undecided: one episode has no interval"


def findings(facts: RunFacts) -> list[str]:
    """Sentences about model quality; only held-out evidence has any."""
    if facts.evidence is Evidence.SYNTHETIC:
        return [
            "The episodes were generated, so this run shows that the pipeline works from raw episodes to "
            "scores. It makes no statement about model quality.",
            *_also_short(facts),
            *_numbers_here(facts),
        ]
    if facts.overlapping_episodes:
        return [
            f"{facts.overlapping_episodes} test episodes share a recording with train or val: the guard's "
            "leak_graph.html names them. This run makes no statement about model quality."
        ]
    if facts.evidence is Evidence.SMOKE:
        return [
            f"This is no held-out result: {'; '.join(facts.shortcomings)}. The run shows that the pipeline "
            "works. It makes no statement about model quality."
        ]
    told = []
    for metric in facts.graded_metrics:
        baseline = facts.section("baselines")[metric]
        floor = baseline["best"]
        told.append(
            f"{facts.title(metric)} is {within(number(facts.value(metric)), facts.interval(metric))} "
            f"and {verdict(baseline, facts.evidence)}: "
            f"“{floor_of(facts, metric, floor)}” scores {number(baseline['floors'][floor])}, a difference of "
            f"{within(signed(baseline['difference']['value']), baseline['difference'])}."
        )
    graded = "question" if facts.questions else "metric"
    return [*told, *_alone(facts)] or [f"No {graded} has a floor to be held against."]


def _also_short(facts: RunFacts) -> Iterable[str]:
    if facts.shortcomings:
        yield f"On real episodes this would be no held-out result either: {'; '.join(facts.shortcomings)}."


def _alone(facts: RunFacts) -> Iterable[str]:
    """The primary metrics without a floor, where no label question is asked."""
    if facts.questions:
        return
    for metric in facts.primary_metrics:
        alone = metric in facts.reported_metrics and metric not in facts.graded_metrics
        if alone and facts.value(metric) is not None:
            value, interval = number(facts.value(metric)), interval_of(facts, metric)
            yield f"{facts.title(metric)} is {value}, {interval}. No floor was given to hold it against."


def interval_of(facts: RunFacts, metric: str) -> str:
    """The interval of a metric, or in words that a value has none."""
    interval = facts.interval(metric)
    if interval is None and facts.value(metric) is not None:
        return NO_INTERVAL
    return bounds(interval)


def _numbers_here(facts: RunFacts) -> list[str]:
    """What each question scored and its floor, as a check of the machinery; which is better is not told."""
    told = []
    for metric in facts.graded_metrics:
        baseline = facts.section("baselines")[metric]
        floor = baseline["best"]
        told.append(
            f"On these generated episodes {_inside(facts.title(metric))} is {number(facts.value(metric))}, "
            f"and “{floor_of(facts, metric, floor)}” scores {number(baseline['floors'][floor])}."
        )
    return told


def _inside(title: str) -> str:
    """A title inside a sentence; names such as F1 and IoU keep their capitals."""
    return title[:1].lower() + title[1:]


def remarks(facts: RunFacts) -> list[str]:
    """What a reader must know before believing a number."""
    more = facts.section("more")
    told = [*_outcomes(facts), *_asked_alone(facts), *_declared(facts)]
    for question, found in sorted((more.get("degenerate_questions") or {}).items()):
        told.append(
            f"{question.replace('_', ' ').capitalize()} is degenerate here: {found['share']:.1%} of its true "
            f"answers are “{found['answer']}”, so a constant looks excellent."
        )
    if unannotated := more.get("samples_without_action_label"):
        told.append(
            f"Nobody annotated the action of {unannotated} samples: no number about the action includes "
            "them, where the published definitions would."
        )
    told += _unknown_now(facts)
    ceiling = more.get("closed_vocabulary_ceiling")
    if ceiling is not None:
        told.append(
            f"{ceiling:.1%} of the samples carry an action that train shows: action accuracy of a model that "
            f"only says those cannot exceed {number(ceiling)}."
        )
    invented = more.get("num_off_taxonomy_predictions")
    if invented:
        told.append(f"{invented} answers name an action outside the declared classes.")
    reasons = {
        name: reason
        for name, reason in reasons_of(facts.metrics).items()
        if (metric := name.rpartition(".")[2]) in facts.kinds or metric not in LABEL_METRICS
    }
    told += [f"“{name}” has no value: {reason}." for name, reason in sorted(reasons.items())]
    for name in facts.primary_metrics:
        if name in facts.reported_metrics and facts.value(name) is None and name not in reasons:
            told.append(f"“{name}” has no value, and the evaluation does not say why.")
    return told


def _unknown_now(facts: RunFacts) -> Iterable[str]:
    """Over which samples a model is held against what is true now, where nobody annotated that in some."""
    title = FLOOR_TITLES[SAME_AS_NOW]
    for question, count in sorted((facts.section("more").get("unknown_now") or {}).items()):
        told = f"In {count} samples asked about {question.replace('_', ' ')} nobody annotated what is now"
        metric = facts.section("verdicts").get(question, {}).get("metric")
        baseline = facts.section("baselines").get(metric) or {}
        if SAME_AS_NOW in baseline.get("floors", {}):
            floor, better_by = (baseline[key][SAME_AS_NOW] for key in ("floors", "differences"))
            own = floor + better_by["value"]
            yield f"{told}: “{title}” is compared over the others, where the model scores {number(own)}."
        else:
            yield f"{told}, so it is not held against “{title}”."


def _asked_alone(facts: RunFacts) -> Iterable[str]:
    """Whether an answer hangs on the batch that it was given in."""
    found = facts.section("asked_alone")
    if found.get("batch_size", 1) > 1 and not found.get("asked"):
        yield (
            f"Samples were asked in batches of up to {found['batch_size']}. None could be asked again alone, "
            "so nobody knows whether an answer hangs on its batch."
        )
    elif found.get("asked"):
        different = found["different"]
        named = f": {', '.join(different)}" if different else ""
        yield (
            f"Samples were asked in batches of up to {found['batch_size']}. {len(different)} of "
            f"{found['asked']} that were asked again alone answered differently{named}."
        )


def _outcomes(facts: RunFacts) -> Iterable[str]:
    """What was said instead of an answer, and where nothing could be said."""
    counts = facts.section("outcomes")
    if invalid := counts.get("model_invalid"):
        told = "1 reply" if invalid == 1 else f"{invalid} replies"
        yield (
            f"No answer can be read from {told}; each is wrong at every question."
            if facts.questions
            else f"{invalid} samples got an answer that cannot be used; they count among those answered."
        )
    if lost := counts.get("infrastructure_failed"):
        told = "1 sample" if lost == 1 else f"{lost} samples"
        yield (
            f"{told} could not be asked (memory, media, disk); no number here includes them, and "
            "`evaluate --retry-failed` asks them again."
        )


def _declared(facts: RunFacts) -> Iterable[str]:
    """The action classes that were fixed before the evaluation; no matter where no label is asked for."""
    ledger = facts.section("label_ledger")
    if not ledger or not facts.questions:
        return
    unseen, spellings = ledger["unseen_share_of_test"], ledger["spellings_told_apart"]
    share = (
        "no test sample has any" if unseen is None else f"{unseen:.1%} of test carries one that train lacks"
    )
    yield (
        f"{ledger['num_classes']} action classes are declared; {share}; {spellings} of them differ from "
        "another in spelling only and are told apart."
    )
