"""GRPO with TRL; see `hf_sched.finetune.grpo`.

accelerate launch recipes/grpo.py --config recipes/configs/demo_grpo.yaml
"""

from hf_sched.finetune.grpo import main

if __name__ == "__main__":
    raise SystemExit(main())
