# `make demo` and `make test` are all a newcomer needs. Both create .venv first, or use the one that exists.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo
export HF_HUB_OFFLINE = 1
export CI = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-slow test-oldest test-hosts lint docs benchmark overhead learning sweep reliability gpu

# Installs an extra of setup.cfg: $(VENV)/installed-recipes, $(VENV)/installed-test. timm goes into its own folder because
# it requires torchvision, which breaks `accelerate launch` beside a torch without CUDA.
$(VENV)/installed-%: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	test $* = recipes || $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --upgrade \
		--target $(VENV)/timm timm
	touch $@

# SFT, then GRPO, each on two processes; evaluation; report.
LAUNCH := $(BIN)/accelerate launch --config_file accelerate_configs/cpu_2proc.yaml
demo: $(VENV)/installed-recipes
	rm -rf $(DEMO)
	$(BIN)/python -m hf_sched.finetune.demo.sorting_task --output_dir $(DEMO)/task
	$(LAUNCH) recipes/sft.py --config recipes/configs/demo_sft.yaml
	$(LAUNCH) recipes/grpo.py --config recipes/configs/demo_grpo.yaml
	$(BIN)/hf-sched evaluate $(DEMO)/task/model $(DEMO)/sft $(DEMO)/grpo \
		--data $(DEMO)/task/grpo --metric exact_answer --max-new-tokens 10 --output $(DEMO)/evaluation.json
	$(BIN)/hf-sched report $(DEMO)/sft $(DEMO)/grpo --evaluation $(DEMO)/evaluation.json --output $(DEMO)/report.md

# What a contributor runs. Tests are distributed by file because the tests of a file share trained models.
test: $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Everything that takes minutes: trainings on several processes, kills and resumes, the demo with three seeds.
test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

# The oldest supported libraries, in their own environment: the tests that depend on transformers, TRL, Accelerate or torch.
OLDEST := tests/hf_sched/scheduler tests/hf_sched/callbacks tests/hf_sched/integrations \
	tests/hf_sched/finetune/checkpoints tests/hf_sched/finetune/data tests/hf_sched/finetune/rewards \
	$(addprefix tests/hf_sched/finetune/test_,config.py launch.py pipeline.py) tests/test_versions.py
test-oldest: $(VENV)-oldest/installed
	$(VENV)-oldest/bin/python -m pytest $(OLDEST)

$(VENV)-oldest/installed: setup.cfg pyproject.toml constraints-oldest.txt
	test -x $(VENV)-oldest/bin/python || $(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[recipes,deepspeed]' \
		hypothesis pytest pytest-timeout
	touch $@

# Other training programs under `hf-sched run`, each in its own environment: gigabytes of downloads.
# HF_SCHED_HOSTS=FOLDER keeps the environments.
test-hosts: $(VENV)/installed-test
	$(BIN)/python -m pytest -m hosts

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-test
	$(BIN)/python -m mkdocs build --strict

# Benchmarks, one folder of benchmarks/ each. docs/benchmarks.md, docs/speed.md and docs/reliability.md show the results.
benchmark: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.speed.run

overhead: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.overhead.run --rounds 12 --output docs/benchmarks

# GSM8K is the folder with train.jsonl and test.jsonl. Takes hours on two cores; an interrupted run continues.
learning: $(VENV)/installed-test
	test -n "$(GSM8K)" || { echo 'name the folder of GSM8K: make learning GSM8K=FOLDER'; exit 2; }
	$(BIN)/python -m benchmarks.learning.run all --gsm8k $(GSM8K)

# Start it in two terminals to use two cores: they share the trainings.
sweep: $(VENV)/installed-test
	test -n "$(GSM8K)" || { echo 'name the folder of GSM8K: make sweep GSM8K=FOLDER'; exit 2; }
	$(BIN)/python -m benchmarks.sweep.run --gsm8k $(GSM8K)

reliability: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.reliability.run

gpu: $(VENV)/installed-test
	$(BIN)/python benchmarks/gpu/run.py --minutes 8 --output runs/gpu
