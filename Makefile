# Everything a newcomer needs; each target is a few plain commands (README: the same without make).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
# what Python has compiled is kept: else each of the tests' many processes compiles all that it imports anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slicer lint bench bench-slicer venv venv-slicer clean

venv: $(BIN)/hiresmedsynth

$(BIN)/hiresmedsynth: requirements.lock pyproject.toml
	$(PYTHON) -m venv .boot
	.boot/bin/python -m pip install --quiet uv
	.boot/bin/uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	.boot/bin/uv pip install --quiet --python $(BIN)/python --no-deps $(FIND_LINKS) torch==2.13.0
	.boot/bin/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	.boot/bin/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

venv-slicer: .venv-slicer/made

.venv-slicer/made: Testing/slicer/requirements.lock | venv
	.boot/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv-slicer
	.boot/bin/uv pip install --quiet --python .venv-slicer/bin/python --no-deps --require-hashes -r Testing/slicer/requirements.lock
	touch $@

demo: venv
	$(BIN)/hiresmedsynth compose Testing/data/ct_series --lesions 3 --seed 7 --size-mm 10:15 --out demo/ct --pair --overwrite
	$(BIN)/hiresmedsynth compose Testing/data/cxr/nih_cxr_dx.dcm --domain cxr --spacing-mm 0.342,0.4175 --lesions 2 --seed 7 --size-mm 15:25 --out demo/cxr --pair --overwrite

test: venv test-slicer
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=15

test-slicer: venv venv-slicer
	.venv-slicer/bin/python -m pytest Testing/slicer

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: venv
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m Testing.benchmarks  # as the commands count

bench-slicer: venv venv-slicer
	.venv-slicer/bin/python -m Testing.benchmarks.slicer_panel

clean:
	rm -rf $(VENV) .venv-slicer .boot demo
