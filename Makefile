# Every target does its own set-up: a fresh machine needs Python >= 3.11, make and the package registries.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 8080

.PHONY: help demo test check format serve bench gpu openapi clean
help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable ".[worker,postgresql,parquet,oidc,telemetry]"
	@touch $@

demo: $(READY)   ## train an LSTM in a twentieth of its activation memory and show the proof
	$(BIN)/tightfit-worker demo --output-dir demo-output

test: $(READY)   ## the whole test suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(READY)  ## linters and the type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY) ## rewrite the sources the way `check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

serve: $(READY)  ## start the planning service on 127.0.0.1:$(PORT)
	$(BIN)/tightfit serve --port $(PORT)

bench: $(READY)  ## ratios against the peers and our own baselines
	$(BIN)/python -m benchmarks

gpu:             ## tests and benchmarks that need a CUDA device; uses the Python that is active
	$(PYTHON) -m benchmarks.gpu

openapi: $(READY) ## write openapi/openapi.json from the code
	$(BIN)/tightfit openapi --output openapi/openapi.json

clean:           ## remove the environment and what the demo wrote
	rm -rf $(VENV) demo-output
