"""What is wrong with a contract is told all at once, each thing by its name, and never as a traceback."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import yaml

from omni_mlflow.backbone_lookup import load_backbone
from omni_mlflow.contract.minimum_evidence import found_at
from omni_mlflow.contract_validation import validate_contracts
from omni_mlflow.registry import files_that_may_leave
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.publish import EVIDENCE_STAGES
from omni_mlflow.workspace import Workspace
from tests.conftest import PROJECT, TRIVIAL
from tests.numeric_job import NUMERIC, write_numeric_contract


def document_of(backbone: str) -> dict:
    return yaml.safe_load((PROJECT / "contracts" / f"{backbone}.yaml").read_text())


@pytest.fixture
def issues(tmp_path):
    """The issues of one document, written as a contract file of its own folder."""

    def issues(document: dict) -> list[str]:
        folder = tmp_path / "contracts"
        folder.mkdir(exist_ok=True)
        (folder / f"{document['id']}.yaml").write_text(yaml.safe_dump(document))
        [report] = validate_contracts(folder, only=None, bind_names=True)
        return report.issues

    return issues


EVIDENCE = [
    ("held_out_episode_count", "primary_metrics", "held_out_episode_count"),
    ("metrics_file", "artifact_contract.required_eval_files", "metrics.json"),
    ("prediction_file", "artifact_contract.required_eval_files", "predictions.jsonl"),
    ("run_report", "artifact_contract.required_eval_files", "RUN_REPORT.md"),
    ("training_metadata", "artifact_contract.required_training_files", "training_metadata.json"),
    ("progress_log", "artifact_contract.required_training_files", "progress.jsonl"),
    ("forbids_raw_video", "artifact_contract.public_package_forbidden", "raw_video"),
    ("forbids_annotation_hdf5", "artifact_contract.public_package_forbidden", "annotation_hdf5"),
    ("forbids_rerun_rrd", "artifact_contract.public_package_forbidden", "rerun_rrd"),
    ("forbids_model_weights", "artifact_contract.public_package_forbidden", "model_weights"),
    ("forbids_checkpoints", "artifact_contract.public_package_forbidden", "checkpoints"),
    ("forbids_archives", "artifact_contract.public_package_forbidden", "archives"),
]


@pytest.mark.parametrize(("rule", "place", "lost"), EVIDENCE, ids=[rule for rule, _, _ in EVIDENCE])
def test_each_missing_evidence_is_an_issue_of_its_own_name(issues, rule, place, lost):
    document = document_of("qwen3_omni_lora")
    found_at(document, place).remove(lost)
    assert [issue.partition(":")[0] for issue in issues(document)] == [rule]


@pytest.mark.parametrize(
    ("rule", "key", "value"),
    [
        ("episode_split", "unit", "window"),
        ("split_defaults", "default_counts", {"train": 96, "test": 16}),
        ("leakage_guard", "leakage_guard", []),
    ],
)
def test_the_division_by_episodes_and_its_guard_are_evidence_too(issues, rule, key, value):
    document = document_of("policy_vla_branch")
    document["split_policy"][key] = value
    assert rule in [issue.partition(":")[0] for issue in issues(document)]


def test_all_issues_of_a_contract_are_listed_at_once_whatever_kind_they_are(issues):
    document = document_of("qwen3_omni_lora")
    document["split_policy"]["sede"] = document["split_policy"].pop("seed")
    document["split_policy"]["leakage_guard"][0] = "session_disjiont"
    document["modalities"]["direct_inputs"][0] = "mosaic_vidio"
    document["primary_metrics"].remove("held_out_episode_count")
    document["artifact_contract"]["checkpoint_gate"] = "lora_safetensor_shape_check"
    document["artifact_contract"]["public_package_allowed"][0]["pattern"] = "evaluate/metric.json"
    document["settings"]["lora"]["rnk"] = 8
    document["entrypoints"]["train"] = "trian"
    found = "\n".join(issues(document))
    for name, meant in [
        ("sede", "seed"),
        ("session_disjiont", "session_disjoint"),
        ("mosaic_vidio", "mosaic_video"),
        ("lora_safetensor_shape_check", "lora_safetensors_shape_check"),
        ("evaluate/metric.json", "evaluate/metrics.json"),
        ("trian", "train"),
    ]:
        assert f"{name}'; did you mean '{meant}'?" in found
    assert "held_out_episode_count: primary_metrics must also list 'held_out_episode_count'" in found
    assert "settings: unknown key 'lora.rnk'; did you mean 'rank'?" in found


@pytest.mark.parametrize("backbone", ["qwen3_omni_lora", "cosmos_world_model"])
def test_a_role_that_does_not_exist_or_is_played_by_another_stage_is_an_issue(issues, backbone):
    document = document_of(backbone)
    document["entrypoints"]["trian"] = document["entrypoints"].pop("train")
    document["entrypoints"]["eval"] = "publish"
    of_all = [
        "unknown role of entrypoints 'trian'; did you mean 'train'?",
        "entrypoints.eval names 'publish'; it is 'evaluate'",
    ]
    of_code = ["entrypoints: no entry point plays the role 'train'; it is 'train'"]
    assert issues(document) == of_all + (of_code if document["status"] == "implemented" else [])


@pytest.mark.parametrize(
    ("category", "told"), [("model_weights", ""), ("metrisc", "did you mean 'metrics'?")]
)
def test_a_file_that_may_leave_is_of_a_known_category_and_of_none_that_is_forbidden(issues, category, told):
    document = document_of("qwen3_omni_lora")
    document["artifact_contract"]["public_package_allowed"][0]["category"] = category
    [issue] = issues(document)
    assert issue.startswith(f"unknown category of public_package_allowed {category!r}; {told}")


@pytest.mark.parametrize(
    ("backbone", "place", "wrong", "meant"),
    [
        ("policy_vla_branch", "modalities.candidate_targets", "hand_trajektory", "hand_trajectory"),
        ("cosmos_world_model", "modalities.conditioning_inputs", "camera_pos", "camera_pose"),
        ("cosmos_world_model", "questions.foretell", "next_acton", "next_action"),
        ("cosmos_world_model", "artifact_contract.public_package_forbidden", "raw_vidio", "raw_video"),
        ("cosmos_world_model", "split_policy.leakage_guard", "motion_disjunct", "motion_disjoint"),
    ],
)
def test_a_misspelt_name_of_a_planned_contract_names_the_nearest(issues, backbone, place, wrong, meant):
    document = document_of(backbone)
    found_at(document, place).append(wrong)
    [issue] = issues(document)
    assert f"{wrong!r}; did you mean {meant!r}?" in issue


def test_a_misspelt_status_or_key_of_a_list_names_the_nearest(issues):
    document = document_of("policy_vla_branch")
    document["status"] = "planed_adapter"
    rule = document["artifact_contract"]["public_package_allowed"][3]
    rule["categry"] = rule.pop("category")
    found = "\n".join(issues(document))
    assert "status: unknown name 'planed_adapter'; did you mean 'planned_adapter'?" in found
    assert "'artifact_contract.public_package_allowed.3.categry'; did you mean 'category'?" in found


@pytest.mark.parametrize("backbone", ["qwen3_omni_lora", "policy_vla_branch"])
@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("guard/episode_manifst.json", "guard/episode_manifest.json"),
        ("gard/leak_graph.json", "guard/leak_graph.json"),
        ("index/window_index_manifest.jsonl", "index/window_index_manifest.json"),
        ("export/dataset_manifests.json", "export/dataset_manifest.json"),
        ("gate/gates.json", "gate/gate.json"),
        ("validate/validations.json", "validate/validation.json"),
        ("evaluate/metric.json", "evaluate/metrics.json"),
        ("train/training_metadata.jsn", "train/training_metadata.json"),
        ("report/report.html", "RUN_REPORT.md"),
        ("*/skiped_*.jsonl", "skipped_"),
    ],
)
def test_a_pattern_that_no_file_of_any_stage_fits_names_the_nearest_file(issues, backbone, wrong, meant):
    document = document_of(backbone)
    document["artifact_contract"]["public_package_allowed"][0]["pattern"] = wrong
    [issue] = issues(document)
    assert issue.startswith(f"unknown file of public_package_allowed {wrong!r}; ")
    assert meant in issue


def test_the_files_that_may_leave_are_those_that_a_finished_job_has_made(finished, monkeypatch):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    backbone = load_backbone("trivial")
    known = files_that_may_leave(backbone.training_files, backbone.eval_files)
    assert len(known) == len({*known}), "none is told twice"
    made: set[str] = set()
    for name in EVIDENCE_STAGES:
        owner = backbone.id if STAGES[name].per_backbone else None
        seal = Workspace(finished.workspace).stage(name, backbone=owner).seal()
        made |= {f"{name}/{file}" for file in seal.outputs}
    large = ("index/episodes/*", "export/sealed/*", "export/samples/*.npy", "train/checkpoint/*")
    assert {file for file in made if not any(fnmatch(file, each) for each in large)} <= {*known}
    assert {f"{name}/{file}" for name in EVIDENCE_STAGES for file in STAGES[name].makes} <= made


def test_an_answer_can_be_no_input(issues):
    document = document_of("cosmos_world_model")
    document["modalities"]["conditioning_inputs"].append("action_class")
    [issue] = issues(document)
    assert "unknown name 'action_class'" in issue


def test_a_planned_contract_says_what_its_code_must_do(issues):
    document = document_of("cosmos_world_model")
    document["extension_requirements"] = []
    assert issues(document) == ["extension_requirements: a planned contract says what its code must do"]


def test_a_planned_contract_needs_no_code_and_an_implemented_one_does(issues):
    document = document_of("cosmos_world_model")
    assert issues(document) == []
    document["status"] = "implemented"
    assert "unknown backbone 'cosmos_world_model'" in issues(document)[0]


def test_a_profile_is_checked_as_it_would_be_used(issues):
    document = document_of("qwen3_omni_lora")
    document["profiles"]["demo"]["settings"]["lora"] = {"rank": 0}
    document["profiles"]["small"] = {"windws": {}}
    found = issues(document)
    assert len(found) == 2
    assert found[0].startswith("profile 'demo': settings: lora.rank:")
    assert found[1] == "profile 'small': a profile changes unknown key 'windws'; did you mean 'windows'?"


def test_what_a_primary_metric_grades_must_be_asked(issues):
    document = document_of("qwen3_omni_lora")
    document["questions"]["describe"].remove("contact")
    assert issues(document) == [
        "primary metric 'contact_accuracy' grades 'contact', which the contract does not ask"
    ]


def test_what_is_asked_must_be_graded(issues):
    document = document_of("qwen3_omni_lora")
    document["questions"]["foretell"].append("next_contact")
    assert issues(document) == [
        "question 'next_contact' is asked and no primary metric grades it; those that do: none"
    ]


def test_what_is_asked_must_be_graded_by_a_primary_metric(issues):
    document = document_of("qwen3_omni_lora")
    document["primary_metrics"].remove("action_macro_f1")
    [issue] = issues(document)
    assert issue.startswith("question 'action' is asked and no primary metric grades it; those that do: ['ac")
    assert "'action_macro_f1'" in issue


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"modalities.candidate_targets": []}, "target 'action_class' is not named, and samples hold it"),
        (
            {"modalities.targets": ["future_video"]},
            "modalities: the target 'future_video' is named, and no sample holds it",
        ),
        (
            {"modalities.targets": ["next_action"]},
            "every sample holds the targets, so ['next_action'] are no candidate_targets as well",
        ),
        ({"modalities.direct_inputs": ["depth"]}, "['depth'] play two roles; an input plays one of direct"),
        ({"windows.scales": [{"frames": 20, "stride": 10, "strid": 5}]}, "strid"),
        ({"windows.swap_fisheye_cam0_cam2": "yes"}, "cam0_cam2: Input should be a valid boolean"),
        ({"local_model_env": "HOME"}, "local_model_env"),
        ({"profiles.none": {}}, "no profile can be called 'none'"),
        (
            {"profiles.other": {"default_model_id": "lerobot/pi05_base"}},
            "a profile cannot change ['default_model_id']",
        ),
        ({"entrypoints": {"launcher": "main"}}, "no entry point plays the role 'gate'; it is 'gate'"),
    ],
)
def test_parts_of_a_contract_that_cannot_all_be_true_are_issues(issues, change, told):
    document = document_of("policy_vla_branch")
    for place, value in change.items():
        *parents, last = place.split(".")
        block = document
        for name in parents:
            block = block[name]
        block[last] = value
    assert told in "; ".join(issues(document))


def test_weights_that_would_leave_as_something_else_are_an_issue(issues):
    document = document_of("qwen3_omni_lora")
    file = "train/checkpoint/adapter_model.safetensors"
    rule = {"category": "model_config", "pattern": file, "max_bytes": 10}
    document["artifact_contract"]["public_package_allowed"].append(rule)
    assert issues(document) == [
        f"public_package_allowed: {file!r} fits {file}, and weights never leave",
    ]


def test_a_default_model_that_no_setting_loads_is_an_issue(issues):
    document = document_of("qwen3_omni_lora")
    del document["settings"]["base"]
    assert any("names weights that no settings.base.model asks for" in each for each in issues(document))


def test_the_default_model_is_the_one_that_the_settings_load(issues):
    document = document_of("qwen3_omni_lora")
    document["default_model_id"] = "Qwen/Qwen2.5-Omni-7B"
    [issue] = issues(document)
    assert issue.startswith("default_model_id 'Qwen/Qwen2.5-Omni-7B' is not settings.base.model")


def bomb() -> str:
    rows = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *rows])


UNREADABLE = {
    "no_yaml": ("id: [", "not YAML"),
    "empty": ("", "the file is empty"),
    "comments": ("# nothing\n", "nothing but comments"),
    "a_list": ("- id: a_list\n", "this is a list"),
    "binary": (b"\x89HDF\r\n\x1a\n\xff", "no UTF-8 text, from byte 0"),
    "zero_bytes": (b"id: a\x00b\n", "a binary file"),
    "doubled_key": ("id: doubled_key\nstatus: planned_adapter\nid: other\n", "key 'id' stands here twice"),
    "alias_bomb": (bomb(), "a contract holds no anchor and no alias"),
    "tagged": ("id: !!python/object/apply:os.getpid []\n", "a contract holds no tag"),
    "deep": ("id: " + "[" * 900, "nested deeper than 20 levels"),
    "bottomless": ("id: " + "[" * 100_000, "maximum nesting depth"),
    "no_date": ("id: 2020-99-99\n", "cannot be read"),
    "large": ("#" * 1_000_001, "larger than 1000000 bytes"),
    "number_key": ("1: x\n", "key 1 is no text"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_no_contract_is_an_issue_and_no_traceback(tmp_path, name):
    content, said = UNREADABLE[name]
    path = tmp_path / f"{name}.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    [report] = validate_contracts(tmp_path, only=None, bind_names=True)
    assert (report.id, report.status) == (name, "unreadable")
    [issue] = report.issues
    assert said in issue


@pytest.mark.parametrize("value", [None, 7, "text", [1, {"a": 2}], {"b": [3]}], ids=str)
def test_a_section_of_any_shape_is_an_issue_and_no_traceback(issues, value):
    for key in document_of("qwen3_omni_lora"):
        document = document_of("qwen3_omni_lora")
        if key in ("id", "profiles", "extension_requirements", "default_model_id"):
            continue
        document[key] = value
        if not isinstance(value, str):
            assert issues(document)


def test_a_contract_of_a_newer_form_is_refused_by_its_version(issues):
    document = document_of("policy_vla_branch")
    document["schema_version"] = 2
    assert issues(document) == ["schema_version: Value error, 2 is newer than this project; it knows 1"]


@pytest.fixture
def numeric(tmp_path, monkeypatch) -> dict:
    """The contract of a backbone that asks no question."""
    monkeypatch.syspath_prepend(str(NUMERIC))
    return yaml.safe_load(write_numeric_contract(tmp_path / "numeric.yaml").read_text())


def test_where_nothing_is_asked_a_count_of_episodes_judges_nothing(issues, numeric):
    assert issues(numeric) == []
    counted = {**numeric, "primary_metrics": ["held_out_episode_count"]}
    assert issues(counted) == [
        "primary_metrics: nothing is judged: no question is asked, and no metric is named beside "
        "'held_out_episode_count'; those that grade no question: ['depth_mae_m', 'depth_overshoot_m']"
    ]
