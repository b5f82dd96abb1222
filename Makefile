# make demo | make test | make check | make gpu | make setup: each sets up what it needs, on a machine with git, make and python3.
# Variables: PYTHON=python3.12 (another interpreter), JOBS=1 (tests in one process), UV_SYSTEM_CERTS=0 (uv's own certificates).

PYTHON ?= python3
UV_SYSTEM_CERTS ?= 1
export UV_SYSTEM_CERTS

JOBS ?= $(shell getconf _NPROCESSORS_ONLN || echo 1)
BIN := .venv/bin
UV := $(shell command -v uv || echo .uv/bin/uv)
EXTRAS := demo,detection,shards,log,look,pretrained,export,executorch,ray,serve,evidence,docs,test
READY := .venv/.ready

.PHONY: help setup demo docs serve test timm-tests export-check check gpu gpu-wheels gpu-data gpu-dry-run wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train small BoTNets on nuclei and digits, evaluate them, write runs/demo/report.html (minutes, CPU)"
	@echo "make test    run the tests"
	@echo "make timm-tests     timm's own tests of models, on our networks"
	@echo "make export-check   exported folders run in environments that have a runtime and Pillow, and nothing of ours"
	@echo "make docs    build the documentation into build/docs; every warning is an error"
	@echo "make serve   a page on this machine: drop an image on the package's networks"
	@echo "make check   style, types, layers, the wheel"
	@echo "make gpu     on a machine with CUDA: tests, tuning, benchmarks, training in calls of 9 minutes; installs nothing"
	@echo "make gpu-wheels, gpu-data    what a GPU machine without a network needs beside this folder, into build/gpu"
	@echo "make gpu-dry-run             the same as make gpu on a CPU with tiny sizes, to see that everything runs"
	@echo "make setup   install everything into .venv (the others do it by themselves)"
	@echo "make clean   remove what setup and the tests left behind (not runs/)"

setup: $(READY)

demo: $(READY)
	$(BIN)/botformer demo

test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(TESTS)

# TIMM_ROWS: patterns of rows, separated by commas; "*" for all. By default small ones with each kind of block.
timm-tests: $(READY) $(UV)
	version=$$($(BIN)/python -c 'import timm; print(timm.__version__)') && folder=build/timm-$$version && \
	{ test -d $$folder || { $(UV) tool run --quiet pip download --quiet --no-deps --no-binary :all: --dest build timm==$$version && \
		tar xzf build/timm-$$version.tar.gz -C build; }; } && \
	PYTHONPATH=src:tests/timm $(if $(TIMM_ROWS),BOTFORMER_TIMM_ROWS='$(TIMM_ROWS)') $(BIN)/python -m pytest -q -p no:cacheprovider \
		-p only_botformer -c $$folder/pyproject.toml --rootdir $$folder $$folder/tests/test_models.py

export-check: $(READY) $(UV)
	$(BIN)/python tests/deploy/run_elsewhere.py $(UV) build/elsewhere

docs: $(READY)
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going --builder html docs build/docs
	@echo "docs: build/docs/index.html"

serve: $(READY)
	$(BIN)/botformer serve

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(MAKE) --no-print-directory wheel

# One call of at most MINUTES, which goes on where the last one stopped. OUT: what a call brings home. EARLIER: the OUT of
# a call on another machine, to go on from.
MINUTES ?= 9
CALL ?= 0
OUT ?= runs/gpu/out
gpu: export PYTHONPATH := src:.
gpu: | check-gpu
	$(PYTHON) -m benchmarks.gpu --out $(OUT) --call $(CALL) --minutes $(MINUTES) $(if $(EARLIER),--earlier $(EARLIER))

