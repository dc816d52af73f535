"""Stand-ins for flash-attn, which needs CUDA: programs import its functions, and call none of them here."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec

FUNCTIONS = {
    "flash_attn": (),
    "flash_attn.bert_padding": ("index_first_axis", "pad_input", "rearrange", "unpad_input"),
    "flash_attn.utils": (),
    "flash_attn.utils.distributed": ("all_gather",),
}
for name, functions in FUNCTIONS.items():
    sys.modules[name] = importlib.util.module_from_spec(ModuleSpec(name, None))
    vars(sys.modules[name]).update(dict.fromkeys(functions))
