"""Supervised fine-tuning with TRL; see `hf_sched.finetune.sft`.

accelerate launch --config_file accelerate_configs/ddp.yaml recipes/sft.py --config CONFIG.yaml
"""

from hf_sched.finetune.sft import main

if __name__ == "__main__":
    raise SystemExit(main())
