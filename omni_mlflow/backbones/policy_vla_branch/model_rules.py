"""Rules over a checkpoint's small files: configuration, processor, tokenizer, statistics and heads.

The libraries read leniently: a wrong number of image tokens, a chunk of another length or a label list of
another size runs, with another meaning. So everything is compared with the contract and with the base.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from omni_mlflow.backbones.policy_vla_branch.heads import (
    HEADS_NAME,
    HeadLabels,
    new_heads,
    num_features,
)
from omni_mlflow.backbones.policy_vla_branch.heads import WEIGHTS_NAME as HEAD_WEIGHTS
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.backbones.policy_vla_branch.statistics import STATS_NAME, NormalizationStats
from omni_mlflow.spine.types import Check

CONFIG_NAME, PROCESSOR_NAME, TOKENIZER_NAME = "config.json", "processor_config.json", "tokenizer.json"
SMALLEST_STD = 1e-6
"""A deviation below it would blow the noise of a dimension that hardly moves up to the size of the others."""

_OWN_CONFIG = {"chunk_size", "loss_reduction"}
_OWN_PROCESSOR = {"state_mean", "state_std", "actions_mean", "actions_std", "chunk_size", "max_state_dim"}
"""Keys that a training sets; every other one is the base's."""

_NOTES = {"_name_or_path", "architectures", "dtype", "transformers_version"}
"""Keys at any depth that the library adds when it loads or saves; none changes what is computed."""


@dataclass(frozen=True)
class SmallFiles:
    """A checkpoint's small files beside what they belong to.

    Attributes:
        config, base_config: of the model here and of its base.
        heads: tensors of the heads by name; ``head_labels`` what they choose from.
        train_labels: the same, counted again on the train samples.
    """

    config: Any
    base_config: Any
    processor: Any
    base_processor: Any
    statistics: NormalizationStats
    heads: Mapping[str, Any]
    head_labels: HeadLabels
    train_labels: HeadLabels
    settings: Settings


def chunk_length_agrees(files: SmallFiles) -> Check:
    """The processor would fold chunks of another length into other samples without a word."""
    wanted = files.settings.action.horizon_frames
    found = {"contract": wanted, "config": files.config.chunk_size, "processor": files.processor.chunk_size}
    return _same("chunk_length_agrees", CONFIG_NAME, wanted, found)


def widths_agree(files: SmallFiles) -> Check:
    """One width for padded states and actions, and every dimension of both fits into it."""
    wanted = files.base_config.max_action_dim
    found = {
        "max_action_dim": files.config.max_action_dim,
        "max_state_dim": files.config.max_state_dim,
        "processor": files.processor.max_state_dim,
    }
    check = _same("widths_agree", CONFIG_NAME, wanted, found)
    widest = max(len(files.statistics.actions.mean), len(files.statistics.state.mean))
    return check.model_copy(update={"ok": check.ok and widest <= wanted})


def config_is_the_bases(files: SmallFiles) -> Check:
    found, expected = files.config.to_dict(), files.base_config.to_dict()
    return _no_difference("config_is_the_bases", CONFIG_NAME, found, expected, own=_OWN_CONFIG)


def processor_is_the_bases(files: SmallFiles) -> Check:
    """Size and scaling of images and the number of their tokens are what the weights were trained with."""
    found, expected = files.processor.to_dict(), files.base_processor.to_dict()
    return _no_difference("processor_is_the_bases", PROCESSOR_NAME, found, expected, own=_OWN_PROCESSOR)


def tokenizer_is_the_bases(files: SmallFiles) -> Check:
    found, expected = (_vocabulary(each.tokenizer) for each in (files.processor, files.base_processor))
    told = "the base's" if found == expected else "another"
    return _check("tokenizer_is_the_bases", TOKENIZER_NAME, "the base's", told, ok=found == expected)


def processor_uses_the_recorded_statistics(files: SmallFiles) -> Check:
    """Bit for bit: what is recorded is recomputed from train episodes, what the processor holds is used."""
    recorded = {
        "actions_mean": files.statistics.actions.mean,
        "actions_std": files.statistics.actions.std,
        "state_mean": files.statistics.state.mean,
        "state_std": files.statistics.state.std,
    }
    differing = [name for name, values in recorded.items() if getattr(files.processor, name) != list(values)]
    return _none("processor_uses_the_recorded_statistics", STATS_NAME, "the same numbers", differing)


