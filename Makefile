# Two commands: `make demo` and `make test`. Everything they need goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint format clean

demo: .venv/.demo-installed
	$(BIN)/python examples/demo.py

# Two processes: loaders are forked, and a fork of a process in which OpenVINO has run sometimes crashes.
test: .venv/.test-installed
	$(BIN)/python -m pytest --ignore tests/training
	$(BIN)/python -m pytest tests/training

lint: .venv/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_words.py

format: .venv/.test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv out

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip

.venv/.demo-installed: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --editable ".[cpu,cutout,export]"
	@touch $@

.venv/.test-installed: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --quiet --editable ".[cpu,cutout,export,openvino,ray,serving,tensorrt-rtx,tiff,training,dev]"
	@touch $@
