# Everything runs from a fresh machine that has Python >= 3.11 and make: the first target to run makes .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
PROFILE ?= quick
CHROMIUM ?= chromium
ARGS ?=

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "make %-14s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "this needs Python 3.11 or newer, not %s: set PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --python $(RUN) --require-hashes --requirement requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(RUN) --no-deps --editable .
	@touch $@

install: $(INSTALLED)  ## make .venv and install everything into it

reproduce: $(INSTALLED)  ## run the notebooks of PROFILE (default quick: digits on a CPU), compare with reports/
	$(RUN) -m dqas_lib.reproduce --profile $(PROFILE) $(ARGS)

publish: $(INSTALLED)  ## make your own results of PROFILE the published ones, in reports/
	$(RUN) -m dqas_lib.reproduce --profile $(PROFILE) --publish $(ARGS)

lab: $(INSTALLED)  ## open JupyterLab on notebook 00
	$(VENV)/bin/jupyter lab --notebook-dir=. notebooks/00_start_here.ipynb

test: $(INSTALLED)  ## run the tests, some minutes on two cores
	$(RUN) -m pytest -n 2 --dist loadfile $(ARGS)

test-browser: $(INSTALLED)  ## drive the explorers in chromium; as root on Debian it installs that too
	@command -v $(CHROMIUM) >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo "this needs Debian's chromium: run 'apt-get install chromium' as root, or set CHROMIUM=/path/to/chromium" >&2; exit 1; fi
	CHROMIUM=$(CHROMIUM) $(RUN) -m pytest tests/browser -m browser -s $(ARGS)

explorers: $(INSTALLED)  ## write the explorers of the digits as pages of their own, into reports/explorers/
	$(RUN) -m dqas_lib.explorers.pages

bench: $(INSTALLED)  ## measure speed on this CPU, some minutes on two cores, into reports/benchmarks.md
	-$(VENV)/bin/uv pip install --quiet --python $(RUN) apricot-select submodlib-py
	$(RUN) -m pytest -s tests/benchmarks/bench_cpu.py $(ARGS)

bench-large: $(INSTALLED)  ## the same for 100,000 photographs and 1.28 million images, made here: 20 minutes, 24 GB of disk
	$(RUN) tests/benchmarks/bench_large.py $(ARGS)

bench-gpu: $(INSTALLED)  ## the same on a CUDA device
	$(RUN) tests/benchmarks/bench_gpu.py $(ARGS)

gpu-kit: $(INSTALLED)  ## pack what a machine with a card and no network needs, into build/gpu-kit
	$(RUN) tests/benchmarks/gpu_kit.py $(ARGS)

lint: $(INSTALLED)  ## ruff over library, tests and notebooks, mypy over the library
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

lock: $(INSTALLED)  ## resolve pyproject.toml anew into requirements.lock: exact versions with hashes, for every system
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --extra notebooks --extra test --extra browser --output-file requirements.lock pyproject.toml

clean:  ## remove .venv and cached results; downloads and prepared data sets stay
	rm -rf $(VENV) data/cache .pytest_cache .ruff_cache

.PHONY: help install reproduce publish lab test test-browser explorers bench bench-large bench-gpu gpu-kit lint lock clean
