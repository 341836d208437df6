"""The training loop. Every run takes its steps here, and so does every script that watches a model train."""

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from lora_from_scratch.extras.missed import without_gradient
from lora_from_scratch.finetune.parallel import accelerator_for, average_gradients
from lora_from_scratch.finetune.precision import pick_precision
from lora_from_scratch.finetune.recipe import TrainConfig, adamw, rate_share

IGNORED = -100  # the label of what no loss counts, such as a token of the prompt

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch], tuple[Tensor, ...]]


def class_scores(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """A classifier's loss: the cross-entropy of its logits [batch, labels]. Accuracy is measured with it."""
    logits, labels = model(batch["input_ids"], batch["attention_mask"]), batch["labels"]
    return F.cross_entropy(logits.float(), labels), (logits.argmax(1) == labels).float().mean()


def balanced_weights(labels: list[int], kinds: int) -> Tensor:
    """The weight n / (k n_c) of each of ``kinds`` labels: n rows, k labels that occur, n_c rows of label c; else 0."""
    counts = torch.bincount(torch.tensor(labels), minlength=kinds).float()
    return torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts), 0.0)


def weighted_scores(weights: Tensor) -> Loss:
    """``class_scores`` with each row's cross-entropy times the weight of its label, of ``weights`` [labels].

    The mean is over rows, not over weights, so that it is the same in whatever parts a batch is taken.
    """

    def scores(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, labels = model(batch["input_ids"], batch["attention_mask"]), batch["labels"]
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        return (weights.to(losses)[labels] * losses).mean(), (logits.argmax(1) == labels).float().mean()

    return scores


def steps(
    model: nn.Module,
    batches: Iterable[Batch],
    loss_of: Loss,
    config: TrainConfig,
    total: int,
    *,
    optimizer: Optimizer | None = None,
    accelerator: Accelerator | None = None,
    done: int = 0,
) -> Iterator[tuple[int, Tensor]]:
    """Train what requires a gradient in ``model``, in place, and yield after each update.

    Between two updates the model is yours: evaluate it, save it, look at its weights.

        for step, measured in steps(classifier.model, batches, class_scores, config, total=100):
            if step in (10, 100):
                print(step, measured[0].item(), evaluate(classifier, data.validation).accuracy)

    Args:
        batches: one for each update, all of whose tensors have the rows first. ``labels`` holds
            a target for each row or each token; those that are ``IGNORED`` don't count.
        loss_of: maps model and batch to the mean loss over the batch's targets, followed by
            whatever else is to be measured, means as well: ``class_scores``, for example.
        config: learning rates, warm-up, clipping, accumulation and precision. Its seed, epochs
            and ``max_steps`` have no effect here: batches and ``total`` decide.
        total: updates until the learning rate has fallen to 0, and the last one made.
        optimizer: AdamW as ``config`` describes it, unless you bring one. Its groups' learning
            rates are peaks, which the schedule scales.
        accelerator: the one ``model`` was prepared with; without it the model moves to the
            device that accelerate finds.
        done: updates that have been made already, by an earlier call.

    Yields: how many updates are made, and what the last one measured: [1 + whatever else], the
        loss first. It lies on the model's device, since reading it makes the CPU wait for a GPU.

    A warning after the first update names adapters that its backward pass did not reach.

    Raises:
        LoraError: nothing in the model trains, for one; see ``parameter_groups``.
    """
    if accelerator is None:
        accelerator = accelerator_for(pick_precision(config.precision))
        model.to(accelerator.device)
    optimizer = accelerator.prepare(optimizer or adamw(model, config))
    for group in optimizer.param_groups:
        group.setdefault("peak", group["lr"])
    for step, batch in enumerate(itertools.islice(batches, total - done), start=done):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_share(step, total, config.warmup)
        model.train()  # whatever it was put to in between
        yield step + 1, _update(model, batch, loss_of, optimizer, accelerator, config, step == done)


def _update(
    model: nn.Module, batch: Batch, loss_of: Loss, optimizer: Optimizer, accelerator: Accelerator, config: TrainConfig, first: bool
) -> Tensor:
    """One update with the gradient of the batch's mean loss; returns what was measured."""
    parts = _parts({name: tensor.to(accelerator.device) for name, tensor in batch.items()}, config.accumulate)
    counts = [(part["labels"] != IGNORED).sum() for part in parts]
    whole, measured = sum(counts), []
    for i, (part, count) in enumerate(zip(parts, counts, strict=True), start=1):
        share = count / whole  # of the batch's mean
        # Between processes gradients are averaged once, with the last part.
        with accelerator.no_sync(model) if i < len(parts) else nullcontext():
            with accelerator.autocast():
                loss, *others = loss_of(model, part)
            accelerator.backward(share * loss)
        measured.append(share * torch.stack([loss.detach(), *others]))
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    if config.shard_base:
        average_gradients(trained, accelerator)
    if config.clip:
        accelerator.clip_grad_norm_(trained, config.clip)
    optimizer.step()
    if first and (idle := without_gradient(accelerator.unwrap_model(model))):
        hint = "unless a later batch reaches them, they learn nothing; exclude_modules leaves them out"
        warnings.warn(f"no gradient in the first step: {', '.join(idle)}; {hint}", stacklevel=3)
    optimizer.zero_grad()
    return torch.stack(measured).sum(0)


def _parts(batch: Batch, parts: int) -> list[Batch]:
    """The batch cut into that many parts of about equally many rows, or into single rows if it has fewer."""
    cut = {name: tensor.chunk(parts) for name, tensor in batch.items()}
    return [dict(zip(cut, tensors, strict=True)) for tensors in zip(*cut.values(), strict=True)]
