# `make demo` shows a result, `make test` runs the tests; everything that they need goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest
# Processes of `make test`, one thread of PyTorch each; about 2 GB of memory each.
JOBS ?= 2
# After a crash of a process xdist waits forever for the tests of its scope: end at once instead.
PYTEST := python -m pytest -n $(JOBS) --dist loadscope --max-worker-restart 0
SERVERS := .venv-servers

# Tests of these need torch, which the check of the lowest versions leaves out.
NEED_TORCH := tests/dim/network tests/dim/checkpoint tests/dim/test_checkpoint.py tests/dim/test_network.py

.PHONY: demo test test-servers quick fuzz hostile lint format lowest docs docs-assets clean

demo: .venv/.demo-installed
	$(BIN)/python examples/demo.py

test: .venv/.test-installed
	OMP_NUM_THREADS=1 $(BIN)/$(PYTEST) -rs --durations=25

# Real inference servers, KServe's and MLServer's, in their own environment: packages of theirs exclude ours.
test-servers: .venv/.test-installed $(SERVERS)/.installed
	$(BIN)/python -m pytest -rs tests/servers --servers $(SERVERS)/bin/python

# Without the tests that take more than ten seconds each.
quick: .venv/.test-installed
	OMP_NUM_THREADS=1 $(BIN)/$(PYTEST) -m "not slow"

# Mutated files for every reader, in child processes with limits; docs/security.md describes it.
fuzz: .venv/.test-installed
	PYTHONPATH=tools $(BIN)/python -m fuzz $(FUZZ)

# Hostile requests to dim-matte serve, in a child process with limits; docs/security.md describes it.
hostile: .venv/.test-installed
	PYTHONPATH=tools $(BIN)/python -m hostile $(HOSTILE)

lint: .venv/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_words.py

format: .venv/.test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The lowest versions that pyproject.toml admits: every command starts, and the tests that need no torch pass.
lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python tools/start_commands.py
	$(LOWEST)/bin/$(PYTEST) tests/dim tests/runtime -m "not slow" $(NEED_TORCH:%=--ignore %)

# The documentation site, in site/; a broken link or an unknown name of the API is an error.
docs: .venv/.test-installed
	$(BIN)/python tools/build_docs.py

# Pictures and tables of the documents: make those that are out of date. `--check` only lists them.
docs-assets: .venv/.test-installed
	$(BIN)/python tools/docs_assets.py

clean:
	rm -rf .venv $(LOWEST) $(SERVERS) out site

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip

.venv/.demo-installed: pyproject.toml | .venv/bin/pip
	@echo "installing ONNX Runtime, OpenCV and pymatting into .venv (about 0.6 GB, under a minute)"
	$(BIN)/pip install --quiet --editable ".[cpu,cutout]"
	@touch $@

.venv/.test-installed: pyproject.toml | .venv/bin/pip
	@echo "installing everything, PyTorch included, into .venv (about 7 GB, some minutes)"
	$(BIN)/pip install --quiet --editable ".[cpu,cutout,export,kserve,openvino,ray,serve,serving,tensorrt-rtx,tiff,training,dev,docs]"
	@if command -v npm >/dev/null; then \
		cd examples/web && npm install --silent --ignore-scripts --no-package-lock --no-audit --no-fund \
		|| echo "examples/web: its packages could not be installed; its tests skip"; fi
	@touch $@

# The same ONNX Runtime on both sides, so that alphas are equal to the bit.
$(SERVERS)/.installed: pyproject.toml | .venv/.test-installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(SERVERS)
	$(BIN)/uv pip install --quiet --python $(SERVERS)/bin/python --editable ".[servers]" \
		"onnxruntime==$$($(BIN)/python -c 'import onnxruntime; print(onnxruntime.__version__)')"
	@touch $@

$(LOWEST)/.installed: pyproject.toml | .venv/.test-installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable ".[cpu,cutout,openvino,tiff]" "cuda-core>=1.0" "cuda-bindings>=12.9"
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python pytest pytest-xdist hypothesis
	@touch $@
