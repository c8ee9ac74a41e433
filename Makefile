# Two commands: `make demo` shows the project working, `make test` checks it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2

export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(wildcard kernels/*/*.cpp kernels/*/*.h kernels/build.py)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/python kernels/build.py || test -z "$$TOKENIZERS_VQ_REQUIRE"
	touch $@

demo: install
	OMP_NUM_THREADS= $(BIN)/tvq demo

test: install
	$(BIN)/python -m pytest -n $(JOBS) --nbmake tests notebooks

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist *.egg-info outputs multirun
