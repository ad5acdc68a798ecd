"""Hugging Face Trainer: a small GPT-2 learns the letters of Python's own documentation.

    python examples/trainer.py FOLDER [--max_steps 20] [any other TrainingArguments]

It goes on from the last whole checkpoint in FOLDER, wherever it was killed. The three lines that
F3EO changes are marked.
"""

import sys
from pydoc_data.topics import topics

import torch
from transformers import GPT2Config, GPT2LMHeadModel, HfArgumentParser, set_seed

from f3eo.integrations.trainer_checkpoints import last_checkpoint
from f3eo.integrations.transformers import F3EOArguments, F3EOTrainer  # 1: in place of Trainer

LENGTH = 32
DEFAULTS = {
    "max_steps": "20",
    "per_device_train_batch_size": "8",
    "gradient_accumulation_steps": "2",
    "learning_rate": "3e-3",
    "warmup_steps": "5",
    "save_steps": "10",
    "logging_steps": "5",
    "report_to": "none",
    "use_cpu": "true",
    "seed": "1",
}


def windows() -> list[dict[str, torch.Tensor]]:
    """Pieces of the text, a byte a token."""
    text = "\n".join(topics[name] for name in sorted(topics)[:20]).encode()
    pieces = torch.tensor(list(text)).unfold(0, LENGTH, LENGTH)
    return [{"input_ids": piece, "labels": piece} for piece in pieces]


def main(folder: str, *given: str) -> float:
    """Train, and return the loss of the last log."""
    known = [word for key, value in DEFAULTS.items() for word in (f"--{key}", value)]
    parser = HfArgumentParser(F3EOArguments)  # 2: in place of TrainingArguments
    (args,) = parser.parse_args_into_dataclasses(["--output_dir", folder, *known, *given])
    set_seed(args.seed)
    sizes = {"vocab_size": 256, "n_positions": LENGTH, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    trainer = F3EOTrainer(model, args, train_dataset=windows())  # 3
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in {trainer.state.global_step} steps")
    return losses[-1]


if __name__ == "__main__":
    main(*sys.argv[1:])
