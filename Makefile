# The index of everything that can be run. `make` alone prints it.

PYTHON    ?= python3
PROFILE   ?= quick
MODELS    ?=
DATASET   ?= auto
SEED      ?= 0
RUNS      ?= runs
JOBS      ?= 1
PRECISION ?= float32
ARGS      ?=

# Some experiments have a usual number of seeds of their own.
SEEDS := $(if $(filter file,$(origin SEED)),,--seed "$$SEED")
ASKED := $(origin PYTHON)

# What a variable holds is text: make does not expand it, and recipes read it from the environment ("$$RUNS"), so that no
# shell executes what stands behind a quote, a semicolon or a line break in it.
VARIABLES := PYTHON PROFILE MODELS DATASET SEED RUNS JOBS PRECISION ARGS
$(foreach name,$(VARIABLES),$(eval override $(name) := $$(value $(name))))
export $(VARIABLES)

# A shell expands ~ only at the beginning of a word that is not quoted.
override RUNS := $(subst <start>,,$(subst <start>~/,$(HOME)/,<start>$(RUNS)))

# ARGS is split into words as a shell does it, quotes included, and nothing else.
define SPLIT
import os, shlex, sys
try:
    words = shlex.split(os.environ["ARGS"])
except ValueError as error:
    sys.exit(f"error: ARGS: {error}")
os.execv(sys.executable, [sys.executable, *sys.argv[1:], *words])
endef
export SPLIT

# A file of experiments/ is an experiment and a target of its name.
EXPERIMENTS := $(subst _,-,$(basename $(notdir $(filter-out %/__init__.py,$(wildcard experiments/*.py)))))

BIN   := .venv/bin
WITH_ARGS := $(BIN)/python -c "$$SPLIT"
READY := .venv/.ready
LINT  := .venv/.ready-lint
BOOKS := .venv/.ready-notebooks
# JAX and torch are large, and for these tests only.
OTHER := .venv-backends

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help $(EXPERIMENTS) report notebooks bench test test-slow test-backends chaos lint format clean

help:
	@echo "invariance: do deep networks transfer what they learnt on some classes to others?"
	@echo
	@echo "Experiments: train, measure, print our numbers beside the published ones"
	@$(foreach name,$(EXPERIMENTS),printf '  make %-23s %s\n' '$(name)' \
	    "$$(sed -n '1s/^"""//p;1q' experiments/$(subst -,_,$(name)).py)";)
	@echo
	@echo "  make report                  one page of all runs, ours and the committed ones: tables, claims, figures"
	@echo "  make notebooks               execute the notebooks on the newest runs"
	@echo "  make bench                   speed, as shares of this machine's matrix-product peak"
	@echo "  make test | test-slow        the tests (minutes) | those that train for longer"
	@echo "  make test-backends           layers, routing, losses and optimisers with Keras on JAX and on torch"
	@echo "  make chaos                   runs killed and repeated, files damaged: ARGS='--trials 50 --minutes 30 --seed 0'"
	@echo "  make lint | format           check style and types | mend the style"
	@echo "  make clean                   remove the environment and caches; runs stay"
	@echo
	@echo "Variables: PROFILE=smoke|quick|standard|paper  MODELS=NAME,...|FILE.py:FUNCTION|all"
	@echo "           DATASET=auto|mnist|...|digits|FILE.npz  SEED=$$SEED (or 0-4)  RUNS=$$RUNS  JOBS=$$JOBS"
	@echo "           PRECISION=float32|bfloat16  PYTHON=$$PYTHON  ARGS='further options, see ARGS=--help'"
	@echo "Interrupt and repeat a command: it resumes. Whatever needs the environment, .venv, makes it."

# Updated when the declared or the tested versions change; made anew if it is incomplete or of another Python. The mark is
# written last.
$(READY): setup.cfg pyproject.toml constraints.txt
	@"$$PYTHON" -c 'import os, sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "error: Python 3.11 to 3.13 is needed; %s is %d.%d. Try: make PYTHON=python3.11 ..." % (os.environ["PYTHON"], *v[:2]))'
	@[ -e $@ ] && [ "$$($(BIN)/python -V)" = "$$("$$PYTHON" -V)" ] || "$$PYTHON" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	$(BIN)/python -m pip check
	@touch $@

# Whoever asks for a Python by name must not get another one's results.
ifeq ($(ASKED),command line)
$(READY): | python-asked-for
endif
.PHONY: python-asked-for
python-asked-for:
	@[ ! -e $(READY) ] || [ "$$($(BIN)/python -V)" = "$$("$$PYTHON" -V)" ] || \
	    { printf 'error: .venv has another Python than %s; `make clean` removes it\n' "$$PYTHON" >&2; exit 2; }

$(LINT): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[lint]'
	@touch $@

$(BOOKS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[notebooks]'
	@touch $@

$(EXPERIMENTS): $(READY)
	@$(WITH_ARGS) -m experiments.$(subst -,_,$@) --profile "$$PROFILE" --dataset "$$DATASET" $(SEEDS) \
	    --runs "$$RUNS" --jobs "$$JOBS" --precision "$$PRECISION" $(if $(MODELS),--models "$$MODELS")

# Of the committed results and, if there are any, of the runs.
report: $(READY)
	@mkdir -p -- "$$RUNS"
	@$(WITH_ARGS) -m invariance report --runs "$$RUNS" --runs experiments/results \
	    --html "$$RUNS/report.html" --markdown "$$RUNS/report.md"

notebooks: $(BOOKS)
	@$(WITH_ARGS) -m invariance notebooks --runs "$$RUNS" notebooks/*.ipynb

bench: $(READY)
	@$(WITH_ARGS) -m invariance bench

test: $(BOOKS)
	@$(WITH_ARGS) -m pytest --numprocesses 2

test-slow: $(BOOKS)
	@$(WITH_ARGS) -m pytest --numprocesses 2 -m slow

$(OTHER)/.ready: $(READY)
	"$(PYTHON)" -m venv --clear $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[backends]'
	@touch $@

test-backends: $(OTHER)/.ready
	KERAS_BACKEND=jax $(OTHER)/bin/python -m pytest -m backends $(ARGS) tests/backends
	KERAS_BACKEND=torch $(OTHER)/bin/python -m pytest -m backends $(ARGS) tests/backends

# For maintainers: half an hour of kills and damaged inputs.
chaos: $(READY)
	@$(WITH_ARGS) -m tests.chaos

lint: $(LINT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(LINT)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv $(OTHER) .pytest_cache .ruff_cache .mypy_cache build *.egg-info
	find invariance experiments tests -name __pycache__ -type d -exec rm -rf {} +
