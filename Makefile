# Everything is installed into .venv at the root; RabbitMQ comes from the system's packages.
# `make help` lists what can be done.

VENV    := .venv
BIN     := $(VENV)/bin
# The Python to build .venv with; when it is not given, the first that is new enough of python3, python3.11, python3.12 …
PYTHON  ?=
# How long the demo runs after the first event, seconds; 0 stays on until Ctrl-C.
SECONDS ?= 30
# Faults of a chaos run, and its seed when one is to be repeated (ARGS="--processes 2" for one lane instead of two).
N       ?= 1000
SEED    ?=
# Further arguments for pytest or the demo: make test ARGS="-k resume -x"
ARGS    ?=
# The paths that linters read, as far as they exist.
CODE    := $(wildcard packages tests examples benchmarks tools/licences conftest.py)

.DEFAULT_GOAL := help
.PHONY: help install compiled install-tools broker demo bench bench-full profile test test-world sanitize chaos pictures lint format check lock licences audit release clean

help:           ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

install: compiled broker  ## .venv with everything pinned, and RabbitMQ when there is none

PROJECTS := $(wildcard packages/*/pyproject.toml)

$(VENV)/.installed: requirements/dev.txt pyproject.toml $(PROJECTS) tools/install-python
	@PYTHON="$(PYTHON)" tools/install-python $(VENV)
	@touch $@

# Only what is older than its source.
compiled: $(VENV)/.installed
	@$(BIN)/python packages/gateway/hatch_build.py

broker:
	@tools/install-rabbitmq

install-tools:  ## what tests of the page and of deploy/ run: Chromium, promtool, systemd-analyze
	@tools/install-tools

demo: install   ## simulated Discord, RabbitMQ, gateway and workers, with faults and an audit (SECONDS=30)
	@$(BIN)/rateway demo --seconds $(SECONDS) $(ARGS)

bench: install  ## what the gateway costs: a part of every benchmark, within 15 minutes
	@tools/bench

bench-full: install  ## every benchmark, the whole matrix: some hours
	@tools/bench --full

profile: install  ## a flame graph of the hot path, and a table of µs by step
	@$(BIN)/python -m benchmarks.profile $(ARGS)

test: install install-tools  ## all tests but those of test-world; the last line is pytest's
	-@$(BIN)/python -m tests.world --prepare discord.py hikari
	@$(BIN)/python -m pytest -q -m "not world" $(ARGS)

# What pytest marks `world` needs more than this repository installs: other languages, another broker, an hour.
test-world: install  ## libraries in five languages, another RabbitMQ, long faults; writes the table in docs/simulator.md
	@tools/install-rabbitmq-4
	@RATEWAY_WORLD_TABLE=1 $(BIN)/python -m pytest -q tests/world $(ARGS)
	@$(BIN)/python -m pytest -q -m world --ignore tests/world $(ARGS) || test $$? -eq 5  # 5: nothing is so marked

sanitize: install  ## tests of the compiled modules with every access to memory checked
	@tools/sanitize $(ARGS)

chaos: install  ## many faults at random against the whole gateway (N=1000, SEED=... to repeat a run)
	@$(BIN)/python -m tests.chaos --faults $(N) $(if $(SEED),--seed $(SEED)) $(ARGS)

pictures: install install-tools  ## the pictures of the page in docs/images, anew
	@RATEWAY_PICTURES=1 $(BIN)/python -m pytest -q tests/browser -k pictures

lint: $(VENV)/.installed  ## ruff, mypy, import-linter
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports

format: $(VENV)/.installed  ## put the code into the one format
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

check: lint test  ## what CI runs

# Hashes are listed for every wheel of a version, so that one file serves each Python and each machine; no
# address of an index is written down.
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet --upgrade

# The packages of this workspace are installed from their folders.
OURS    := $(foreach name,rateway rateway-protocol rateway-client rateway-simulator,--no-emit-package $(name))

lock: $(VENV)/.installed  ## pin the newest versions that pyproject.toml allows
	$(COMPILE) $(PROJECTS) --group dev $(OURS) -o requirements/dev.txt
	$(COMPILE) $(PROJECTS) $(OURS) -c requirements/dev.txt -o requirements/runtime.txt
	$(COMPILE) --group build -c requirements/dev.txt -o requirements/build.txt

licences: $(VENV)/.installed  ## docs/licences.md from what is pinned and installed
	@$(BIN)/python tools/licences

audit: $(VENV)/.installed  ## known vulnerabilities of what is pinned; fails when it cannot be looked up
	@$(BIN)/pip-audit --strict --disable-pip --requirement requirements/runtime.txt

release: install  ## sdist, wheel and SBOM in dist/, and the demo from the wheel in an empty environment
	@tools/release

clean:          ## remove what was built or cached, .venv included
	rm -rf $(VENV) .world build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
