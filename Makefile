# The two commands a stranger needs: `make chat` and `make test`. All set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
FAST := tests/engine/test_generate.py tests/engine/depth tests/engine/drafters/test_ngram.py \
	tests/engine/sampling/test_verify.py

# llama.cpp's RPC backend takes seconds to compile; what the user says of others comes after it.
override CMAKE_ARGS := -DGGML_RPC=on $(CMAKE_ARGS)
export CMAKE_ARGS
HAS_RPC = $(BIN)/python -c 'import llama_cpp, sys; sys.exit(not llama_cpp.llama_supports_rpc())'
PIP = $(BIN)/python -m pip

.PHONY: chat test fast install lock clean

# A job of its own (set -m), so that Ctrl-C stops an answer and leaves make alone.
chat: install
	@test ! -t 0 || set -m; $(BIN)/mtp-chat

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

# The loop, the depth policy and verification, without llama.cpp: about a second.
fast: install
	$(BIN)/pytest -m 'not slow' $(FAST)

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard mtp_cli/engine/native/*.cpp mtp_cli/engine/native/*.h mtp_cli/engine/native/*/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; set PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time llama.cpp is compiled, which takes minutes."
	$(PIP) install -qq --constraint constraints.txt --editable '.[dev]'
	@$(HAS_RPC) || { echo "pip kept llama.cpp from before, without RPC; it is compiled again."; \
		$(PIP) cache remove -qq llama_cpp_python || true; \
		$(PIP) install -qq --constraint constraints.txt --force-reinstall --no-deps \
			--no-binary llama-cpp-python llama-cpp-python; }
	@touch $@

# Rewrites constraints.txt: every version that the tests ran with, for every supported Python.
lock: install
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --extra dev --extra bench \
		--no-annotate --no-header --upgrade pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
