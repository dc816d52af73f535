"""sentence-transformers: `train_sentence_transformers.py MODEL --output_dir ... --lr_scheduler_type ...`."""

import sys

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
    models,
)
from transformers import HfArgumentParser

(args,) = HfArgumentParser(SentenceTransformerTrainingArguments).parse_args_into_dataclasses(sys.argv[2:])
model = SentenceTransformer(modules=[models.Transformer(sys.argv[1]), models.Pooling(16)], device="cpu")
rows = [f"sort {number}" for number in range(64)]
data = Dataset.from_dict({"anchor": rows, "positive": rows})
loss = losses.MultipleNegativesRankingLoss(model)
SentenceTransformerTrainer(model=model, args=args, train_dataset=data, loss=loss).train()
