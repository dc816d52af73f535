"""What generation takes where the trainer's own model generates: the cache of keys and values, and logits."""

from __future__ import annotations

from functools import lru_cache

import torch

from hf_sched.finetune.memory.fake_model import build, fake_tensors, load_config, made_fake, nbytes
from hf_sched.finetune.memory.live import Live
from hf_sched.finetune.memory.settings import Settings
from hf_sched.finetune.memory.step import autocast

_LOGITS = 4  # float32 copies of a step's logits: as computed, warped, their probabilities, and one on the way


@lru_cache(maxsize=64)
def generation_bytes(settings: Settings) -> int:
    """The most that is alive, beside the weights, while completions are generated.

    A prompt of full length is read with a cache; the cache then grows with the completions, and one layer's keys or
    values stand twice while they are joined with a token's.
    """
    config = load_config(settings)
    prompt = settings.length - settings.completion
    with fake_tensors(), torch.no_grad():
        model = made_fake(build(settings.but(checkpointing=False), config)).eval()
        rows = settings.generated
        live = Live([*model.parameters(), *model.buffers()])
        with live, autocast(settings):
            ids = torch.zeros((rows, max(prompt, 1)), dtype=torch.long)
            output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        cached = _cached(output.past_key_values)
        vocabulary = output.logits.shape[-1]
    reading = live.window.activations - cached
    grown = cached * settings.length // max(prompt, 1)
    layers = config.get_text_config().num_hidden_layers
    joining = grown // (2 * layers)
    return int(grown + max(reading, joining + _LOGITS * 4 * rows * vocabulary))


def _cached(cache: object) -> int:
    layers = getattr(cache, "layers", None)
    if layers is not None:
        return nbytes(tensor for layer in layers for tensor in (layer.keys, layer.values))
    return nbytes(tensor for pair in cache for tensor in pair[:2])  # type: ignore[attr-defined]
