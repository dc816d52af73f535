"""GRPO with TRL; see `hf_sched.finetune.grpo`.

accelerate launch --config_file accelerate_configs/ddp.yaml recipes/grpo.py --config CONFIG.yaml
"""

from hf_sched.finetune.grpo import main

if __name__ == "__main__":
    raise SystemExit(main())
