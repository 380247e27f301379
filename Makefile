PYTHON ?= python3
BIN := .venv/bin
# Three workers on two cores, since children and disks let each of them wait; how tests are shared between them:
# tests/schedule.py.
# Bytecode is written, whatever the environment says: without it each worker compiles all tests, and each process of
# a test all modules.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --durations 25
PIP := python -m pip install --quiet --disable-pip-version-check
HASHED := --require-hashes --no-deps --only-binary :all:
# Other builds of PyTorch, such as https://download.pytorch.org/whl/cpu (a tenth of the size), have the locked versions and
# other hashes, and bring other libraries: they are left out of the locks, and come from their index.
WITHOUT_TORCH := awk '/^[a-z]/ {left = /^(torch|torchaudio|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/} !left'
TORCH_PINS := sed -nE 's/^(torch(audio|vision)?==[^ ;]+).*/\1/p'
LOCKS := $(if $(TORCH_INDEX),.venv/)
DOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
.DEFAULT_GOAL := help

.PHONY: help install demo ui serve check types lint docs docs-serve test test-all bench bench-peers browser containers audit sbom format lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## create .venv with all extras and tools, pinned; TORCH_INDEX=URL: PyTorch's builds of that index

# Archives whose sha256 the locks name, and wheels, which run no code when they are installed; one package has none, and
# is built with the setuptools of the lock.
.venv/.installed: pyproject.toml requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
ifdef TORCH_INDEX
	for lock in requirements.txt requirements-dev.txt; do $(WITHOUT_TORCH) $$lock > .venv/$$lock; done
endif
	$(BIN)/$(PIP) $(HASHED) --requirement $(LOCKS)requirements.txt
	$(BIN)/$(PIP) $(HASHED) --no-binary jsonpath-rw --no-build-isolation --use-pep517 --requirement $(LOCKS)requirements-dev.txt
ifdef TORCH_INDEX
	$(BIN)/$(PIP) --only-binary :all: --index-url $(TORCH_INDEX) $$($(TORCH_PINS) requirements.txt)
endif
	$(BIN)/$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: install  ## process real texts, images, sounds and videos, from files to search
	$(BIN)/python -m mm_assets.demo

# In the folder of the instance: Dagster warns of any other dagster.yaml where it starts.
ui: install  ## start the Dagster UI and daemon on 127.0.0.1:3000, with the instance of mm
	eval "$$($(BIN)/mm env)" && export MM_EXPLORER_URL=$${MM_EXPLORER_URL:-http://127.0.0.1:8808} PYTHONWARNINGS='ignore:Function `dev_command` is superseded' && cd "$$DAGSTER_HOME" && exec $(CURDIR)/$(BIN)/dagster dev --workspace $(CURDIR)/workspace.yaml --host 127.0.0.1 --port $${PORT:-3000}

serve: install  ## start the service and its explorer on 127.0.0.1:8808, on the store of mm
	MM_DAGSTER_URL=$${MM_DAGSTER_URL:-http://127.0.0.1:3000} exec $(BIN)/mm serve --allow-marks --port $${PORT:-8808}

check: install  ## run lint, format, types and layers, and build the docs
	@$(MAKE) --no-print-directory --jobs 2 --output-sync types lint

types:
	$(BIN)/mypy

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	$(DOCS) build --strict --quiet

docs: install  ## write the site of docs/ to .site, and the JSON Schema of specs
	$(BIN)/python docs/reference_pages/spec.py
	$(DOCS) build --strict

docs-serve: install  ## show the site of docs/ at http://127.0.0.1:8000, and build it again after each change
	$(DOCS) serve

test: install  ## run the tests, without what takes minutes
	$(PYTEST)

test-all: check  ## run everything: kills at every boundary, large data, the UI in Chromium, the image (hours)
	$(PYTEST) -m '' --hypothesis-profile thorough

bench: install  ## measure ratios against limits in the same run (an hour or more); see benchmarks/
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks --page

bench-peers: install .venv-peers/.installed  ## measure the same work by peers from pip, in their own environment
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks --page

.venv-peers/.installed: constraints.txt benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/$(PIP) --constraint constraints.txt --requirement benchmarks/peers/requirements.txt
	@touch $@

browser: install  ## test the UI and the explorer in headless Chromium (Debian: apt-get install chromium); write pictures to .github
	MM_PICTURES=.github/pictures $(BIN)/python -m pytest -m browser tests/browser tests/assets/serving

containers: install  ## build the image and start its roles (Debian: apt-get install buildah bubblewrap debootstrap postgresql)
	$(BIN)/python -m pytest -m containers tests/containers

audit: .venv-audit/.installed  ## look the pinned packages up among the known vulnerabilities (network)
	.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements-dev.txt
	.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements-audit.txt

sbom: .venv-audit/.installed  ## write sbom.cdx.json: the packages of the image, with their hashes, as CycloneDX
	.venv-audit/bin/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --output-reproducible \
		--spec-version 1.6 --validate --output-file sbom.cdx.json

.venv-audit/.installed: requirements-audit.txt
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/$(PIP) $(HASHED) --requirement requirements-audit.txt
	@touch $@

format: install  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header
lock: install  ## write constraints.txt and the hashed locks; keeps versions: UPGRADE=--upgrade or '--upgrade-package NAME'
	$(LOCK) $(UPGRADE) pyproject.toml requirements.in --all-extras --output-file constraints.txt
	$(LOCK) --generate-hashes --constraint constraints.txt pyproject.toml requirements.in --extra all --extra cluster \
		--output-file requirements.txt
	$(LOCK) --generate-hashes --constraint constraints.txt pyproject.toml requirements.in --extra all --extra cluster \
		--extra browser --extra docs --extra dev --output-file requirements-dev.txt
	$(LOCK) --generate-hashes $(UPGRADE) --group audit --output-file requirements-audit.txt

clean:  ## remove the environment and the local store
	rm -rf .venv .venv-audit .venv-peers .mm
