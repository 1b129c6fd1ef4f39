# All targets run in .venv, which is made when a target first needs it.
#   make demo    install, run the demo on two workers (CPU), score it, print a summary
#   make test    install the test extras, run the whole test suite (under 20 minutes on two cores)
#   make test-slurm  install Slurm (root or sudo), run the tests that need it on a real two-node one
#   make exact   compare every combination with the plain loops, on the demo models (an hour)
#   make stress  interrupt thirty jobs at random moments, resume each until done (half an hour)
#   make stress-slurm  break a job on a real Slurm ten times, compare its rows (four minutes)
#   make lint    ruff, ruff format, mypy, lint-imports
#   make bench   run the benchmarks on both demo models (hours on two cores)
#   make gpu     all that needs an NVIDIA GPU: its tests and the benchmark of the engine (ten minutes)
#   make clean   remove .venv and what building left behind

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo

# The pinned version of torch, and an index with its CPU build if pip's own index has none.
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
# Interprets the kernels in the tests on a CPU.
TRITON := 3.9.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
HAS_GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -c GPU)

# Tests at once: one more than there are cores, since some wait for their processes, and 4 at most.
AT_ONCE := $(shell python3 -c 'import os; print(min((os.cpu_count() or 1) + 1, 4))')

.PHONY: demo test test-slurm stress-slurm exact stress lint bench gpu clean

demo: $(VENV)/.installed
	rm -rf $(RUN)
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node=2 -m pipeline.run conf=demo output=$(RUN)
	$(BIN)/python -m pipeline.score $(RUN)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slurm" -n $(AT_ONCE)

# These tests wait more than they compute.
test-slurm: $(VENV)/.installed-dev
	tests/slurm/install.sh
	$(BIN)/python -m pytest -m slurm -n 3 tests/slurm

# One job, ten breakages, four minutes.
stress-slurm: $(VENV)/.installed-dev
	tests/slurm/install.sh
	$(BIN)/python -m tests.slurm.stress

exact: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m exact -n auto

stress: $(VENV)/.installed-dev
	$(BIN)/python -m tests.end_to_end.stress

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m jobs.bench engine
	$(BIN)/python -m jobs.bench engine --model jobs/demo/model_block
	$(BIN)/python -m jobs.bench frontier
	$(BIN)/python -m jobs.bench frontier --model jobs/demo/model_block --plot jobs/bench/results/frontier_block.png

gpu: $(VENV)/.installed-dev
	PYTHON=$(abspath $(BIN)/python) jobs/bench/on_gpu.sh

# Without an NVIDIA GPU, torch's CPU build is installed first, so that pip does not choose the CUDA
# build for the package.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
ifeq ($(or $(HAS_GPU),0),0)
	$(BIN)/pip install -q "torch==$(TORCH)+cpu" || \
	$(BIN)/pip install -q "torch==$(TORCH)+cpu" --index-url $(TORCH_CPU_INDEX)
	$(BIN)/pip install -q -c constraints.txt -e .
else
	$(BIN)/pip install -q -c constraints.txt -e ".[gpu]"
endif
	touch $@

# The CUDA build of torch brings the Triton that it fits. Without it the tests interpret the kernels.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
ifeq ($(or $(HAS_GPU),0),0)
	$(BIN)/pip install -q --no-deps "triton==$(TRITON)"
endif
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
