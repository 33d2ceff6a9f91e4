# The verbs of this project. Each sets up what it needs: a virtual environment in .venv, and, where
# apt can be used, Debian's python3-venv and dataset-fashion-mnist.
PYTHON ?= python3
# For example PIP_FLAGS="--extra-index-url URL" where plain pip would fetch torch with CUDA.
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
APT := DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends
SUDO := $(shell [ "$$(id -u)" = 0 ] || (command -v sudo >/dev/null && sudo -n true 2>/dev/null && echo sudo -n))

.PHONY: help setup dev ffcv demo test test-fast test-machines lint type docs bench clean

help:
	@echo "make demo   Fashion-MNIST from files to an evaluated representation (minutes, 2 cores)"
	@echo "make test   the tests        make lint   ruff        make type   mypy --strict"
	@echo "make test-fast      those that take under a minute together"
	@echo "make test-machines  the same as on other machines: cores, bf16, GPU, locale, user, packages"
	@echo "make docs   the site of docs/ in build/site, its links checked"
	@echo "make ffcv   FFCV itself, to compare with and for its tests (apt packages of 150 MB)"
	@echo "make bench  the loader benchmark (needs COKE_TEST_DATA, see CONTRIBUTING.md)"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "coke needs Python 3.11 or newer; run make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { $(SUDO) apt-get update -q && $(SUDO) $(APT) python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints-cpu.txt torch
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints-cpu.txt -e '.[cu13,tensorboard]'
	@touch $@

# What tests and checks need on top: linters, and the packages of the optional sources and engines.
dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.ready
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints-cpu.txt -e '.[dev]'
	@touch $@

ffcv: $(VENV)/.ffcv

$(VENV)/.ffcv: $(VENV)/.ready
	$(SUDO) apt-get update -q
	$(SUDO) $(APT) g++ pkg-config libopencv-dev libturbojpeg0-dev
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints-cpu.txt -e '.[ffcv]'
	@touch $@

# Debian's package where apt can install it; otherwise `coke demo` downloads the images itself.
demo: setup
	@test -e /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz || \
		{ command -v apt-get >/dev/null && $(SUDO) apt-get update -q >/dev/null && \
		  $(SUDO) $(APT) dataset-fashion-mnist >/dev/null; } || \
		echo "dataset-fashion-mnist cannot be installed with apt here; it will be downloaded"
	$(BIN)/coke demo

IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder

# Two processes: on 2 cores one alone takes half as long again.
test: dev
	$(BIN)/pytest $(IN_TWO)

# Under a minute on 2 cores, in two processes. The tests left out take most of the time.
test-fast: dev
	$(BIN)/pytest -m "not slow" $(IN_TWO)

test-machines: dev
	$(BIN)/python -m tests.machines

lint: dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: dev
	$(BIN)/mypy

# Material is maintained until May 2027, which it says at every build unless told not to.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

# Two scripts that browsers would otherwise fetch from the web: one draws the diagrams, one searches.
$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints-cpu.txt -e '.[docs]'
	@cd $(VENV) && { \
		tar xzOf "$$(npm pack --silent mermaid@11.17.2)" package/dist/mermaid.min.js >mermaid.min.js && \
		tar xzOf "$$(npm pack --silent iframe-worker@1.0.4)" package/shim/index.js >iframe-worker.js; \
		} 2>/dev/null || { rm -f mermaid.min.js iframe-worker.js; \
		echo "npm brings no scripts here: diagrams, and search without a server, need the web"; }
	@rm -f $(VENV)/mermaid-*.tgz $(VENV)/iframe-worker-*.tgz
	@touch $@

bench: setup
	$(BIN)/python benchmarks/loader.py

clean:
	rm -rf $(VENV) demo build dist *.egg-info
