r"""Rewards for GRPO, by name in a recipe's YAML, with parameters and weights:

    reward_funcs:
      - accuracy
      - name: repetition_penalty
        max_penalty: -0.5
        weight: 0.2
      - my_rewards.brevity

A name is one of `OWN`, one of `trl.rewards`, a dotted path to a function of one's own, or the path of a reward model. A
reward is imported only where it is named; each is logged under its name.
"""

from hf_sched.finetune.rewards.answers import accuracy, exact_answer, final_number
from hf_sched.finetune.rewards.load import OWN, check_reward_columns, load_rewards
from hf_sched.finetune.rewards.safe_reward import Reward, text_of

__all__ = [
    "OWN",
    "Reward",
    "accuracy",
    "check_reward_columns",
    "exact_answer",
    "final_number",
    "load_rewards",
    "text_of",
]
