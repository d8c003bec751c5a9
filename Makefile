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
.PHONY: help install compiled dev install-tools broker demo demo-fleet bench bench-publish bench-full profile test test-fast test-world sanitize chaos chaos-fleet pictures docs lint format check lock licences audit release clean

help:           ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

install: system-install compiled  ## .venv with what runs rateway, and RabbitMQ when there is none

PROJECTS := $(wildcard packages/*/pyproject.toml)
# How many tests run at a time: most of them wait for something, but more than there are cores disturb each other.
JOBS    ?= 3

# What is missing of the system is found out first, all of it, and installed by root or said to everybody else.
system-%:
	@VENV=$(VENV) PYTHON="$(PYTHON)" tools/install-system $*

# What runs, and what compiles.
$(VENV)/.installed: requirements/runtime.txt requirements/build.txt $(PROJECTS) tools/install-python
	@PYTHON="$(PYTHON)" tools/install-python $(VENV) run
	@touch $@

# What only developers need, on top.
$(VENV)/.dev: requirements/dev.txt pyproject.toml $(VENV)/.installed
	@PYTHON="$(PYTHON)" tools/install-python $(VENV) dev
	@touch $@

# Only what is older than its source.
compiled: $(VENV)/.installed
	@$(BIN)/python packages/gateway/hatch_build.py

dev: system-dev compiled $(VENV)/.dev  ## install, and what tests and linters need

broker: system-broker

install-tools: system-tools  ## what tests of the page and of deploy/ run: Chromium, promtool, systemd-analyze

demo: system-demo compiled  ## simulated Discord, RabbitMQ, gateway and workers, with faults and an audit (SECONDS=30)
	@$(BIN)/rateway demo --seconds $(SECONDS) $(ARGS)

demo-fleet: system-demo dev  ## three gateways that are one bot, on three RabbitMQ nodes: one is killed, each is upgraded; with an audit
	@$(BIN)/python -m tests.fleet.demo

bench: install $(VENV)/.dev  ## what the gateway costs: a part of every benchmark, within 15 minutes
	@tools/bench

bench-publish: install $(VENV)/.dev  ## what README and docs/performance.md show, measured and written: about an hour
	@tools/bench --publish

bench-full: install $(VENV)/.dev  ## every benchmark, the whole matrix: some hours
	@tools/bench --full

profile: install $(VENV)/.dev  ## a flame graph of the hot path, and a table of µs by step
	@$(BIN)/python -m benchmarks.profile $(ARGS)

test: system-test dev  ## all tests but those of test-world, JOBS at a time; the last line is pytest's
	-@$(BIN)/python -m tests.world --prepare discord.py hikari
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not world" $(ARGS)

test-fast: dev  ## pure parts and fakes: no broker, no browser, no gateway of its own process; under a minute
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m fast $(ARGS)

# What pytest marks `world` needs more than this repository installs: other languages, another broker, an hour.
test-world: install $(VENV)/.dev  ## libraries in five languages, another RabbitMQ, long faults; writes the table in docs/simulator.md
	@tools/install-rabbitmq-4
	@RATEWAY_WORLD_TABLE=1 $(BIN)/python -m pytest -q tests/world $(ARGS)
	@$(BIN)/python -m pytest -q -m world --ignore tests/world $(ARGS) || test $$? -eq 5  # 5: nothing is so marked

sanitize: install $(VENV)/.dev  ## tests of the compiled modules with every access to memory checked (MINUTES=10: so long, with random bytes)
	@MINUTES=$(MINUTES) tools/sanitize $(ARGS)

chaos: install $(VENV)/.dev  ## many faults at random against the whole gateway (N=1000, SEED=... to repeat a run)
	@$(BIN)/python -m tests.chaos --faults $(N) $(if $(SEED),--seed $(SEED)) $(ARGS)

chaos-fleet: install $(VENV)/.dev  ## the same against three gateways that are one bot, and three RabbitMQ nodes (N=300, SEED=...)
	@$(BIN)/python -m tests.fleet --faults $(if $(filter command line,$(origin N)),$(N),300) $(if $(SEED),--seed $(SEED)) $(ARGS)

# Their paths are those that pytest adds for the tests' own modules.
pictures: system-test dev  ## the pictures of the page in docs/images, of a real run with faults (ARGS="--all FOLDER": all sizes)
	@PYTHONPATH=.:packages/simulator:packages/gateway $(BIN)/python -m tests.browser.pictures $(ARGS)

docs: $(VENV)/.dev  ## the documentation as a site in site/, with the client's reference; a broken link fails
	@$(BIN)/python tools/docs

lint: $(VENV)/.dev  ## ruff, mypy, import-linter
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## put the code into the one format
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

check: lint test  ## what CI runs

# Hashes are listed for every wheel of a version, so that one file serves each Python and each machine; no
# address of an index is written down.
UPGRADE ?= --upgrade
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet $(UPGRADE)

# The packages of this workspace need one another: given as folders, they are found there and not in an index.
# The demonstration is among what the two first commands of the README run.
FOLDERS := printf -- '-e %s\n' $(patsubst %/pyproject.toml,./%,$(PROJECTS)) './packages/gateway[demo]' |
OURS    := $(foreach name,rateway rateway-protocol rateway-client rateway-simulator,--no-emit-package $(name))

lock: $(VENV)/.dev  ## pin the newest versions that pyproject.toml allows (UPGRADE= keeps those that still fit)
	$(FOLDERS) $(COMPILE) - --group dev $(OURS) -o requirements/dev.txt
	$(FOLDERS) $(COMPILE) - $(OURS) -c requirements/dev.txt -o requirements/runtime.txt
	$(COMPILE) --group build -c requirements/dev.txt -o requirements/build.txt

licences: $(VENV)/.dev  ## docs/licences.md from what is pinned and installed
	@$(BIN)/python tools/licences

audit: $(VENV)/.dev  ## known vulnerabilities of what is pinned; fails when it cannot be looked up
	@$(BIN)/pip-audit --strict --disable-pip --requirement requirements/runtime.txt

release: install $(VENV)/.dev  ## sdist, wheel and SBOM in dist/, and the demo from the wheel in an empty environment
	@tools/release

clean:          ## remove what was built or cached, .venv included
	rm -rf $(VENV) .world build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
