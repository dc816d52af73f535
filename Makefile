# `make demo` and `make test` are all a newcomer needs; both make .venv first, or use the one that is there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo
export HF_HUB_OFFLINE = 1
export CI = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-slow test-hosts lint benchmark

# What setup.cfg lists as an extra, installed: $(VENV)/installed-recipes, $(VENV)/installed-test. Schedules are compared
# with timm's too, which asks for torchvision; that one does not fit a torch without CUDA, and transformers then fails.
$(VENV)/installed-%: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	test $* = recipes || $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps timm
	touch $@

# Supervised fine-tuning, then GRPO, each on two processes; evaluation; report.
demo: $(VENV)/installed-recipes
	rm -rf $(DEMO)
	$(BIN)/python recipes/sorting_task.py --output_dir $(DEMO)/task
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu_2proc.yaml recipes/sft.py --config recipes/configs/demo_sft.yaml
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu_2proc.yaml recipes/grpo.py --config recipes/configs/demo_grpo.yaml
	$(BIN)/python recipes/evaluation.py --models $(DEMO)/task/model $(DEMO)/sft $(DEMO)/grpo \
		--data $(DEMO)/task/grpo --metric exact_answer --max_new_tokens 10 --output $(DEMO)/evaluation.json
	$(BIN)/python recipes/report.py --runs $(DEMO)/sft $(DEMO)/grpo --evaluation $(DEMO)/evaluation.json --output $(DEMO)/report.md

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

# Minutes of training on top: the demo's learning with three seeds.
test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

# LLaMA-Factory and others, installed first: gigabytes. HF_SCHED_HOSTS=folder keeps what was installed.
test-hosts: $(VENV)/installed-test
	$(BIN)/python -m pytest -m hosts

# Steps, curves and imports timed side by side with other libraries'.
benchmark: $(VENV)/installed-test
	$(BIN)/python benchmarks/schedulers.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
