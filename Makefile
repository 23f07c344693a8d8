# The two commands of the README are `make demo` and `make test`; each starts with `make setup`.
.PHONY: help setup demo test test-engines test-leaks test-slow test-kills test-virtualbox-guest lint format bench clean
.DEFAULT_GOAL := help

# Tests start labctl thousands of times: with compiled modules kept it starts a fifth sooner.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
DEMO := labs/dmz

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup:  ## install what is missing: system packages and .venv
	@bash .ci/setup

demo: setup  ## bring a real lab up, prove its isolation, leave it running
	@$(BIN)/labctl up $(DEMO)
	@$(BIN)/labctl verify $(DEMO)
	@echo
	@echo "The lab runs. Next:"
	@echo "  source .venv/bin/activate          # so that 'labctl' is found"
	@echo "  labctl ssh $(DEMO) attacker         # be the attacker"
	@echo "  labctl exec $(DEMO) fw -- nft list ruleset"
	@echo "  labctl status $(DEMO)"
	@echo "  labctl down $(DEMO)                 # stop it; 'labctl up' starts it again"
	@echo "  labctl destroy $(DEMO)              # remove it"

lint: setup  ## formatting, lint, types, layers, dead code, dependencies
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/vulture
	@$(BIN)/deptry labctl

format: setup  ## put the code into the project's form
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

test: setup  ## every check and test, on real virtual machines
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 20 -m "not slow and not virtualbox_guest"

test-engines: setup  ## all about VirtualBox and libvirt through Vagrant, the contract suite on them too
	@$(BIN)/pytest -n 2 --dist loadfile --durations 20 -m "engines and not virtualbox_guest"

test-leaks: setup  ## plant every leak of the catalogue in labs of real guests, and verify the shipped labs LABCTL_CLEAN_RUNS=5 times each
	@LABCTL_CLEAN_RUNS=$${LABCTL_CLEAN_RUNS:-5} $(BIN)/pytest -n 2 --dist loadfile -v tests/leaks tests/e2e/test_shipped_labs.py \
		tests/e2e/test_gallery.py

test-slow: setup  ## what `make test` leaves out because it repeats a thing many times or takes minutes, but leaks and engines
	@$(BIN)/pytest -n 2 --dist loadfile --durations 20 -m "slow and not engines" --ignore tests/leaks

test-kills: setup  ## kill -9 labctl, LABCTL_KILL_ROUNDS=200 times, at moments that LABCTL_KILL_SEED chooses; half an hour
	@LABCTL_KILL_ROUNDS=$${LABCTL_KILL_ROUNDS:-200} $(BIN)/pytest --log-cli-level INFO --timeout 36000 \
		tests/e2e/test_checkpoint_kills.py

test-virtualbox-guest: setup  ## a lab of real guests in a real VirtualBox without hardware virtualisation; a quarter of an hour
	@$(BIN)/pytest --durations 10 -m virtualbox_guest tests/virtualbox

bench: setup  ## measure, as ratios side by side in one run, into tests/bench/results; some twenty minutes
	@$(BIN)/python -m tests.bench

clean:  ## remove what setup made in this folder
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
