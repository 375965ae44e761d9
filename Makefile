# The lab's commands. `make lab` and `make test` install what they need into .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
# test processes side by side, each on one thread; WORKERS=0 runs everything in one
WORKERS ?= 2
QUICK = LABLIB_MODE=quick $(if $(filter 0,$(WORKERS)),,OMP_NUM_THREADS=1) $(PY)
# JupyterLab asks the superuser (a container's only user) to say so; it listens on this machine only
ROOT_OK := $(if $(filter 0,$(shell id -u)),--allow-root)
export PYTHONPATH := $(CURDIR)
export PYTHONHASHSEED := 0

.PHONY: help lab test figures bench gpu notebooks lint clean
help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

# One stamp per set of extras: pip runs again only when the pins change.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; run: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lab: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,imaging,private]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.lab

lab: $(VENV)/.lab  ## install the lab and open it in JupyterLab (make lab ARGS=--no-browser)
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
	  > $(VENV)/share/jupyter/lab/settings/overrides.json  # no pop-up over the plots
	$(PY) -m jupyterlab $(ROOT_OK) --ServerApp.ip=127.0.0.1 --ServerApp.root_dir='$(CURDIR)' \
	  --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(ARGS)

figures: $(VENV)/.lab  ## run every recipe (LABLIB_MODE=quick|standard|full) and redraw figures/
	$(PY) -m lablib figures $(ARGS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

test: lint  ## ruff, pytest, every notebook under nbval, the lab in a real browser
	$(QUICK) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)
	$(QUICK) -m pytest -n $(WORKERS) --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=120 \
	  --nbval-sanitize-with=tests/notebooks/nbval_sanitize.cfg -p no:cacheprovider notebooks

bench: $(VENV)/.test  ## ratios of our code to its peers, side by side in one process
	$(PY) -m lablib bench $(ARGS)

gpu:  ## GPU tests, kernel benchmarks, then the next step of training and of the full-size experiments
	$(or $(wildcard $(PY)),$(PYTHON)) tools/gpu.py $(ARGS)

notebooks: $(VENV)/.test  ## execute every notebook in quick mode, clean it and store it
	LABLIB_MODE=quick $(PY) tools/store_notebooks.py $(ARGS)

clean:  ## remove the environment and the caches
	rm -rf $(VENV) build .ruff_cache *.egg-info figures/quick
	find . -name __pycache__ -prune -exec rm -rf {} +
