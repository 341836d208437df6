# LoRA from Scratch. `make book` to read it, `make test` to check it, `make help` for the rest.

PYTHON ?= python3
VENV ?= .venv
REQUIREMENTS ?= requirements.txt
# An index of CPU builds of torch, for machines whose default index would install CUDA, too:
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
NB ?=
ARGS ?=
URL ?=

.DEFAULT_GOAL := help
.PHONY: help book notebooks pdf slides weight test ledger test-long gpu-check finetune outputs results tables lint clean repository release test-colab
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20
	@echo
	@echo "  PYTHON=$(PYTHON)  VENV=$(VENV)  TORCH_INDEX=$(TORCH_INDEX)"

# The stamp is written last, so a set-up that fails is tried again.
$(STAMP): $(REQUIREMENTS) pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" REQUIREMENTS="$(REQUIREMENTS)" TORCH_INDEX="$(TORCH_INDEX)" tools/setup.sh
	@touch $@

book: $(STAMP) ## build the site from the stored outputs, and say which page to open
	@$(PY) -m tools.steps book

notebooks: $(STAMP) ## the reader's edition of every notebook, as Colab opens it (make book makes it, too)
	@$(PY) -m tools.edition

pdf: $(STAMP) ## the whole book as one PDF, checked for anything cut or lost (minutes)
	@$(PY) -m tools.pdf

slides: $(STAMP) ## a deck of slides for each chapter, for a browser without a network (ARGS="2 5" makes two)
	@$(PY) -m tools.slides $(ARGS)

weight: $(STAMP) ## how much each chapter's page loads before it can be read, by kind
	@$(PY) -m tools.page_weight

test: $(STAMP) ## everything: gate, types, site, package tests, every chapter, pages in a browser
	@$(PY) -m tools.steps test

ledger: $(STAMP) ## what the last make test spent its time on, beside the kept ledger (ARGS=--keep keeps it)
	@$(PY) -m tools.ledger $(ARGS)

test-long: $(STAMP) ## the package tests, with those too long for test: a run killed at 20 moments, 390 classes of transformers
	@$(PY) -m pytest -q -m "long or not long" tests

test-colab: $(STAMP) ## every notebook's first cells as on Colab, in fresh environments (minutes)
	@TORCH_INDEX="$(TORCH_INDEX)" $(PY) -m tools.colab

gpu-check: $(STAMP) ## on a GPU: its tests, epochs, the layer's cost, memory; without one it says so
	@$(PY) -m book.study.runs.gpu

finetune: $(STAMP) ## fine-tune with defaults (ARGS="--rank 1 --epochs 2" changes them)
	$(PY) -m lora_from_scratch finetune --out runs/finetune --overwrite $(ARGS)

outputs: $(STAMP) ## execute notebooks and store their outputs (NB=book/02_lora_layer.ipynb for one)
	$(PY) -m tools.run_notebooks $(NB)

results: $(STAMP) ## train the runs behind the book's tables (hours)
	@test -e results/yardsticks.json || $(PY) -m book.study.runs.baselines
	$(PY) -m book.study.runs.sweep $(ARGS)

tables: $(STAMP) ## rewrite the tables from the records in results/
	$(PY) -m book.study.pages.tables $(ARGS)

lint: $(STAMP) ## ruff, codespell, types and the notebook gate
	$(PY) -m ruff check .
	$(PY) -m codespell_lib
	$(PY) -m mypy
	$(PY) -m tools.gate

repository: $(STAMP) ## move the book to another address (URL=https://github.com/you/lora-from-scratch)
	@$(PY) -m tools.set_repository $(URL)

release: $(STAMP) ## an archive of site, PDF and notebooks that name the version's tag (minutes)
	@$(PY) -m tools.release

clean: ## remove what was built; the environment and runs/ stay
	rm -rf _build build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
