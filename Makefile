# Three commands do everything on a fresh machine with python3 (3.11) and make: `make run`, `make serve` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE := 1
export PYTHONHASHSEED := 0

.PHONY: run serve test suite lint-beside quick-test lint setup lock gpu-lock gpu-lock-check clean help

run: $(STAMP)  ## the main job on the embedded default: thirteen stages, real data, a report in data/report/report.html
	$(BIN)/gr2 run

serve: $(STAMP)  ## the model of the finished run behind HTTP, at http://127.0.0.1:8081 (docs/serving.md)
	$(BIN)/gr2 serve

# One process more than cores: tests of nodes, workers and schedules wait for most of their time.
TEST_PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# Types and style are one process, the suite several: side by side, lint with what the tests leave (they have timeouts). What it finds
# would be lost among theirs, so it also comes last; a log cut to its end still names the tests that failed, so else it is one line.
LINT_LOG := $(VENV)/lint.log

test: $(STAMP)  ## everything CI runs
	@status=0; $(MAKE) --no-print-directory --jobs=2 --keep-going suite lint-beside || status=$$?; cat $(LINT_LOG); exit $$status

# One thread a process: two torch processes with two threads each slow each other tenfold.
suite:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile --no-loadscope-reorder --durations=25

lint-beside:
	@nice $(MAKE) --no-print-directory --jobs=1 lint > $(LINT_LOG) 2>&1 || { cat $(LINT_LOG); exit 1; }
	@echo "style, types and import rules: pass" > $(LINT_LOG)

quick-test: $(STAMP)  ## tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses=auto --dist=loadfile

lint: $(STAMP)  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(STAMP)  ## only the environment

# requirements.lock pins everything; infra/install.py installs it, and the project, with uv (docs/environment.md). For GPU hosts:
# make setup LOCK=requirements-gpu.lock
LOCK ?= requirements.lock
$(STAMP): $(LOCK) pyproject.toml infra/install.py
	$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11) and 'Python 3.11 is needed; name it: make PYTHON=python3.11 ' + 'setup')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python infra/install.py $(LOCK)
	touch $@

lock: $(STAMP)  ## requirements.lock again, from what is installed (docs/environment.md)
	{ head -n 1 requirements.lock; $(BIN)/pip freeze --exclude gr2-pipeline --exclude uv | sed 's/^\(torch==[^+]*\)+.*/\1/' | LC_ALL=C sort --ignore-case; } > $(VENV)/requirements.lock
	mv $(VENV)/requirements.lock requirements.lock

gpu-lock: $(STAMP)  ## requirements-gpu.lock again, from PyPI, for what pyproject.toml and requirements.lock say now
	$(BIN)/python infra/gpu_lock.py

gpu-lock-check: $(STAMP)  ## whether requirements-gpu.lock is still what its packages resolve to (asks PyPI)
	$(BIN)/python infra/gpu_lock.py --check

clean:  ## what stages made; the environment and the DVC cache stay
	rm -rf data/*/ .gr2

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/  /'
