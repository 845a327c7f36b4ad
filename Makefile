# Each target sets up .venv on first use and re-uses it until pyproject.toml changes.
# Extra options go through ARGS: make test ARGS="-k losses".

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test test-quick gpu-check lab notebooks docs constraints lint clean

help:
	@echo "make demo       begin a training, compare those that finished it (minutes on two CPU cores)"
	@echo "make test       all tests"
	@echo "make test-quick without the notebooks and other long ones"
	@echo "make lab        JupyterLab on the notebooks"
	@echo "make notebooks  run every notebook anew from its text source"
	@echo "make docs       the documentation, into docs/_build/html"
	@echo "make constraints  write the lowest and newest allowed versions anew, with uv"
	@echo "make gpu-check  on a machine with a GPU: what only one can tell, in nine minutes"
	@echo "make lint       check style and types"
	@echo "make clean      remove .venv and what tools left"

demo: $(READY)
	$(BIN)/cascadeclip demo $(ARGS)

# Small tensors keep one process of one thread per core busier than one process of many threads. Tests of one file stay
# in one process: they share what is costly to make.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-quick: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

gpu-check: $(READY)
	$(BIN)/python tests/support/gpu_check.py $(ARGS)

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=notebooks $(ARGS)

# Run every notebook anew from its text source; what changes from run to run besides outputs is left out.
notebooks: $(READY)
	cd notebooks && ../$(BIN)/jupytext --to ipynb --execute *.py
	$(BIN)/jupyter nbconvert --log-level=WARN --to notebook --inplace --ClearMetadataPreprocessor.enabled=True \
		--ClearMetadataPreprocessor.preserve_nb_metadata_mask="{'kernelspec', 'accelerator'}" \
		notebooks/*.ipynb

# Warnings are errors, and so is a link that leads nowhere.
docs: $(READY)
	$(BIN)/sphinx-build -q -n -W --keep-going -b html docs docs/_build/html $(ARGS)

# The lowest are for Python 3.11: newer ones have no wheels of some of them.
constraints: $(READY)
	uv pip compile -q pyproject.toml --all-extras --universal --no-header --no-annotate --no-emit-index-url \
		--python-version 3.11 --resolution lowest-direct -o .ci/lowest.txt
	uv pip compile -q pyproject.toml --all-extras --universal --no-header --no-annotate --no-emit-index-url \
		--python-version 3.11 --upgrade -o .ci/newest.txt

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist docs/_build docs/notebooks docs/reference *.egg-info .coverage .pytest_cache .ruff_cache .mypy_cache .hypothesis

# One pip call for everything, so that torch, torchvision and open_clip_torch are chosen to fit each other.
$(READY): pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "$(PYTHON) is missing or older than Python 3.11: try 'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[all]"
	@touch $@
