# Every target makes the environment it needs. Nothing outside this folder is written but pip's cache and
# the tiny base model ($XDG_CACHE_HOME/omni-mlflow, by default ~/.cache/omni-mlflow).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

# One thread per process: two spinning threads on two cores are many times slower than one.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo demo-all test test-slow check format bench ui clean-demo

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "omni-mlflow needs Python 3.11: make PYTHON=/path/to/python3.11 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: setup
	$(BIN)/omni-mlflow main --profile demo

demo-all: setup
	$(BIN)/omni-mlflow main --profile demo --backbone qwen3_omni_lora,policy_vla_branch
	$(BIN)/omni-mlflow compare workspace/qwen3_omni_lora workspace/policy_vla_branch

# Two processes; files stay whole, because what a file's tests share (a trained model, a store) is made once.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python benchmarks/tracking_cost.py
	$(BIN)/python -m benchmarks.answer_journal
	$(BIN)/python -m benchmarks.contracts_cold
	$(BIN)/python -m benchmarks.disguised_signals
	$(BIN)/python -m benchmarks.evaluation_scale
	$(BIN)/python -m benchmarks.interval_coverage
	$(BIN)/python -m benchmarks.leak_corpus
	$(BIN)/python -m benchmarks.leak_costs
	$(BIN)/omni-mlflow main --profile demo --backbone qwen3_omni_lora,policy_vla_branch
	$(BIN)/python -m benchmarks.merge_scale
	$(BIN)/python -m benchmarks.policy_learns workspace
	$(BIN)/python -m benchmarks.selection_scale
	$(BIN)/python -m benchmarks.window_index_scale
	$(BIN)/python -m benchmarks.video_pass

ui: setup
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --workers 1 --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}

clean-demo:
	rm -rf workspace mlflow.db mlflow.db.lock mlartifacts mlruns
