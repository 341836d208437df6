"""The steps of ``finetune`` and nothing around them, for tools that stop on the way or take another optimiser."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch.optim import AdamW, Optimizer

from lora_from_scratch.finetune import TextClassifier, TextData, TrainConfig
from lora_from_scratch.finetune.batches import tokenise, train_loader
from lora_from_scratch.finetune.precision import padded_to
from lora_from_scratch.finetune.recipe import parameter_groups, rate_share


def steps_of(
    classifier: TextClassifier, data: TextData, config: TrainConfig, order: int, optimizer: Callable[..., Optimizer] | None = None
) -> Iterator[tuple[int, float]]:
    """Train what requires a gradient for ``config.max_steps``; after each step its number, from 0, and its loss.

    ``order`` is the seed of the rows' order; ``optimizer`` makes one of parameter groups, in place of AdamW.
    """
    model = classifier.model.train()
    groups = [{**group, "lr": group["peak"]} for group in parameter_groups(model, config)]
    if optimizer:
        stepper = optimizer(groups)
    else:
        stepper = AdamW(groups, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True)
    trained = [p for group in groups for p in group["params"]]
    tokenizer = classifier.tokenizer
    ids = tokenise(tokenizer, data.train.texts, classifier.max_length)
    pad, multiple = tokenizer.pad_token_id, padded_to(config.precision)
    loader = iter(train_loader(ids, data.train.labels, pad, config.batch_size, order, multiple))
    for step in range(config.max_steps):
        batch = next(loader)
        for group in stepper.param_groups:
            group["lr"] = group["peak"] * rate_share(step, config.max_steps, config.warmup)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            logits = model(batch["input_ids"], batch["attention_mask"])
        loss = F.cross_entropy(logits.float(), batch["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip)
        stepper.step()
        stepper.zero_grad()
        yield step, loss.item()
