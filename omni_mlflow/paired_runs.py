"""From evaluations to the facts of a comparison: what is refused, what forms a row, what lies outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

from omni_mlflow.compared_runs import EvaluatedRun, NotComparableError
from omni_mlflow.context import flat
from omni_mlflow.declared_measures import apart_from_questions, declared_measures, judged_by
from omni_mlflow.metrics.comparison import Members, compare_rows, estimates_of
from omni_mlflow.metrics.errors import or_none
from omni_mlflow.metrics.floors import floor_scores, floors_of, score_against
from omni_mlflow.metrics.measures import Measure, measure_of_question
from omni_mlflow.metrics.pairing import Pairing, contradictions, disagreements, pair, shared_questions
from omni_mlflow.metrics.power import Power, fewest_episodes, power_of
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.metrics.uncertainty import EpisodeEstimate
from omni_mlflow.reporting.comparison_facts import ComparedRow, ComparedRun, ComparisonFacts, lowest
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.rows import digest_of

_MOST_TOLD = 5
_NO_QUESTION = "no question is answered by every run"
_NO_METRIC = "these runs answer no label question, and no metric that they declare can be paired"


@dataclass(frozen=True)
class PairedAnswers:
    """Evaluations that can be held against each other.

    Attributes:
        runs: by name: a letter for each row, with a number where a row has several seeds.
        members: by row, the names of its runs.
        measures: what is compared: the questions, then the metrics whose values the rows hold.
        left_out: by question or primary metric that is not compared, why.
    """

    runs: Mapping[str, EvaluatedRun]
    members: Members
    pairing: Pairing
    questions: Sequence[str]
    measures: Sequence[Measure]
    left_out: Mapping[str, str]


def paired_answers(runs: Sequence[EvaluatedRun]) -> PairedAnswers:
    """Name the runs, pair their answers and find the questions and metrics that all of them have.

    Raises:
        NotComparableError: fewer than two runs, one of them twice, another split, another truth, or no
            question or metric in common.
        UnpairedError: no anchor in common.
    """
    _check_runs(runs)
    named, members = _named(runs)
    pairing = pair({name: run.predictions for name, run in named.items()})
    questions, left_out = shared_questions({name: run.asked for name, run in named.items()}, pairing)
    declared, without = declared_measures(named, pairing)
    left_out |= without | apart_from_questions(named, questions)
    if not questions and not declared:
        reasons = "; ".join(f"{each}: {why}" for each, why in left_out.items())
        asked = any(run.asked for run in runs)
        raise NotComparableError(
            f"{_NO_QUESTION if asked else _NO_METRIC}: {reasons or 'the contracts name none but a count'}"
        )
    differing = list(contradictions(pairing, questions))
    if differing:
        raise NotComparableError(
            f"the runs were scored against different truths, at {len(differing)} places: "
            f"{'; '.join(differing[:_MOST_TOLD])}; evaluate them on the same index"
        )
    measures = [*map(measure_of_question, questions), *declared]
    return PairedAnswers(named, members, pairing, questions, measures, left_out)


def facts_of(answers: PairedAnswers) -> ComparisonFacts:
    """Everything that the pages say. Pure: same runs, same facts."""
    runs = list(answers.runs.values())
    metrics = compare_rows(answers.pairing, answers.members, answers.measures)
    tests = sum(len(metric.contrasts) for metric in metrics)
    evidence = lowest([run.facts.evidence for run in runs])
    if evidence is not Evidence.HELD_OUT:
        metrics = [metric.without_verdicts() for metric in metrics]
    return ComparisonFacts(
        evidence=evidence,
        shortcomings={
            name: run.facts.shortcomings for name, run in answers.runs.items() if run.facts.shortcomings
        },
        split_digest=runs[0].facts.split_digest,
        rows=tuple(_row(name, answers) for name in answers.members),
        anchors=len(answers.pairing.anchors),
        episodes=answers.pairing.num_episodes,
        metrics=tuple(metrics),
        not_compared=dict(answers.left_out),
        power=tuple(_plans(answers)),
        fewest_episodes=fewest_episodes(max(tests, 1)),
        disagreements=len(disagreements(answers.pairing, answers.questions)),
    )


def _check_runs(runs: Sequence[EvaluatedRun]) -> None:
    if len(runs) < 2:
        raise NotComparableError(f"a comparison needs two evaluations, {len(runs)} was named")
    if len({run.facts.split_digest for run in runs}) > 1:
        told = ", ".join(f"{run.facts.split_digest[:16]} ({run.given})" for run in runs)
        raise NotComparableError(
            f"omni.split_digest differs: {told}; evaluate the runs on one split before comparing them"
        )
    seen: dict[str, str] = {}
    for run in runs:
        facts = run.facts.model_dump(mode="json", exclude={"seal_openings"})  # a merge done again adds one
        same = digest_of([facts, dict(run.training), list(run.predictions)])
        if same in seen:
            raise NotComparableError(f"{run.given} and {seen[same]} are the same evaluation; name each once")
        seen[same] = run.given


def _named(runs: Sequence[EvaluatedRun]) -> tuple[dict[str, EvaluatedRun], dict[str, list[str]]]:
    """Runs that differ in their training seed alone form one row; rows keep the order they were named in.

    A seed that was trained twice is in that row twice. Where all have one seed, nothing that is known sets
    them apart, and each is a row.
    """
    kinds = [digest_of(_identity(run)) for run in runs]
    grouped = {kind: [run for run, own in zip(runs, kinds, strict=True) if own == kind] for kind in kinds}
    rows: list[list[EvaluatedRun]] = []
    for group in grouped.values():
        seeds_differ = len({str(run.seed) for run in group}) > 1
        rows += [group] if seeds_differ else [[run] for run in group]
    named: dict[str, EvaluatedRun] = {}
    members: dict[str, list[str]] = {}
    for place, group in enumerate(rows):
        letter = _letter(place)
        members[letter] = [letter] if len(group) == 1 else [f"{letter}{n + 1}" for n in range(len(group))]
        named |= dict(zip(members[letter], group, strict=True))
    return named, members


def _letter(place: int) -> str:
    """A to Z, then AA, AB and so on."""
    turn, last = divmod(place, len(ascii_uppercase))
    return (_letter(turn - 1) if turn else "") + ascii_uppercase[last]


def _identity(run: EvaluatedRun) -> dict[str, Any]:
    """What makes two evaluated trainings the same but for their seed, by dotted name."""
    shared = ("dataset_digest", "code_digest", "base_model", "base_revision")
    answered = {part: said for part, said in run.facts.identity.items() if part != "checkpoint"}
    return {
        "backbone": run.backbone,
        **flat({"settings": run.settings_but_seed}),
        **{name: run.training.get(name) for name in shared},
        **flat({"answers": answered}),
    }


def _row(name: str, answers: PairedAnswers) -> ComparedRow:
    """A row is told apart from the others of its backbone by the settings in which they differ."""
    own = answers.runs[answers.members[name][0]]
    kin = [_identity(run) for run in answers.runs.values() if run.backbone == own.backbone]
    identity = _identity(own)
    differing = sorted(key for key in identity if any(other.get(key) != identity[key] for other in kin))
    return ComparedRow(
        name=name,
        backbone=own.backbone,
        settings={key.removeprefix("settings."): _short(identity[key]) for key in differing},
        runs=tuple(_run(member, answers) for member in answers.members[name]),
    )


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _run(name: str, answers: PairedAnswers) -> ComparedRun:
    run = answers.runs[name]
    reasons = Counter(_why(run, str(row["id"])) for row in answers.pairing.outside[name])
    return ComparedRun(
        name=name,
        given=run.shown,
        key=run.key,
        backbone=run.backbone,
        checkpoint_digest=run.facts.checkpoint_digest,
        dataset_digest=run.facts.dataset_digest,
        seed=None if run.seed is None else str(run.seed),
        evidence=run.facts.evidence,
        anchors=len(run.predictions),
        unanswered=dict(sorted(reasons.items())),
    )


def _why(run: EvaluatedRun, window: str) -> str:
    """Why a run does not answer a window that another run answers."""
    if window in run.skipped:
        return run.skipped[window]
    if window in run.facts.infrastructure_failed:
        return "the infrastructure left it unanswered"
    if run.facts.limit is not None:
        return f"evaluated with --limit {run.facts.limit}"
    return "its export made no sample of this window"


def _plans(answers: PairedAnswers) -> Iterator[Power]:
    """Plan with every difference to the reference, and with that of each row to its hardest floor."""
    reference, *others = answers.members
    for measure in answers.measures:
        found = estimates_of(answers.pairing, answers.members, measure)
        differences = [(row, reference, measure.better_by(found[row], found[reference])) for row in others]
        for row, names in answers.members.items():
            run = answers.runs[names[0]]
            own_name = measure.question and judged_by(run, measure.question)
            floor = run.best_floors.get(measure.metric) or run.best_floors.get(own_name or "")
            if floor is not None and run.priors is not None and measure.question is not None:
                over_floor = or_none(_over_floor, answers, row, measure, floor, run.priors)
                differences += [(row, floor, over_floor)] if over_floor is not None else []
        for row, other, difference in differences:
            plan = or_none(power_of, difference, metric=measure.metric, row=row, against=other)
            if plan is not None:
                yield plan


def _over_floor(
    answers: PairedAnswers, row: str, measure: Measure, floor: str, priors: TrainPriors
) -> EpisodeEstimate:
    """How far a row lies above a floor, over the anchors that the floor answers.

    Raises:
        NothingToScoreError: it answers none of those that all runs have.
    """
    names = answers.members[row]
    held_against = replace(measure, score=score_against(floor, measure.metric))
    own = estimates_of(answers.pairing, {row: names}, held_against)[row]
    answer = floors_of(priors)[floor]
    graded = replace(measure, score=floor_scores(floor, priors)[measure.metric])
    rows = [answer(each) for each in answers.pairing.rows[names[0]]]
    return measure.better_by(own, graded.estimate(rows))
