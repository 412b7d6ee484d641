# One environment, .venv, for everything; versions live in constraints.txt.
PYTHON ?= python3.11
PIP_OPTIONS ?=
BIN := .venv/bin
# Two workers, whole files each: fixtures that train are shared within a file.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile

.PHONY: demo test simulate mutants check faults goldens base images image-cpu image-cuda image-tpu clean

demo: .venv/demo-ready  ## set up, train the quickstart's LoRA, show what it changed
	$(BIN)/python jobspecs/quickstart/demo.py

test: check  ## all tests; on a bare machine it installs what it needs
	$(PYTEST) tests/simulator tests/contract tests/parity tests/faults tests/e2e

simulate: .venv/test-ready  ## a million schedules of the commit log, two at a time; about an hour on two free cores
	PYTHONPATH=tests $(BIN)/python -m simulator

mutants: .venv/test-ready  ## breaks our own code on purpose, one edit at a time: do the tests notice; about half an hour
	PYTHONPATH=tests $(BIN)/python -m mutants

check: .venv/test-ready  ## lint, types, import contracts, unit tests, goldens
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(PYTEST) tests/unit tests/golden

faults: .venv/test-ready  ## the full table of resume and stop combinations, hundreds of random kills; more than an hour
	$(PYTEST) tests/faults tests/e2e -m full_matrix

goldens: .venv/test-ready  ## rewrite the golden files; read the diff
	$(BIN)/pytest tests/golden tests/e2e/test_weather.py tests/e2e/test_weather_publish.py --update-goldens

base: .venv/demo-ready  ## train the quickstart's base model anew; about an hour on two cores
	$(BIN)/python jobspecs/quickstart/train_base.py --out jobspecs/quickstart/base

images: image-cpu image-cuda image-tpu  ## container images, by buildah, podman or docker; images/README.md

image-cpu image-cuda image-tpu:
	$(PYTHON) images/build.py $(@:image-%=%) $(if $(BASE_IMAGE),--base $(BASE_IMAGE)) --pip-options="$(PIP_OPTIONS)"

clean:
	rm -rf .venv demo

.venv/demo-ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt -e '.[torch]'
	touch $@

.venv/test-ready: .venv/demo-ready
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt -e '.[torch,flax,tpu,s3,gcs,hub,data,track,k8s,prodigy,dev]'
	touch $@
