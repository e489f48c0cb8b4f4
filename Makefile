# make demo   the main job on built-in data, offline once the packages are installed
# make test   the test suite, two tests at a time; TSBENCH_MIRROR=DIR adds the tests on public data
# make report results/README.md and results/report.html from the records in results/
# make lint   ruff and mypy
# make clean  remove what the other targets made, except .venv

PYTHON ?= python3

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH_INDEX := https://download.pytorch.org/whl/cpu
DEMO := build/demo-results

.PHONY: demo test report lint clean

demo: .venv/stamp-demo
	TSBENCH_HOME=build/demo-home $(BIN)/tsbench run --method ts-memory --backbone flame-small \
		--dataset demo --profile quick --results $(DEMO)

test: .venv/stamp-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

report: .venv/stamp-dev
	$(BIN)/tsbench report --results results --output results/README.md
	$(BIN)/tsbench page --results results --output results/report.html

lint: .venv/stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/stamp-demo: .venv/stamp-torch pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e .
	touch $@

.venv/stamp-dev: .venv/stamp-torch pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@ .venv/stamp-demo

# The CPU build of torch: from the configured package index, else from PyTorch's own index. Where neither has
# one (macOS), the step after this one takes the ordinary build, which is for the CPU there.
.venv/stamp-torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'tsbench needs Python 3.11 or newer: make PYTHON=python3.12'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch==$(TORCH)+cpu 2>/dev/null || \
		$(PIP) --retries 1 --index-url $(TORCH_INDEX) torch==$(TORCH)+cpu 2>/dev/null || true
	touch $@
