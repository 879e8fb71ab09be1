# Two commands on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
# PIP_ARGS goes to every pip install, for example to choose an index with CPU builds of torch.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
DEMO_BUDGET ?= 100steps
DEMO_METHODS ?= dense,quantised,pruning,low_rank,slicing,legendre,recursive,mpo,procrustes,generator_search
# A file of tests stays on one worker, which makes its runs once; in the order of collection the long files come early.
SHARED_OUT := -n 2 --dist loadfile --no-loadscope-reorder
export OMP_WAIT_POLICY ?= PASSIVE

FUZZ_SECONDS ?= 600

.PHONY: demo test test-slow test-gpu lint bench fuzz records report clean help

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(PIP_ARGS) -c constraints.txt torch
	$(BIN)/pip install -q $(PIP_ARGS) -c constraints.txt -e '.[train,dev,ray]'
	touch $(STAMP)

demo: $(STAMP)   ## every method at its smallest under one budget, verified, with the page of the report (minutes)
	rm -rf $(DEMO)
	$(BIN)/harness compare --methods $(DEMO_METHODS) --preset tiny --budget $(DEMO_BUDGET) --seeds 1 --out $(DEMO)/comparison
	$(BIN)/harness verify $(DEMO) --level decode
	$(BIN)/harness report $(DEMO)/comparison records comparisons --out $(DEMO)/report
	@echo "records: $(DEMO)/comparison, page: $(DEMO)/report/index.html"

test: $(STAMP)   ## lint, types and the fast suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -q $(SHARED_OUT) -m 'not slow' $(ARGS)

test-slow: $(STAMP)  ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m slow --timeout=3600 $(ARGS)

test-gpu: $(STAMP)  ## the tests that need a CUDA device, skipped without one
	OMP_NUM_THREADS=1 $(BIN)/pytest -q $(SHARED_OUT) tests/gpu --timeout=900 $(ARGS)

bench: $(STAMP)  ## benchmarks, ratios side by side
	OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/benchmarks --benchmark-enable --benchmark-only $(ARGS)

fuzz: $(STAMP)   ## record folders with broken bytes against verify, for FUZZ_SECONDS (600)
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest -q tests/fuzz $(ARGS)

report: $(STAMP)  ## the page on the published records and comparisons, reports/published/index.html
	OMP_NUM_THREADS=1 $(BIN)/harness report records comparisons --out reports/published
	$(BIN)/python -m reports.readme README.md reports/published/report.json

records: $(STAMP)  ## score every published record again from its file
	$(BIN)/harness verify records --level evaluate

clean:           ## remove the environment and what the demo wrote
	rm -rf $(VENV) $(DEMO) build *.egg-info
