"""How much memory a run needs at its peak on each process, estimated before a model is loaded.

Nothing here is a formula of a model's shape: the model is built on fake tensors, which have shapes and types and no
memory, one step of training is made with them, and the bytes alive are counted operation by operation.

What is assumed (`ASSUMPTIONS`, printed under the table) is what fake tensors cannot tell.
"""

from hf_sched.finetune.memory.estimate import ASSUMPTIONS, GIB, Estimate, Moment, estimate, least
from hf_sched.finetune.memory.settings import Lora, Settings
from hf_sched.finetune.memory.spread import Spread

__all__ = ["ASSUMPTIONS", "GIB", "Estimate", "Lora", "Moment", "Settings", "Spread", "estimate", "least"]
