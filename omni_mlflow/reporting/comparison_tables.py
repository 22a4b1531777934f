"""The words and tables of a comparison, as text cells: terminal, Markdown, HTML and CSV say the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omni_mlflow.metrics.comparison import ComparedMetric, Contrast, Score, Verdict
from omni_mlflow.metrics.power import LARGER_SPLITS
from omni_mlflow.reporting.comparison_facts import ComparisonFacts
from omni_mlflow.reporting.spelling import NOTHING, bounds, number, signed
from omni_mlflow.reporting.tables import Table
from omni_mlflow.reporting.wording import floor_title
from omni_mlflow.spine.evidence import Evidence

HOW_TO_READ = (
    "Every run answered the same anchors, so differences are paired: what is hard for all of them cancels. "
    "Intervals are over episodes, because windows of one episode are not independent. A positive difference "
    "is in the row's favour. On held-out evidence, and on no other, a row is called better or worse than the "
    "reference where the 95 % interval of the difference excludes zero and the sign-flip test over episodes "
    "still rejects at 5 % after Holm's correction for every difference in the table; otherwise the two are "
    "tied, which does not say that they are equal."
)
HOW_TO_READ_POWER = (
    "The smallest true difference that a paired t-test over episodes (two-sided, 5 %, one metric) finds in "
    "80 % of splits of that many episodes, if episodes go on to differ as they do here. The verdicts above "
    "ask for more and find it a little less often. Differences below it will mostly be tied, whatever the "
    "models are."
)


def run_class(facts: ComparisonFacts) -> str:
    """The first line of every page: what kind of evidence this is."""
    answered = f"{facts.anchors} held-out anchors in {facts.episodes} episodes"
    if facts.evidence is Evidence.SYNTHETIC:
        return "SYNTHETIC DATA: this comparison says nothing about model quality on real episodes."
    if facts.evidence is Evidence.SMOKE:
        return f"SMOKE RUNS ({answered}): this comparison says nothing about model quality."
    return f"HELD-OUT COMPARISON: {answered}, none of them seen in training."


def title(facts: ComparisonFacts) -> str:
    reference, *others = facts.rows
    against = " and ".join(row.name for row in others)
    return f"{against} against {reference.name}" if others else f"{reference.name} over its training seeds"


def findings(facts: ComparisonFacts) -> list[str]:
    """What may be said: only of held-out evidence which row is better."""
    if len(facts.rows) == 1:
        return [
            "All runs differ in nothing but their training seed, so there is no other row to hold against."
        ]
    if facts.evidence is Evidence.SMOKE:
        short = "; ".join(f"{name}: {', '.join(why)}" for name, why in facts.shortcomings.items())
        why = f": {short}" if short else ""
        return [f"Not every run is a held-out result{why}. So nothing is said about the models."]
    if facts.evidence is Evidence.SYNTHETIC:
        return [
            "The episodes were generated, so the numbers show that the comparison works, and nothing is said "
            "about the models."
        ]
    return [
        f"{metric.title}: {contrast.row} is {contrast.verdict} {_than(contrast)}, "
        f"{signed(contrast.difference)} {_bounds(contrast)}, p = {contrast.adjusted_p:.3g} after Holm."
        for metric in facts.metrics
        for contrast in metric.contrasts
    ]


def remarks(facts: ComparisonFacts) -> list[str]:
    """What a reader must know before believing a verdict."""
    told = [f"{question} is not compared: {why}." for question, why in facts.not_compared.items()]
    if len(facts.rows) > 2:
        told.append(
            f"{facts.rows[0].name} is the reference, because it was named first. The other rows are not held "
            "against each other; name another run first to hold them against that one."
        )
    if any(metric.contrasts for metric in facts.metrics) and facts.episodes < facts.fewest_episodes:
        told.append(
            f"With {facts.episodes} episodes no difference can be told from a tie: the sign-flip test over "
            f"episodes needs at least {facts.fewest_episodes} for this many differences."
        )
    return told


def common_anchors(facts: ComparisonFacts) -> str:
    compared = (
        f"{facts.anchors} anchors in {facts.episodes} episodes are answered by every run; only these are "
        "compared."
    )
    if not any(metric.question for metric in facts.metrics):
        return f"{compared} No label question is, so disagreements.csv is empty."
    return f"{compared} disagreements.csv lists the {facts.disagreements} answers in which the runs differ."


def tables(facts: ComparisonFacts) -> Iterator[Table]:
    """Every table, in the order of the page."""
    for make in (rows_table, results_table, unanswered_table, power_table):
        yield make(facts)


def rows_table(facts: ComparisonFacts) -> Table:
    cells = tuple(
        (
            run.name,
            row.title.partition(": ")[2],
            run.seed or NOTHING,
            run.given,
            run.checkpoint_digest[:12],
            run.evidence,
        )
        for row in facts.rows
        for run in row.runs
    )
    return Table(("Run", "What it is", "Training seed", "Named as", "Checkpoint", "Evidence"), cells)


def results_table(facts: ComparisonFacts) -> Table:
    """Every row on every metric; the reference has no difference to itself."""
    cells = tuple(
        (
            metric.title,
            score.row,
            number(score.value),
            _bounds(score),
            _spread(score),
            signed(contrast.difference) if contrast else NOTHING,
            _bounds(contrast) if contrast else NOTHING,
            f"{contrast.p_value:.3g}" if contrast else NOTHING,
            f"{contrast.adjusted_p:.3g}" if contrast else NOTHING,
            (contrast.verdict or NOTHING) if contrast else "reference",
        )
        for metric, score, contrast in _lines(facts)
    )
    reference = facts.rows[0].name
    header = (
        "Metric",
        "Row",
        "Value",
        "95 % interval",
        "Over seeds",
        f"Difference to {reference}",
        "Its 95 % interval",
        "p",
        "p after Holm",
        "Verdict",
    )
    return Table(header, cells, frozenset({2, 3, 4, 5, 6, 7, 8}))


def results_rows(facts: ComparisonFacts) -> list[dict[str, Any]]:
    """``comparison.csv``: the same lines with every digit."""
    rows = []
    for metric, score, contrast in _lines(facts):
        told = contrast.model_dump(mode="json") if contrast else dict.fromkeys(Contrast.model_fields)
        seeds = score.seeds
        rows.append(
            {
                "metric": metric.metric,
                "question": metric.question,
                "row": score.row,
                "value": score.value,
                "low": score.low,
                "high": score.high,
                "seeds": len(seeds.by_run) if seeds else 1,
                "seeds_deviation": seeds.deviation if seeds else None,
                "reference": told["reference"],
                "difference": told["difference"],
                "difference_low": told["low"],
                "difference_high": told["high"],
                "p_value": told["p_value"],
                "adjusted_p": told["adjusted_p"],
                "verdict": told["verdict"],
                "anchors": metric.anchors,
                "episodes": metric.episodes,
                "evidence": facts.evidence.value,
            }
        )
    return rows


def unanswered_table(facts: ComparisonFacts) -> Table:
    """Anchors outside the intersection, by the run that does not answer them."""
    cells = tuple(
        (run.name, str(count), reason)
        for row in facts.rows
        for run in row.runs
        for reason, count in run.unanswered.items()
    )
    return Table(("Run", "Anchors it does not answer", "Why"), cells, frozenset({1}))


def power_table(facts: ComparisonFacts) -> Table:
    """The smallest difference that this split can show, and larger ones could, by what is compared."""
    titles = {metric.metric: metric.title for metric in facts.metrics}
    cells = tuple(
        (
            titles[plan.metric],
            f"{plan.row} against {floor_title(plan.against)}",
            number(plan.deviation),
            f"{number(plan.detectable[plan.episodes])} ({plan.episodes} episodes)",
            *(number(plan.detectable.get(size)) for size in LARGER_SPLITS),
        )
        for plan in facts.power
    )
    larger = tuple(f"{size} episodes" for size in LARGER_SPLITS)
    header = ("Metric", "Difference", "Spread between episodes", "This split", *larger)
    return Table(header, cells, frozenset(range(2, len(header))))


def _lines(facts: ComparisonFacts) -> Iterator[tuple[ComparedMetric, Score, Contrast | None]]:
    for metric in facts.metrics:
        contrasts = {contrast.row: contrast for contrast in metric.contrasts}
        for score in metric.scores:
            yield metric, score, contrasts.get(score.row)


def _than(contrast: Contrast) -> str:
    return f"{'with' if contrast.verdict is Verdict.TIED else 'than'} {contrast.reference}"


def _bounds(found: Score | Contrast) -> str:
    return bounds({"low": found.low, "high": found.high})


def _spread(score: Score) -> str:
    seeds = score.seeds
    return f"{number(seeds.low)} to {number(seeds.high)}, sd {number(seeds.deviation)}" if seeds else NOTHING