# What travels to a GPU machine without a network, beside a copy of this folder: wheels of what machine.txt lacks, for
# Python 3.12 on x86-64, and the commit that the receipts name; make gpu-data: real data.
WHEELS := faster-coco-eval bottleneck-transformer-pytorch einops
WHEEL_PYTHON ?= 3.12
PLATFORMS := $(foreach tag,manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014,--platform $(tag)_x86_64) --platform any
gpu-wheels: GPU_FOLDER ?= build/gpu
gpu-wheels: $(UV)
	rm -rf $(GPU_FOLDER)/wheels && mkdir -p $(GPU_FOLDER)/wheels
	grep -E '^($(subst $(eval) ,|,$(WHEELS)))==' constraints.txt > $(GPU_FOLDER)/wheels.txt
	$(UV) tool run --quiet pip download --quiet --no-deps --only-binary=:all: --python-version $(WHEEL_PYTHON) \
		--implementation cp $(PLATFORMS) --dest $(GPU_FOLDER)/wheels --requirement $(GPU_FOLDER)/wheels.txt
	git rev-parse HEAD > $(GPU_FOLDER)/commit
	@du -sh $(GPU_FOLDER) && ls $(GPU_FOLDER)/wheels

gpu-data: export PYTHONPATH := src:.
gpu-data: $(READY)
	@test -n "$(DATA)" || { echo "make gpu-data: say where the data are: make gpu-data DATA=folder"; exit 1; }
	$(BIN)/python -m benchmarks.gpu.data_packs --data $(DATA) --out build/gpu

# The kit on a CPU, in an environment with what machine.txt lists and nothing else.
DRY := build/gpu-dry-run
gpu-dry-run: $(READY) $(UV)
	$(UV) venv --quiet --clear --python $(BIN)/python $(DRY)/venv
	$(UV) pip install --quiet --python $(DRY)/venv/bin/python --requirement benchmarks/gpu/machine.txt
	$(MAKE) --no-print-directory gpu-wheels GPU_FOLDER=$(DRY)/packs WHEEL_PYTHON=$$($(BIN)/python -c 'import platform; print(platform.python_version())')
	PYTHONPATH=src:. $(DRY)/venv/bin/python -m benchmarks.gpu.dry_run --packs $(DRY)/packs

.PHONY: check-gpu
check-gpu:
	@$(PYTHON) -c 'import torch' 2>/dev/null || { echo "make gpu: '$(PYTHON)' has no PyTorch, and make gpu installs nothing; use make gpu PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import torch; exit(not torch.cuda.is_available())' 2>/dev/null || { echo "make gpu: PyTorch finds no CUDA device; make gpu-dry-run shows on a CPU that everything runs, and botformer benchmark measures the CPU"; exit 1; }
	@$(PYTHON) -c 'import torch; exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11))' || { echo "make gpu: needs PyTorch 2.11 or newer"; exit 1; }

# The wheel in an empty environment with the base dependencies alone.
wheel: $(READY) $(UV)
	rm -rf build/wheel && mkdir -p build
	$(UV) build --quiet --wheel --out-dir build/wheel
	$(UV) venv --quiet --clear --python $(BIN)/python build/wheel/venv
	$(UV) pip install --quiet --python build/wheel/venv/bin/python --constraint constraints.txt build/wheel/*.whl
	cd build/wheel && env -u PYTHONPATH venv/bin/python -c "import botformer; print('wheel: botformer', botformer.__version__, 'with', len(botformer.list_models()), 'models')"
	cd build/wheel && venv/bin/botformer models > /dev/null && venv/bin/botformer --help > /dev/null
	rm -rf build/wheel

clean:
	rm -rf .venv .uv build dist .pytest_cache .ruff_cache .import_linter_cache

.uv/bin/uv: | check-python
	@echo "setup: uv is not on this machine; putting it into .uv with pip"
	@$(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv

$(READY): pyproject.toml constraints.txt | check-python $(UV)
	@echo "setup: installing botformer with every extra and the test tools into .venv (about 6 GB with PyTorch)"
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv
	@$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $(READY)
	@echo "setup: done; activate with: . $(BIN)/activate"

.PHONY: check-python
check-python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "setup: there is no '$(PYTHON)' on this machine; install Python 3.11 or newer, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $$($(PYTHON) --version 2>&1) is too old; botformer needs Python 3.11 or newer (make PYTHON=python3.11)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "setup: this python3 cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
