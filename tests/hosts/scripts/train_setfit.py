"""SetFit: `train_setfit.py MODEL OUTPUT_DIR`. Its arguments have no schedule; those of the Trainer inside have."""

import sys

from datasets import Dataset
from sentence_transformers import SentenceTransformer, models
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression

body = SentenceTransformer(modules=[models.Transformer(sys.argv[1]), models.Pooling(16)], device="cpu")
model = SetFitModel(model_body=body, model_head=LogisticRegression())
args = TrainingArguments(
    output_dir=sys.argv[2],
    batch_size=2,
    max_steps=8,
    warmup_proportion=0.25,
    body_learning_rate=1e-3,
    logging_steps=1,
    save_steps=8,
    report_to="none",
)
data = Dataset.from_dict({"text": [f"sort {number}" for number in range(16)], "label": [0, 1] * 8})
trainer = Trainer(model, args, train_dataset=data)
trainer.st_trainer.args.lr_scheduler_type = "cosine_floor:floor_ratio=0.2"
trainer.train()
