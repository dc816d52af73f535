"""DPO with TRL; see `hf_sched.finetune.dpo`.

accelerate launch recipes/dpo.py --config recipes/configs/demo_dpo.yaml
"""

from hf_sched.finetune.dpo import main

if __name__ == "__main__":
    raise SystemExit(main())
