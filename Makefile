# Needs python3 (3.11 or newer, with venv) and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
ARGS ?=

.PHONY: study test lint bench certify docs format clean

study: $(INSTALLED)
	$(BIN)/sdekit study $(ARGS)

# Two workers with one thread each: PyTorch would otherwise start a pool of threads in both.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 $(ARGS)

# Every test, then one record for every claim of every stepper, kept with the package.
certify: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "certify or not certify" -n 2 $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/sdekit verify all --certify

# All four run even if one fails, so that one call shows everything.
lint: $(INSTALLED)
	@status=0; \
	for check in "ruff check" "ruff format --check" "mypy" "lint-imports"; do \
		echo "$$check"; $(BIN)/$$check || status=1; \
	done; \
	exit $$status

bench: $(INSTALLED)
	$(BIN)/sdekit bench $(ARGS)

docs: $(INSTALLED)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

format: $(INSTALLED)
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

clean:
	rm -rf build dist docs/_build .benchmarks .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find sdekit tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# pip below 25.1 knows no dependency groups, so the pinned pip comes first.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt --build-constraint constraints.txt --group dev --editable .
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt --group peers
	touch $@
