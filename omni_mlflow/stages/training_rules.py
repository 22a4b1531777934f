"""Rules of the validator about training and gate: is this checkpoint proven, and by what it learned from?"""

from __future__ import annotations

from collections.abc import Iterable

from omni_mlflow.gates import gate_names
from omni_mlflow.spine.types import Check, Split
from omni_mlflow.stages.checkpoint_checks import MANIFEST
from omni_mlflow.stages.manifests import LEDGER, checkpoint_files
from omni_mlflow.stages.run_under_test import (
    RunUnderTest,
    as_listed,
    by_digest,
    check,
    damage_of,
    held_out,
    learned_episodes,
)

_METADATA = "training_metadata.json"
_PROOFS = {
    "contract": "contract_digest",
    "dataset": "dataset_digest",
    "training_ledger": "training_ledger_digest",
}
"""What a checkpoint's manifest and the training's metadata both tell, and the key they tell it under."""


def required_training_files(run: RunUnderTest) -> Iterable[Check]:
    for name in run.contract.artifact_contract.required_training_files:
        places = (name, f"checkpoint/{name}")
        here = next((each for each in places if run.path("train", each).is_file()), name)
        withheld = next((each for each in places if run.withholds("train", each)), None)
        path = run.path("train", here)
        damage = None if withheld else damage_of(path)
        found = by_digest(run, "train", withheld) if withheld else damage or f"{path.stat().st_size} bytes"
        yield check("required_training_file", name, "present, filled and readable", found, ok=damage is None)


def checkpoint_is_the_one_listed(run: RunUnderTest) -> Iterable[Check]:
    for name, digest in sorted(run.json("train", f"checkpoint/{MANIFEST}")["files"].items()):
        yield as_listed(run, "checkpoint_file_is_the_one_listed", "train", f"checkpoint/{name}", digest)


def checkpoint_lists_every_file(run: RunUnderTest) -> Iterable[Check]:
    """The checkpoint's manifest lists the files that lie beside it, in a store those that were logged."""
    listed = sorted(run.json("train", f"checkpoint/{MANIFEST}")["files"])
    if run.logged is None:
        made = sorted(checkpoint_files(run.path("train", "checkpoint")))
    else:
        prefix = "checkpoint/"
        names = run.logged["train"].outputs if "train" in run.logged else ()
        made = sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
        made = [name for name in made if name != MANIFEST]
    ok = listed == made != []
    yield check("checkpoint_lists_every_file", f"train/checkpoint/{MANIFEST}", made, listed, ok=ok)


def checkpoint_names_its_proofs(run: RunUnderTest) -> Iterable[Check]:
    """Contract, dataset and training ledger that a checkpoint names are those of its training's metadata."""
    manifest, metadata = run.json("train", f"checkpoint/{MANIFEST}"), run.json("train", _METADATA)
    for what, key in _PROOFS.items():
        told = metadata.get(key)
        found = manifest.get(key, "none")
        yield check(f"checkpoint_names_its_{what}", f"train/checkpoint/{MANIFEST}", told or "a digest", found)


def training_is_complete(run: RunUnderTest) -> Iterable[Check]:
    rows = run.rows("train", "progress.jsonl")
    last = rows[-1]["event"] if rows else "nothing"
    yield check("training_is_complete", "train/progress.jsonl", "complete", last)


def training_tells_of_its_steps(run: RunUnderTest) -> Iterable[Check]:
    """The last row of the progress ends at the step that the rows before it reached.

    The training ledger, where it is at hand, ends there too: it has a row for each step.
    """
    *rows, end = run.rows("train", "progress.jsonl")
    found = {"the end": end["step"], "the rows before it": max((row["step"] for row in rows), default=0)}
    if not run.withholds("train", LEDGER):
        found["the ledger"] = len(run.rows("train", LEDGER))
    ok = len({*found.values()}) == 1 and found["the end"] > 0
    told = ", ".join(f"{who} at {step}" for who, step in found.items())
    yield check("training_tells_of_its_steps", "train/progress.jsonl", "one step after 0", told, ok=ok)


def gate_passed(run: RunUnderTest) -> Iterable[Check]:
    gate = run.json("gate", "gate.json")
    refused = [rule["rule"] for rule in gate["rules"] if not rule["ok"]]
    sound = gate["ok"] is True and not refused and bool(gate["rules"])
    yield check("gate_passed", "gate/gate.json", "ok", "ok" if sound else f"refused by {refused}", ok=sound)


def gates_of_the_contract_were_asked(run: RunUnderTest) -> Iterable[Check]:
    """The gates that were asked are those that the contract names."""
    asked = run.json("gate", "gate.json").get("gates")
    wanted = sorted(gate_names(run.contract))
    found = sorted(asked) if asked is not None else "none named, as an earlier omni-mlflow left it"
    yield check("gates_of_the_contract_were_asked", "gate/gate.json", wanted, found)


def trained_on_this_dataset(run: RunUnderTest) -> Iterable[Check]:
    dataset = run.json("export", "dataset_manifest.json")["digest"]
    found = run.json("train", "training_metadata.json")["dataset_digest"]
    yield check("trained_on_this_dataset", "train/training_metadata.json", dataset, found)


def trained_on_this_split(run: RunUnderTest) -> Iterable[Check]:
    """The split that training names is that of the dataset, and so are its train and val episodes."""
    dataset, metadata = run.json("export", "dataset_manifest.json"), run.json("train", _METADATA)
    subject = f"train/{_METADATA}"
    yield check("trained_on_this_split", subject, dataset["split_digest"], metadata["split_digest"])
    for split in (Split.TRAIN, Split.VAL):
        wanted = sorted(dataset["samples_per_episode"][split])
        yield check("training_names_its_episodes", subject, wanted, sorted(metadata[f"{split}_episode_ids"]))


def no_test_episode_in_training(run: RunUnderTest) -> Iterable[Check]:
    """By what training says, and by the ledger of what it really consumed."""
    kept = held_out(run)
    metadata = run.json("train", _METADATA)
    named = {*metadata["train_episode_ids"], *metadata["val_episode_ids"]}
    rule = "no_test_episode_in_training"
    yield check(rule, f"train/{_METADATA}", [], sorted(kept & named))
    wanted = metadata["training_ledger_digest"]
    yield as_listed(run, "ledger_is_the_one_of_the_training", "train", LEDGER, wanted)
    if not run.withholds("train", LEDGER):  # else the gate read it
        yield check(rule, f"train/{LEDGER}", [], sorted(kept & learned_episodes(run)))
