"""A contract holds names and numbers; what it says wrong is an error that names the nearest match."""

import subprocess
import sys

import pytest
import yaml

from omni_mlflow.contract import ContractError, SplitCounts
from omni_mlflow.contract.file import load_contract, parse_changes, parse_contract
from tests.conftest import PROJECT

CONTRACTS = sorted((PROJECT / "contracts").glob("*.yaml"))


@pytest.fixture
def document():
    return yaml.safe_load((PROJECT / "contracts" / "qwen3_omni_lora.yaml").read_text())


@pytest.fixture
def write(tmp_path):
    def write(document):
        path = tmp_path / f"{document['id']}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.stem)
def test_a_contract_is_named_as_its_id(path):
    assert load_contract(path).id == path.stem


@pytest.mark.parametrize("name", ["qwen3_omni_lora", "policy_vla_branch", "cosmos_world_model"])
def test_the_specified_backbones_have_the_pilot_split(name):
    contract = load_contract(PROJECT / "contracts" / f"{name}.yaml")
    assert str(contract.split_policy.default_counts) == "96/16/16"


def test_a_misspelt_key_names_the_nearest_one(document, write):
    document["split_policy"]["sede"] = document["split_policy"].pop("seed")
    with pytest.raises(ContractError, match=r"unknown key 'split_policy.sede'; did you mean 'seed'\?"):
        load_contract(write(document))


def test_a_setting_that_does_not_exist_cannot_be_changed(document, write):
    with pytest.raises(ContractError, match=r"unknown setting 'settings.lora.rnk'; did you mean 'rank'\?"):
        load_contract(write(document), changes=parse_changes("lora.rnk=8"))


def test_changes_are_read_as_numbers():
    assert parse_changes("training.learning_rate=1e-4,lora.rank=8,base.model=tiny") == {
        "settings.training.learning_rate": 1e-4,
        "settings.lora.rank": 8,
        "settings.base.model": "tiny",
    }


def test_a_change_without_a_value_is_refused():
    with pytest.raises(ContractError, match=r"'lora\.rank' is not KEY=VALUE"):
        parse_changes("lora.rank")


def test_a_profile_changes_only_what_it_names(document, write):
    path = write(document)
    plain, demo = load_contract(path), load_contract(path, profile="demo")
    assert str(demo.split_policy.default_counts) == "14/2/8"
    assert demo.artifact_contract == plain.artifact_contract


def test_an_unknown_profile_is_refused(document, write):
    with pytest.raises(ContractError, match=r"unknown profile 'dmeo'; did you mean 'demo'\?"):
        load_contract(write(document), profile="dmeo")


@pytest.mark.parametrize(
    ("section", "key", "lost"),
    [
        ("artifact_contract", "required_eval_files", "metrics.json"),
        ("artifact_contract", "required_eval_files", "RUN_REPORT.md"),
        ("artifact_contract", "required_training_files", "progress.jsonl"),
        ("artifact_contract", "public_package_forbidden", "model_weights"),
    ],
)
def test_the_minimum_evidence_cannot_be_left_out(document, write, section, key, lost):
    document[section][key].remove(lost)
    with pytest.raises(ContractError, match=lost):
        load_contract(write(document))


def test_a_predictions_file_is_part_of_the_minimum(document, write):
    document["artifact_contract"]["required_eval_files"].remove("predictions.jsonl")
    with pytest.raises(ContractError, match="JSONL prediction file"):
        load_contract(write(document))


def test_validating_contracts_loads_no_library_of_models_media_or_tables():
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import omni_mlflow.__main__\n"
        "from omni_mlflow.contract_validation import validate_contracts\n"
        "validate_contracts(Path('contracts'), only=None, bind_names=True)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    slow = {
        "torch",
        "transformers",
        "mlflow",
        "great_expectations",
        "av",
        "h5py",
        "matplotlib",
        "pandas",
        "scipy",
    }
    assert not slow & set(done.stdout.split())


def test_sizes_are_three_whole_numbers():
    assert SplitCounts.parse("14/2/8") == SplitCounts(train=14, val=2, test=8)
    assert SplitCounts.parse("1/0/1") == SplitCounts(train=1, val=0, test=1)


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("14/2", "not three whole numbers"),
        ("-1/2/3", "not three whole numbers"),
        ("a/b/c", "not three whole numbers"),
        ("1e9/1/1", "not three whole numbers"),
        ("²/1/1", "not three whole numbers"),
        ("0/0/0", "no session for train and test; give at least one"),
        ("43/0/0", "no session for test; give at least one"),
        ("0/0/1", "no session for train; give at least one"),
    ],
)
def test_sizes_that_no_split_can_have_are_refused_in_one_sentence_of_our_own(text, trouble):
    with pytest.raises(ContractError, match=trouble) as refused:
        SplitCounts.parse(text)
    assert "96/16/16" in str(refused.value)
    assert "pydantic" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("size", "trouble"),
    [(0, "0 is not a whole number from 1 to"), ("a", "'a' is not a whole number from 1 to")],
)
def test_sizes_in_a_contract_are_refused_as_clearly(document, size, trouble):
    document["split_policy"]["default_counts"]["test"] = size
    with pytest.raises(ContractError, match=f"split_policy.default_counts.test: {trouble}"):
        parse_contract(document, where="mine.yaml")
