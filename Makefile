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

exam: $(READY) ## what e2e runs as a sample, at full size
	LLMDOCTOR_EXAM=1 $(BIN)/python -m tests.e2e.run tests/e2e/test_audit.py -q

docs: $(READY) ## the generated pages
	$(BIN)/python docs/generate.py

picture: $(READY) ## docs/page.png, the HTML report in a headless Chromium
	$(BIN)/python docs/page.py

dist: $(READY) ## sdist and wheel
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
