# Every target makes its own virtual environment from python3 and works in a fresh clone.
# Variables: PYTHON and VENV (another interpreter), DATABASES (of `make test`), ARGS (handed to what runs).

PYTHON ?= python3
VENV ?= .venv
DATABASES ?= sqlite postgresql mariadb
ARGS ?=
export DATABASES

BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet
EXAMPLE := DJANGO_SETTINGS_MODULE=example_project.settings $(BIN)/python

.PHONY: help demo serve test nightly soak storm lint types bench docs clean

help:
	@echo "make demo    run the example project's workflows once, in the terminal"
	@echo "make serve   serve the example project on http://127.0.0.1:8000/"
	@echo "make test    run the tests on SQLite, and on PostgreSQL and MariaDB where they answer"
	@echo "make nightly draw 50,000 workflows, and check that their histories replay; start herds of 50,000"
	@echo "make soak    simulate 50,000 seeds of workers that crash, hours; ARGS='0-999 --jobs 2' runs others"
	@echo "make storm   let faults strike workers and servers for ten minutes each; FAULT_SECONDS, FAULT_SEED"
	@echo "make lint    check style and format"
	@echo "make types   check types"
	@echo "make bench   run the benchmarks that have not been run yet, half an hour or more for all; ARGS=--help tells more"
	@echo "make docs    check the links of the documentation"

# What the package itself needs, and no more: the demo starts fast.
$(VENV)/run.stamp: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

# Dependency groups need pip 25.1, newer than the one that Python 3.11 brings.
$(VENV)/dev.stamp: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) --group dev --editable '.[postgres]'
	@touch $@ $(VENV)/run.stamp

# mysqlclient is compiled on the spot, so it may fail where all else works; no stamp then, and the next run tries again.
$(VENV)/mysql.stamp: $(VENV)/dev.stamp
	@if $(PIP) --editable '.[mysql]' >$(VENV)/mysql.log 2>&1; then touch $@; \
	elif [ -n "$$CI" ]; then cat $(VENV)/mysql.log; exit 1; \
	else echo "mysqlclient cannot be built (Debian: apt install libmariadb-dev gcc pkg-config; log: $(VENV)/mysql.log): going on without MariaDB"; fi

$(VENV)/bench.stamp: $(VENV)/dev.stamp
	$(PIP) --group bench
	@touch $@

demo: $(VENV)/run.stamp
	@$(BIN)/python -m example_project.demo $(ARGS)

serve: $(VENV)/run.stamp
	@$(EXAMPLE) -m django migrate --verbosity 0
	@$(EXAMPLE) -m django runserver $(ARGS)

test: $(VENV)/dev.stamp $(if $(filter mariadb,$(DATABASES)),$(VENV)/mysql.stamp)
	@$(BIN)/python -m tests.run_all $(ARGS)

nightly: $(VENV)/dev.stamp $(VENV)/mysql.stamp
	@GENERATED_CASES=50000 $(BIN)/python -m pytest tests/engine/test_generated.py tests/engine/test_channels_generated.py $(ARGS)
	@HERD=50000 $(BIN)/python -m tests.run_all tests/reliability/test_herds.py -o faulthandler_timeout=0

soak: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.simulation $(if $(ARGS),$(ARGS),0-49999 --jobs 2)

storm: $(VENV)/dev.stamp $(VENV)/mysql.stamp
	@FAULT_SECONDS=$${FAULT_SECONDS:-600} FAULT_SEED=$${FAULT_SEED:-$$(date +%s)} \
		$(BIN)/python -m tests.run_all tests/reliability/test_storm.py -o faulthandler_timeout=0 $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy django_workflows example_project

bench: $(VENV)/bench.stamp $(VENV)/mysql.stamp
	@$(BIN)/python -m benchmarks $(ARGS)

docs:
	@$(PYTHON) -m tests.check_links

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
