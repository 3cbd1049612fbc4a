# Every target sets up what it needs; `make demo` and `make test` work on a fresh machine with Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test check e2e bench exam docs picture dist clean

$(READY): pyproject.toml agent/pyproject.toml constraints.txt hatch_build.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable . --editable ./agent
	touch $@

demo: $(READY) ## a diagnosis of a recorded situation
	@$(BIN)/kubectl-llmdoctor diagnose --from docs/demo.yaml || test $$? = 1

test: $(READY) ## the whole suite but e2e
	$(BIN)/python -m pytest -n auto -q

check: $(READY) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

e2e: $(READY) ## against a real API server, scheduler and kubectl
	$(BIN)/python -m tests.e2e.run

bench: $(READY) ## start-up and speed, as ratios; memory and CPU of the node agent
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.agent

exam: $(READY) ## every measure at full size, with the table of docs/measures.md; SETS=FOLDER has the recorded sets
	$(BIN)/python -m tests.exam --write $(if $(SETS),--sets $(SETS))

docs: $(READY) ## the generated pages, and the site in build/site; a link that leads nowhere is an error
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

picture: $(READY) ## docs/page.png, the HTML report in a headless Chromium
	$(BIN)/python docs/page.py

dist: $(READY) ## sdist, wheel, and the archive for krew with its manifest
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python deploy/krew/archive.py dist

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
