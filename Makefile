# Every target does its own set-up: a fresh machine needs Python >= 3.11, make and the package registries.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RAY_READY := $(VENV)-ray/.ready
CUDA_READY := $(VENV)-cuda/.ready
LOWEST_READY := $(VENV)-lowest/.ready
# The least torch that pyproject.toml promises: TORCH=2.11.0 takes another one.
TORCH ?= 2.6.0
TORCH_VENV := $(VENV)-torch-$(TORCH)
TORCH_READY := $(TORCH_VENV)/.ready
PORT ?= 8080
# Every library that the service is built on, at work.
LOWEST_TESTS := tests/cli tests/client tests/contract tests/store tests/solvers/test_golden.py tests/planning/test_plan.py \
	$(addprefix tests/api/test_,jobs.py oidc.py openapi.py operations.py plans.py security.py)

.PHONY: help demo test test-cluster test-cuda test-lowest test-torch check format serve bench gpu openapi clean
help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable ".[worker,postgresql,parquet,oidc,telemetry]"
	@touch $@

# Ray brings sixty packages of its own: the service and its workers need none of them.
$(RAY_READY):
	$(PYTHON) -m venv $(VENV)-ray
	$(VENV)-ray/bin/python -m pip install --quiet "ray[default]==2.60.0"
	@touch $@

# torch's CUDA build, of which there is one for Python 3.11 to 3.13: 5.5 GB with what it brings.
$(CUDA_READY):
	$(PYTHON) -m venv $(VENV)-cuda
	$(VENV)-cuda/bin/python -m pip install --quiet "torch==2.14.1" numpy numba pytest hypothesis
	@touch $@

# The least versions that pyproject.toml promises, on the least Python; without torch, whose builds are too large for it.
$(LOWEST_READY): pyproject.toml tests/lowest_bounds.py $(READY)
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m tests.lowest_bounds > $(VENV)-lowest/bounds.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --requirement $(VENV)-lowest/bounds.txt --editable .
	@touch $@

# sympy and mpmath are of the versions that this torch asks for.
$(TORCH_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	grep -vE "^(torch|triton|sympy|mpmath)==" constraints.txt > $(TORCH_VENV)/constraints.txt
	$(TORCH_VENV)/bin/python -m pip install --quiet --constraint $(TORCH_VENV)/constraints.txt --group test \
		--editable ".[worker,postgresql,parquet,oidc,telemetry]" "torch==$(TORCH)"
	@touch $@

demo: $(READY)   ## train an LSTM in a twentieth of its activation memory and show the proof
	$(BIN)/tightfit-worker demo --output-dir demo-output

test: $(READY)   ## the whole test suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-cluster: $(READY) $(RAY_READY) ## jobs on a real Slurm and a real Ray, on this host; needs root
	RAY_COMMAND=$(CURDIR)/$(VENV)-ray/bin/ray tests/cluster/isolated.sh $(BIN)/python -m pytest tests/cluster

test-cuda: $(CUDA_READY) ## CUDA's paths on torch's CUDA build without a device; Linux, gcc, 6 GB
	$(VENV)-cuda/bin/python -m tests.cuda_stand_in

test-lowest: $(LOWEST_READY) ## the planner at the least versions that pyproject.toml allows; Python 3.11, minutes
	$(VENV)-lowest/bin/python -m pytest --numprocesses 2 --dist loadfile $(LOWEST_TESTS)

test-torch: $(TORCH_READY) ## the executor under the least torch that pyproject.toml allows, or TORCH=2.11.0; 6 GB on Linux
	$(TORCH_VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile tests/executor tests/benchmarks

check: $(READY)  ## linters and the type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(READY)   ## schemathesis over the whole API, all checks, many examples (minutes)
	$(BIN)/python -m tests.api.fuzzing --max-examples 50

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
	rm -rf $(VENV) $(VENV)-ray $(VENV)-cuda $(VENV)-lowest $(VENV)-torch-* demo-output
