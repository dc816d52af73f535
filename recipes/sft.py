"""Supervised fine-tuning with TRL; see `hf_sched.finetune.sft`.

accelerate launch recipes/sft.py --config recipes/configs/demo_sft.yaml
"""

from hf_sched.finetune.sft import main

if __name__ == "__main__":
    raise SystemExit(main())