def statistics_can_normalise(files: SmallFiles) -> Check:
    wrong = []
    for name, each in (("actions", files.statistics.actions), ("state", files.statistics.state)):
        if len(each.mean) != len(each.std):
            wrong.append(f"{name}: {len(each.mean)} means, {len(each.std)} deviations")
        wrong += [f"{name} mean {mean}" for mean in each.mean if not math.isfinite(mean)]
        wrong += [f"{name} std {std}" for std in each.std if not (math.isfinite(std) and std >= SMALLEST_STD)]
    return _none(
        "statistics_can_normalise", STATS_NAME, f"finite, deviations of {SMALLEST_STD:g} or more", wrong
    )


def head_labels_are_those_of_train(files: SmallFiles) -> Check:
    """A label list in another order, shorter or longer would give every score another name."""
    wanted = files.train_labels.model_copy(update={"features": num_features(files.base_config)})
    wrong = [
        f"{name}: {getattr(files.head_labels, name)}"
        for name in HeadLabels.model_fields
        if getattr(files.head_labels, name) != getattr(wanted, name)
    ]
    return _none("head_labels_are_those_of_train", HEADS_NAME, "the labels of the train samples", wrong)


def heads_have_the_shapes_of_their_labels(files: SmallFiles) -> Check:
    labels = files.train_labels.model_copy(update={"features": num_features(files.base_config)})
    wanted = {name: tuple(tensor.shape) for name, tensor in new_heads(labels, seed=0).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in files.heads.items()}
    return differing_shapes("heads_have_the_shapes_of_their_labels", HEAD_WEIGHTS, found, wanted)


def heads_are_finite(files: SmallFiles) -> Check:
    return all_finite("heads_are_finite", HEAD_WEIGHTS, files.heads)


def heads_were_trained(files: SmallFiles) -> Check:
    """Every draw of new heads begins with the same normalisation, and every step of a training moves it.

    Not that of a head with one class: whatever it holds, it gives the one answer, so nothing is learned.
    """
    fresh = new_heads(files.head_labels, seed=0).state_dict()
    untouched = [
        name
        for name, size in files.head_labels.sizes().items()
        if (size > 1 or name == "objects")
        and all(
            part in files.heads and files.heads[part].equal(fresh[part])
            for part in (f"{name}.0.weight", f"{name}.0.bias")
        )
    ]
    return _none("heads_were_trained", HEAD_WEIGHTS, "no head is as it was made", untouched)


RULES = (
    chunk_length_agrees,
    widths_agree,
    config_is_the_bases,
    processor_is_the_bases,
    tokenizer_is_the_bases,
    statistics_can_normalise,
    processor_uses_the_recorded_statistics,
    head_labels_are_those_of_train,
    heads_have_the_shapes_of_their_labels,
    heads_are_finite,
    heads_were_trained,
)


def differing_shapes(rule: str, subject: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Check:
    """Compare names and shapes of tensors both ways."""
    wrong = [
        f"{name}: {found.get(name, 'missing')} instead of {wanted.get(name, 'nothing')}"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    return _none(rule, subject, f"{len(wanted)} tensors", wrong)


def all_finite(rule: str, subject: str, tensors: Mapping[str, Any]) -> Check:
    wrong = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    return _none(rule, subject, "no NaN and no infinity", wrong)


def _no_difference(
    rule: str, subject: str, found: dict[str, Any], expected: dict[str, Any], *, own: set[str]
) -> Check:
    keys = sorted({*found, *expected} - own - _NOTES)
    wrong = [f"{key}: {found.get(key)}" for key in keys if _text(found.get(key)) != _text(expected.get(key))]
    return _none(rule, subject, "what the base has", wrong)


def _text(value: Any) -> str:
    """Values as JSON, for 4.0 is no 4 there."""
    return json.dumps(_without_notes(value), sort_keys=True, default=str)


def _without_notes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_notes(each) for key, each in value.items() if key not in _NOTES}
    return value


def _vocabulary(tokenizer: Any) -> dict[str, Any]:
    """All of a tokenizer but how it pads and cuts, which every call says again."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: value for key, value in content.items() if key not in ("padding", "truncation")}


def _same(rule: str, subject: str, wanted: int, found: Mapping[str, int]) -> Check:
    return _check(rule, subject, str(wanted), str(found), ok=set(found.values()) == {wanted})


def _none(rule: str, subject: str, expected: str, wrong: Iterable[str]) -> Check:
    found = sorted(wrong)
    shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
    return _check(rule, subject, expected, shown or "as expected", ok=not found)


def _check(rule: str, subject: str, expected: str, found: str, *, ok: bool) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=ok)
