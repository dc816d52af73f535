# `make demo` and `make test` are all a newcomer needs; both make .venv first, or use the one that is there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo
export HF_HUB_OFFLINE = 1
export CI = 1
export TOKENIZERS_PARALLELISM = false

# Of the tests, those that stand on transformers, TRL, Accelerate or torch (the rest is the same whatever their versions),
# and of the recipes' runs some of each kind, since each takes half a minute.
IN_RECIPES := tests/recipes/test_schedules_in_recipes.py::test_
OLDEST := $(addprefix tests/hf_sched/test_,$(addsuffix .py,accelerate_loop branching callbacks lars resume resume_in_trainer \
	scheduler trainer transformers_hook)) \
	$(addprefix tests/recipes/test_,$(addsuffix .py,checkpoints config data launch rewards)) \
	$(addprefix $(IN_RECIPES),lora_trains_an_adapter_on_the_planned_curve \
	a_resumed_run_goes_on_as_if_never_interrupted) tests/test_versions.py

.PHONY: demo test test-oldest test-slow test-hosts lint benchmark learning

# What setup.cfg lists as an extra, installed: $(VENV)/installed-recipes, $(VENV)/installed-test. Schedules are compared
# with timm's too; it lies apart, since it asks for torchvision, which does not fit a torch without CUDA, and `accelerate
# launch` fails where it finds the one without the other.
$(VENV)/installed-%: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	test $* = recipes || $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --upgrade \
		--target $(VENV)/timm timm
	touch $@

# Supervised fine-tuning, then GRPO, each on two processes; evaluation; report.
demo: $(VENV)/installed-recipes
	rm -rf $(DEMO)
	$(BIN)/python -m hf_sched.finetune.demo.sorting_task --output_dir $(DEMO)/task
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu_2proc.yaml recipes/sft.py --config recipes/configs/demo_sft.yaml
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu_2proc.yaml recipes/grpo.py --config recipes/configs/demo_grpo.yaml
	$(BIN)/python -m hf_sched.finetune.evaluation.evaluate --models $(DEMO)/task/model $(DEMO)/sft $(DEMO)/grpo \
		--data $(DEMO)/task/grpo --metric exact_answer --max_new_tokens 10 --output $(DEMO)/evaluation.json
	$(BIN)/python -m hf_sched.finetune.reports.report --runs $(DEMO)/sft $(DEMO)/grpo --evaluation $(DEMO)/evaluation.json --output $(DEMO)/report.md

# File by file, since what a file's tests share is made once. More than four at a time would run out of memory.
test: $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# On the oldest libraries that setup.cfg allows, in a virtual environment of their own.
test-oldest: $(VENV)-oldest/installed
	$(VENV)-oldest/bin/python -m pytest $(OLDEST)

$(VENV)-oldest/installed: setup.cfg pyproject.toml constraints-oldest.txt
	test -x $(VENV)-oldest/bin/python || $(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[recipes,deepspeed]' \
		hypothesis pytest pytest-timeout
	touch $@

# Minutes of training on top: the demo's learning with three seeds.
test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

# LLaMA-Factory and others, installed first: gigabytes. HF_SCHED_HOSTS=folder keeps what was installed.
test-hosts: $(VENV)/installed-test
	$(BIN)/python -m pytest -m hosts

# Steps, curves and imports timed side by side with other libraries'.
benchmark: $(VENV)/installed-test
	$(BIN)/python benchmarks/schedulers.py

# Which schedule to take, on three small tasks, and three budgets out of one run: hours on two cores. Killed, it goes on
# where it stopped. TEXT is a file or GSM8K's folder.
LEARNING := runs/learning
SEEDS := 0 1 2 3 4
SCHEDULES := linear cosine cosine_with_min_lr:min_lr_rate=0.1 constant_with_warmup linear_with_warmup \
	cosine_floor:floor_ratio=0.1 warmup_cosine cosine_restarts:num_cycles=3 wsd:decay=20%
learning: $(LEARNING)/tasks
	$(BIN)/python benchmarks/learning.py --config benchmarks/configs/sft.yaml --output $(LEARNING)/sft \
		--schedules $(SCHEDULES) --learning_rates 1e-3 2e-3 4e-3 --seeds $(SEEDS) -- \
		--model_name_or_path '$(LEARNING)/task-{seed}/model' --dataset_name '$(LEARNING)/task-{seed}/sft'
	$(BIN)/python benchmarks/learning.py --config benchmarks/configs/text.yaml --output $(LEARNING)/pretraining \
		--schedules $(SCHEDULES) --learning_rates 2e-3 4.5e-3 1e-2 --seeds $(SEEDS) -- \
		--model_name_or_path '$(LEARNING)/text/model-{seed}'
	$(BIN)/python benchmarks/learning.py --config benchmarks/configs/grpo.yaml --output $(LEARNING)/grpo --metric eval_reward \
		--schedules $(SCHEDULES) --learning_rates 5e-5 1e-4 2e-4 4e-4 --seeds $(SEEDS) -- \
		--model_name_or_path '$(LEARNING)/sft-{seed}' --dataset_name '$(LEARNING)/task-{seed}/grpo'
	$(BIN)/python benchmarks/budgets.py --config benchmarks/configs/text.yaml --output $(LEARNING)/budgets --steps 400 \
		--cosine 4.5e-3 --wsd 4.5e-3 --seeds $(SEEDS) -- --model_name_or_path '$(LEARNING)/text/model-{seed}'

# Data and models for each seed; GRPO begins with what supervised fine-tuning has made.
$(LEARNING)/tasks: $(VENV)/installed-test
	test -n "$(TEXT)" || { echo 'say which text to train on: make learning TEXT=file.txt'; exit 2; }
	$(BIN)/python benchmarks/text_task.py --text $(TEXT) --output $(LEARNING)/text --seeds $(SEEDS) --train 1500
	for seed in $(SEEDS); do \
		$(BIN)/python -m hf_sched.finetune.demo.sorting_task --output_dir $(LEARNING)/task-$$seed --seed $$seed --train 3000 && \
		$(BIN)/python recipes/sft.py --config benchmarks/configs/sft.yaml --output_dir $(LEARNING)/sft-$$seed --seed $$seed \
			--model_name_or_path $(LEARNING)/task-$$seed/model --dataset_name $(LEARNING)/task-$$seed/sft || exit 1; \
	done
	touch $@

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
