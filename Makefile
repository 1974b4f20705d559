# make demo    a real language model made light, measured, and asked a question     (BITS=2, PRESET=balanced, MODEL=…)
# make test    the tests
# make dist    wheel and sdist in dist/, the wheel tried in an empty environment
# make lint    ruff and mypy
# make sanitize  the native tests under sanitizers, then the fuzzers, a million inputs (about an hour)
# make clean   everything that the above made
#
# Each needs Python 3.11 or newer (PYTHON=python3.12 chooses one), a C++ compiler, and a package index; they make .venv
# by themselves and again only when something it depends on has changed.

PYTHON ?= python3
VENV   ?= .venv
# Pinned so that everyone measures the same thing; TORCH=torch takes the newest. Where the index offers several builds
# of it, the one for processors is enough (PIP_INDEX_URL or PIP_FIND_LINKS choose where pip looks).
TORCH  ?= torch==2.13.0

# Tests that run side by side: one for each core, and each takes up to 2 GB of memory.
JOBS   ?= auto

MODEL  ?= SmolLM2-135M-Instruct
BITS   ?= 3
PRESET ?= fast
OUT    ?= out/$(notdir $(MODEL))-$(BITS)bit-$(PRESET)
# More flags of 'fw quantize', e.g. FLAGS="--keep-curvature out/curvature".
FLAGS  ?=
ASK    ?= Why is the sky blue? Answer in two sentences.

BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq
SOURCE := $(shell find src native CMakeLists.txt -type f ! -name '*.py[co]' ! -name '*.so' 2>/dev/null)

.PHONY: demo test dist lint sanitize clean
.DELETE_ON_ERROR:

demo: $(VENV)/.package
	@$(BIN)/featherweight quantize $(MODEL) --bits $(BITS) --preset $(PRESET) --out $(OUT) --ask "$(ASK)" $(FLAGS)

test: $(VENV)/.package
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

dist: $(VENV)/.dev
	@rm -rf dist $(VENV)-wheel
	@$(BIN)/python -m build --outdir dist . > $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@echo "installing the wheel into an empty environment"
	@$(PYTHON) -m venv $(VENV)-wheel
	@$(VENV)-wheel/bin/python -m pip --disable-pip-version-check -qq install "$(TORCH)" dist/*.whl
	@cd $(VENV)-wheel && bin/fw doctor
	@rm -rf $(VENV)-wheel
	@ls -l dist

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

sanitize: $(VENV)/.package
	@$(BIN)/python benchmarks/sanitize.py
	@$(BIN)/python benchmarks/fuzz.py

clean:
	rm -rf $(VENV) $(VENV)-wheel build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone: what follows then finds it there and does not choose another build.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "featherweight needs Python 3.11 or newer; try make PYTHON=python3.12"; exit 2; }
	@echo "making $(VENV) with $(TORCH)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --upgrade pip
	@$(PIP) install "$(TORCH)"
	@touch $@

# Installed, not linked: what is tested is what ships, native library included.
$(VENV)/.package: $(VENV)/.torch pyproject.toml $(SOURCE)
	@echo "installing featherweight and what it needs"
	@$(PIP) install ".[test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.package
	@$(PIP) install ruff mypy types-PyYAML pre-commit build
	@touch $@
