"""What the policy learns of train samples beside weights, and the gate's half that counts it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_mlflow.backbones.policy_vla_branch.action_space_file import CheckpointSpace
from omni_mlflow.backbones.policy_vla_branch.fitted import (
    ACTION_SPACE_NAME,
    MAPS_NAME,
    PolicyFitted,
    head_labels,
    known_states,
)
from omni_mlflow.backbones.policy_vla_branch.gate import data_checks
from omni_mlflow.backbones.policy_vla_branch.inputs import STATE_NAMES, Inputs
from omni_mlflow.backbones.policy_vla_branch.learning_data import policy_data
from omni_mlflow.backbones.policy_vla_branch.retargeting import Maps
from omni_mlflow.backbones.policy_vla_branch.round_trip import Bound, load_maps, save_maps
from omni_mlflow.backbones.policy_vla_branch.statistics import STATS_NAME
from omni_mlflow.spine.rows import digest_of, read_document, write_document
from omni_mlflow.spine.types import Split, broken


def test_what_was_fitted_comes_back_from_its_file_to_the_last_bit(policy_exported, tmp_path):
    fitted = policy_exported.fitted()
    write_document(tmp_path / "fitted.json", fitted)
    assert read_document(tmp_path / "fitted.json", PolicyFitted) == fitted


def test_no_order_of_samples_changes_a_bit_of_it(policy_exported):
    backwards = policy_exported.train(lambda made: made[::-1])
    assert PolicyFitted.fit_samples(backwards, policy_exported.settings) == policy_exported.fitted()


def test_it_names_the_train_episodes_wherever_it_says_what_it_was_fitted_on(policy_exported):
    fitted = policy_exported.fitted()
    train = tuple(sorted({each.sample.episode_id for each in policy_exported.of(Split.TRAIN)}))
    assert fitted.episode_ids == fitted.normalization.episode_ids == train


def test_a_checkpoint_defines_every_kind_of_target_that_it_answers(policy_folder, policy_exported):
    space = read_document(policy_folder / ACTION_SPACE_NAME, CheckpointSpace)
    assert space.kinds == (
        "hand_trajectory",
        "action_class",
        "next_action",
        "contact_event",
        "robot_action_token",
    )
    offered = {kind for each in policy_exported.made for kind in each.sample.inputs["target_kinds"]}
    assert offered == {*space.kinds}
    definitions = {each.kind: each for each in space.beside}
    labels = head_labels(policy_exported.fitted())
    assert definitions["action_class"].classes == labels.action
    assert definitions["next_action"].classes == labels.next_action
    assert definitions["contact_event"].classes == labels.next_contact
    assert definitions["contact_event"].source_fields == ("full_body_mocap/contacts",)
    assert "in most of the known frames" in definitions["contact_event"].validity_rule


def test_a_contact_that_no_train_sample_tells_has_neither_head_nor_definition(policy_exported):
    """Such a head would answer whatever it was made with."""
    train = policy_exported.train()
    untold = [
        row.model_copy(
            update={
                "target": row.target.model_copy(
                    update={"labels": row.target.labels.model_copy(update={"next_in_contact": None})}
                )
            }
        )
        for row in train.rows
    ]
    fitted = PolicyFitted.fit_samples(replace(train, rows=tuple(untold)), policy_exported.settings)
    assert "next_contact" not in head_labels(fitted).sizes()
    assert "contact_event" not in fitted.action_space.kinds
    data = policy_data(replace(train, rows=tuple(untold)), fitted, policy_exported.settings)
    assert set(data.next_contact.tolist()) == {-1}


def test_tokens_range_over_what_train_episodes_do_and_no_other(policy_exported):
    fitted = policy_exported.fitted()
    tokens = fitted.action_space.beside[-1]
    assert fitted.token_bins.low == tuple(each.low for each in tokens.dimensions)
    still = policy_exported.train()
    now = np.array([row.sample.inputs["hands"]["now"] for row in still.rows], dtype=np.float32)
    still.arrays["future_hands"][:] = now[:, None]
    bins = PolicyFitted.fit_samples(still, policy_exported.settings).token_bins
    assert np.allclose((bins.low[0], bins.high[0]), 0, atol=1e-6)  # no hand moves
    assert fitted.token_bins.low[0] < -0.01 < 0.01 < fitted.token_bins.high[0]


def test_what_is_not_known_of_a_hand_counts_in_no_statistic_of_states(policy_exported):
    seen = Inputs.model_validate(policy_exported.made[0].sample.inputs)
    hands = seen.hands.model_copy(update={"valid": (True, False), "before_valid": (True, True)})
    appeared = hands.model_copy(update={"valid": (True, True), "before_valid": (False, True)})
    both = [seen.model_copy(update={"hands": each}) for each in (hands, appeared)]
    first, second = (dict(zip(STATE_NAMES, row, strict=True)) for row in known_states(both).tolist())
    assert (first["left_x"], first["left_velocity_z"]) == (True, True)
    assert (first["right_x"], first["right_velocity_x"], first["right_valid"]) == (False, False, True)
    assert (second["left_x"], second["left_velocity_x"], second["left_velocity_z"]) == (True, False, False)
    assert (second["right_aperture"], second["right_velocity_x"]) == (True, True)


def test_learning_data_is_in_physical_units_and_marks_what_nobody_annotated(policy_exported):
    train, fitted = policy_exported.train(), policy_exported.fitted()
    data = policy_data(train, fitted, policy_exported.settings)
    assert data.actions.shape == (len(train.rows), 16, 32)
    unlabelled = [row.target.labels.next_action is None for row in train.rows]
    assert (data.next_action == -1).tolist() == unlabelled
    names = sorted(fitted.action)
    first = next(place for place, row in enumerate(train.rows) if row.target.labels.action)
    assert names[data.action[first]] == train.rows[first].target.labels.action
    image = data.images([0])[0]
    assert image.shape == (32, 32, 3)
    assert image.std() > 0


# The gate's half.


def edited(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        change(document)
        write_document(folder / name, document)

    return damage


def remapped(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        maps = load_maps(folder / MAPS_NAME, Maps)
        save_maps(folder / MAPS_NAME, maps.model_copy(update=change(maps.model_dump())))

    return damage


def scaled(values: list[float], by: float) -> list[float]:
    return [by * value for value in values]


def _swap_hands(stats: dict[str, Any]) -> None:
    half = len(stats["actions"]["mean"]) // 2
    for name, values in stats["actions"].items():
        stats["actions"][name] = values[half:] + values[:half]


FAULTS = {
    "no statistics": (lambda folder: (folder / STATS_NAME).unlink(), "file_is_readable"),
    "no action space": (lambda folder: (folder / ACTION_SPACE_NAME).unlink(), "file_is_readable"),
    "maps cut short": (
        lambda folder: (folder / MAPS_NAME).write_bytes((folder / MAPS_NAME).read_bytes()[:50]),
        "file_is_readable",
    ),
    "fitted on other labels": (
        edited("fitted.json", lambda each: each["action"].update({"Fly kite": 1})),
        "fitted_again_agrees",
    ),
    "a digest of another space": (
        edited("fitted.json", lambda each: each.update(action_space_digest="0" * 64)),
        "action_space_digest_is_its_own",
    ),
    "another space's name": (
        edited(ACTION_SPACE_NAME, lambda each: each.update(space="ee20")),
        "action_space_is_that_of_the_contract",
    ),
    "another kind of target": (
        edited(ACTION_SPACE_NAME, lambda each: each.update(kind="robot_action_token")),
        "action_space_kind",
    ),
    "a dimension short": (
        edited(ACTION_SPACE_NAME, lambda each: each["dimensions"].pop()),
        "action_space_width",
    ),
    "half the horizon": (
        edited(ACTION_SPACE_NAME, lambda each: each.update(horizon=8)),
        "action_space_horizon",
    ),
    "bounds in millimetres": (
        edited(ACTION_SPACE_NAME, lambda each: each["dimensions"][0].update(high=100.0)),
        "action_space_fitted_again",
    ),
    "a class fewer in the definition of the next action": (
        edited(ACTION_SPACE_NAME, lambda each: each["beside"][1]["classes"].pop()),
        "action_space_fitted_again",
    ),
    "wider bins of the tokens": (
        edited(ACTION_SPACE_NAME, lambda each: each["beside"][-1]["dimensions"][0].update(high=9.0)),
        "action_space_fitted_again",
    ),
    "no definition of the tokens": (
        edited(ACTION_SPACE_NAME, lambda each: each["beside"].pop()),
        "action_space_fitted_again",
    ),
    "a test episode among those that were normalised on": (
        edited(STATS_NAME, lambda each: each["episode_ids"].append("a-held-out-episode")),
        "normalised_on_train_episodes_only",
    ),
    "an episode left out": (
        edited(STATS_NAME, lambda each: each["episode_ids"].pop()),
        "normalising_episodes",
    ),
    "another digest of the same episodes": (
        edited(STATS_NAME, lambda each: each.update(episodes_digest="0" * 64)),
        "normalising_episodes_digest",
    ),
    "statistics of another space": (
        edited(STATS_NAME, lambda each: each.update(action_space="joints126")),
        "normalised_action_space",
    ),
    "fewer samples counted": (
        edited(STATS_NAME, lambda each: each["actions"].update(count=[1] * 32)),
        "actions_counted_again",
    ),
    "a mean shifted by 2 mm": (
        edited(STATS_NAME, lambda each: each["actions"]["mean"].__setitem__(0, 0.002)),
        "actions_statistics_again",
    ),
    "millimetres for metres": (
        edited(
            STATS_NAME,
            lambda each: each["actions"].update(std=scaled(each["actions"]["std"], 1000.0)),
        ),
        "actions_statistics_again",
    ),
    "hands swapped": (edited(STATS_NAME, _swap_hands), "actions_statistics_again"),
    "the state's mean of another split": (
        edited(STATS_NAME, lambda each: each["state"]["mean"].__setitem__(0, 0.5)),
        "state_statistics_again",
    ),
    "a deviation of zero": (
        edited(STATS_NAME, lambda each: each["state"]["std"].__setitem__(3, 0.0)),
        "state_deviation_above_zero",
    ),
    "maps of fewer hands": (remapped(lambda _: {"num_hands": (1, 1)}), "maps_fitted_again"),
    "synergies that are not orthonormal": (
        remapped(lambda maps: {"synergies": tuple(tuple(scaled(row, 2.0)) for row in maps["synergies"])}),
        "maps_fitted_again",
    ),
    "synergies in another order": (
        remapped(lambda maps: {"synergies": maps["synergies"][::-1]}),
        "maps_fitted_again",
    ),
    "another mean hand": (
        remapped(lambda maps: {"mean": tuple(scaled(maps["mean"], 1.01))}),
        "maps_fitted_again",
    ),
    "another template": (
        remapped(lambda maps: {"template": maps["template"][::-1]}),
        "maps_fitted_again",
    ),
    "apertures wider than those of train": (
        remapped(lambda _: {"apertures_m": (0.0, 9.0)}),
        "maps_fitted_again",
    ),
    "a looser bound of the aperture": (
        remapped(lambda maps: {"aperture_bound_m": 2 * maps["aperture_bound_m"]}),
        "maps_fitted_again",
    ),
    "synergies that explain more": (
        remapped(lambda maps: {"explained": tuple(scaled(maps["explained"], 1.01))}),
        "maps_fitted_again",
    ),
    "NaN in the mean hand": (
        remapped(lambda maps: {"mean": (float("nan"), *maps["mean"][1:])}),
        "maps_fitted_again",
    ),
    "a better round trip than was measured": (
        remapped(lambda maps: {"round_trip": {**load_round_trip(maps), "synergy32": none_lost(maps)}}),
        "maps_fitted_again",
    ),
}


def load_round_trip(maps: dict[str, Any]) -> dict[str, Any]:
    return {name: Bound.model_validate(each) for name, each in maps["round_trip"].items()}


def none_lost(maps: dict[str, Any]) -> Any:
    return load_round_trip(maps)["joints126"]


def refused(folder: Path, exported) -> list[str]:
    fitted = exported.fitted()
    return [check.rule for check in broken(data_checks(folder, fitted, exported.settings))]


def test_a_checkpoint_that_learned_of_a_held_out_episode_is_refused_even_when_it_names_train_alone(
    policy_exported, tmp_path
):
    """Fitted for real on train and one test episode; then the names of train are written over."""
    made = policy_exported.of(Split.TEST)
    extra = [
        replace(each, sample=each.sample.model_copy(update={"split": Split.TRAIN}))
        for each in made
        if each.sample.episode_id == made[0].sample.episode_id
    ]
    leaked = PolicyFitted.fit_samples(
        policy_exported.train(lambda train: [*train, *extra]), policy_exported.settings
    )
    leaked.save(tmp_path)
    write_document(tmp_path / STATS_NAME, leaked.normalization)
    write_document(tmp_path / "fitted.json", leaked)
    assert "normalised_on_train_episodes_only" in refused(tmp_path, policy_exported)
    honest = policy_exported.fitted()
    named = {"episode_ids": honest.episode_ids, "episodes_digest": honest.normalization.episodes_digest}
    write_document(tmp_path / STATS_NAME, leaked.normalization.model_copy(update=named))
    found = refused(tmp_path, policy_exported)
    assert "normalised_on_train_episodes_only" not in found
    assert {"actions_statistics_again", "state_statistics_again", "maps_fitted_again"} <= {*found}


def test_a_sound_checkpoint_passes_in_any_order_of_episodes(policy_folder, policy_exported):
    backwards = policy_exported.train(lambda made: made[::-1])
    fitted = PolicyFitted.fit_samples(backwards, policy_exported.settings)
    assert broken(data_checks(policy_folder, fitted, policy_exported.settings)) == []


def moved(content: Any, by: float) -> Any:
    """Every number of a document that is no whole one, a little off."""
    if isinstance(content, dict):
        return {key: moved(each, by) for key, each in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(moved(each, by) for each in content)
    return content * (1 + by) + by if isinstance(content, float) else content


@pytest.mark.parametrize(
    ("by", "rules"),
    [
        (1e-13, set()),
        (1e-6, {"fitted_again_agrees", "action_space_fitted_again", "maps_fitted_again"}),
    ],
)
def test_last_bits_of_another_processor_pass_and_nothing_larger_does(
    policy_folder, policy_exported, by, rules
):
    for name in ("fitted.json", ACTION_SPACE_NAME):
        document = moved(json.loads((policy_folder / name).read_text()), by)
        if name == "fitted.json":
            space = CheckpointSpace.model_validate(document["action_space"])
            document["action_space_digest"] = digest_of(space)
        write_document(policy_folder / name, document)
    maps = load_maps(policy_folder / MAPS_NAME, Maps)
    save_maps(policy_folder / MAPS_NAME, Maps.model_validate(moved(maps.model_dump(), by)))
    assert {*refused(policy_folder, policy_exported)} == rules


def test_the_rate_of_chunks_does_not_hang_on_the_clock_of_one_episode(policy_exported):
    def slower(made):
        first = made[0].sample
        inputs = {**first.inputs, "fps": 17.8}
        return [replace(made[0], sample=first.model_copy(update={"inputs": inputs})), *made[1:]]

    fitted = PolicyFitted.fit_samples(policy_exported.train(slower), policy_exported.settings)
    rates = {each.kind: each.fps for each in (fitted.action_space, *fitted.action_space.beside)}
    assert rates["hand_trajectory"] == rates["robot_action_token"] == 20.0
    windows_per_s = rates["action_class"]
    assert windows_per_s == rates["next_action"] == rates["contact_event"]
    inputs = [Inputs.model_validate(row.sample.inputs) for row in policy_exported.train().rows]
    lengths = {len(source.window) for each in inputs for source in each.provenance}
    assert windows_per_s == 20.0 / max(lengths)  # those of motion are 16 frames


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_refused_for_its_own_reason(policy_folder, policy_exported, name):
    damage, rule = FAULTS[name]
    damage(policy_folder)
    assert rule in refused(policy_folder, policy_exported)


def test_the_number_of_the_maps_that_is_another_is_named(policy_folder, policy_exported):
    remapped(lambda _: {"aperture_bound_m": 0.5})(policy_folder)
    checks = data_checks(policy_folder, policy_exported.fitted(), policy_exported.settings)
    assert [(check.rule, check.found) for check in broken(checks)] == [
        ("maps_fitted_again", "other aperture_bound_m")
    ]


def test_every_rule_of_the_data_refuses_a_fault(policy_folder, policy_exported):
    checks = data_checks(policy_folder, policy_exported.fitted(), policy_exported.settings)
    asked = {check.rule for check in checks}
    mirrored = {"state_counted_again", "actions_deviation_above_zero"}  # one rule, asked of two tables
    assert asked - mirrored == {rule for _, rule in FAULTS.values()} - mirrored
