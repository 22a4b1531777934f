"""Shards of a policy's evaluation, asked by the real model classes, give the bytes of one pass."""

from __future__ import annotations

import shutil

import pytest

from omni_mlflow.stages.seal_ledger import LEDGER_NAME
from tests.conftest import PROJECT, Place
from tests.workbench import contents

QUICK = "training.steps=3,training.batch_size=4,training.warmup_steps=0,decoding.steps=2"


@pytest.mark.slow
def test_two_shards_merge_into_the_bytes_of_one_pass(finished, tmp_path):
    place = Place(tmp_path, finished.data_root)

    def run(verb, *more):
        contract = str(PROJECT / "contracts/policy_vla_branch.yaml")
        named = ("--backbone", "policy_vla_branch", "--contract", contract, "--profile", "demo")
        words = place.arguments(verb, *named, "--sizes", "3/1/2", "--limit", "4", "--set", QUICK, *more)
        done = place.run_as_typed(*words[3:])
        assert done.returncode == 0, done.stderr

    run("main")
    folder = place.workspace / "policy_vla_branch/evaluate"
    one_pass = contents(folder)
    shutil.rmtree(folder)
    (place.workspace / LEDGER_NAME).unlink()  # as if nobody had looked at the truths yet
    for offset in ("1", "0"):
        run("evaluate", "--sample-offset", offset, "--sample-stride", "2")
    run("merge")
    assert contents(folder) == one_pass
