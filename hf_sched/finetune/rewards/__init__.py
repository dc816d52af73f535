r"""Rewards for GRPO, listed by name in a recipe's YAML, with parameters and weights:

    reward_funcs:
      - accuracy
      - name: repetition_penalty
        max_penalty: -0.5
        weight: 0.2
      - my_rewards.brevity

A name is one of `REWARDS`, a name from `trl.rewards`, a dotted path to your own function, or the path of a reward model
(any name with a slash). Only the named rewards are imported. Each is logged under its name.

Your own function takes lists and returns a list: `(completions, **kwargs) -> list[float | None]`. Prompts and the
columns of the data arrive in keyword arguments.

To add a reward to this package, write a function in `answers.py` or `formats.py` and list it in `load.REWARDS`.
"""

from hf_sched.finetune.rewards.answers import accuracy, exact_answer, final_number
from hf_sched.finetune.rewards.load import REWARDS, check_reward_columns, load_rewards
from hf_sched.finetune.rewards.safe_reward import Reward, text_of

__all__ = [
    "REWARDS",
    "Reward",
    "accuracy",
    "check_reward_columns",
    "exact_answer",
    "final_number",
    "load_rewards",
    "text_of",
]
