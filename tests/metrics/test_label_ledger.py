"""The label ledger: which action labels a dataset has, how often, and how two spellings of one are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_mlflow.metrics.label_ledger import LabelLedger, normal_form
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.types import Labels, Span, Split, Target
from omni_mlflow.stages.declared_labels import action_counts, drift

TRAIN, VAL, TEST = Split.TRAIN, Split.VAL, Split.TEST
COUNTS = {TRAIN: {"Pour": 3, "stir": 1}, VAL: {"stir": 2}, TEST: {"stir": 6, "pour": 2}}
LEDGER = LabelLedger.of(COUNTS)

counts_by_split = st.dictionaries(
    st.sampled_from(list(Split)),
    st.dictionaries(st.sampled_from(["cut", "Cut", "cut ", "pour", "stir"]), st.integers(1, 9)),
)


def target(number: int, action: str | None) -> Target:
    span = Span(start=0, stop=20)
    return Target(id=f"t{number}", episode_id="e", anchor=20, span=span, labels=Labels(action=action))


def fitted(*actions: str) -> TrainPriors:
    return TrainPriors.fit([target(number, action) for number, action in enumerate(actions)])


def test_it_names_every_label_of_every_split_with_its_counts():
    told = [(each.label, each.train, each.val, each.test) for each in LEDGER.labels]
    assert told == [("Pour", 3, 0, 0), ("pour", 0, 0, 2), ("stir", 1, 2, 6)]
    assert LEDGER.classes == ("Pour", "pour", "stir")


def test_spellings_of_one_label_are_told_and_counted_apart():
    assert LEDGER.aliases == {"pour": ("Pour", "pour")}


def test_the_share_of_samples_whose_label_train_lacks():
    assert LEDGER.unseen_share == {VAL: 0.0, TEST: 2 / 8}
    assert LabelLedger.of({TRAIN: {"stir": 1}}).unseen_share[TEST] is None


def test_metrics_tell_how_many_classes_there_are_and_what_of_test_train_lacks():
    told = {"num_classes": 3, "unseen_share_of_test": 0.25, "spellings_told_apart": 2}
    assert LEDGER.summary() == {"digest": LEDGER.digest, **told}


@pytest.mark.parametrize(
    ("label", "form"),
    [("Cut  the Bread!", "cut the bread"), ("cut_the-bread", "cut the bread"), ("ＣＵＴ", "cut"), ("…", "")],
)
def test_a_normal_form_keeps_letters_and_digits(label, form):
    assert normal_form(label) == form


@given(counts_by_split, counts_by_split)
def test_two_ledgers_have_one_digest_exactly_where_nothing_drifted(one, other):
    here, there = LabelLedger.of(one), LabelLedger.of(other)
    assert (here.digest == there.digest) == (not here.drift_to(there))


def test_samples_without_an_action_are_no_class():
    assert action_counts([target(1, "pour"), target(2, None)]) == {"pour": 1}


def test_a_checkpoint_that_saw_the_declared_labels_differs_in_nothing():
    assert drift(LEDGER, LabelLedger.of(COUNTS), fitted("Pour", "Pour", "Pour", "stir")) == []


def test_a_dataset_whose_labels_drifted_is_told_label_by_label():
    drifted = LabelLedger.of({**COUNTS, TEST: {"stir": 6, "pour": 1, "wipe": 1}})
    assert drift(LEDGER, drifted, fitted("Pour", "Pour", "Pour", "stir")) == [
        "'pour': 0/0/2, now 0/0/1 samples (train/val/test)",
        "'wipe': absent, now 0/0/1 samples (train/val/test)",
    ]


def test_a_checkpoint_that_learned_other_labels_is_told_label_by_label():
    assert drift(LEDGER, LabelLedger.of(COUNTS), fitted("Pour", "Pour", "stir", "wipe")) == [
        "'Pour': 3 train samples, the checkpoint saw 2",
        "'wipe': 0 train samples, the checkpoint saw 1",
    ]
