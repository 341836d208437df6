"""Fine-tuning: one loop for one process or many, on a CPU or a GPU."""

import itertools
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.batches import LengthBuckets, tokenise, train_loader
from lora_from_scratch.finetune.data import TextData
from lora_from_scratch.finetune.evaluate import Metrics, check_labels, evaluate
from lora_from_scratch.finetune.head import fit_head
from lora_from_scratch.finetune.model import TextClassifier
from lora_from_scratch.finetune.parallel import (
    average_gradients,
    gradient_checkpointing,
    on_cpu,
    shard_base,
)
from lora_from_scratch.finetune.precision import frozen_linears_in, padded_to, pick_precision
from lora_from_scratch.finetune.progress import Progress
from lora_from_scratch.finetune.recipe import TrainConfig, parameter_groups, rate_share
from lora_from_scratch.finetune.resume import Checkpoint, Keeper, live_tensors, run_settings

LOG_EVERY = 20  # steps


class TrainingFailed(LoraError):
    """The loss became NaN or the predictions collapsed; the model holds its last good state."""

    history: "History"  # how far it came; ``finetune`` hands it over

    def __init__(self, what: str, lr: float):
        super().__init__(
            f"{what}, at learning rate {lr:g}; the model is as after its last good epoch. "
            "Try a lower learning rate"
        )


@dataclass
class History:
    """What a run measured on its way, and at its end."""

    precision: str
    device: str
    processes: int = 1
    steps: list[dict] = field(default_factory=list)  # step, loss, accuracy, lr
    epochs: list[dict] = field(default_factory=list)  # epoch, accuracy, macro_f1
    good_epoch: int = 0  # the last whose predictions had not collapsed; 0: none yet
    validation: Metrics | None = None
    train_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process's threads: a busy machine lengthens it far less
    resumed_at: list[int] = field(default_factory=list)  # steps

    def __post_init__(self):
        if isinstance(self.validation, dict):  # as a checkpoint gives it back
            self.validation = Metrics(**self.validation)

    def trained_since(self, started: tuple[float, float]) -> None:
        """Add the time since ``started``, as ``_clocks`` gave it, to the training's."""
        now = _clocks()
        self.train_seconds += now[0] - started[0]
        self.cpu_seconds += now[1] - started[1]


def finetune(
    classifier: TextClassifier, data: TextData, config: TrainConfig, checkpoint: Checkpoint | None = None
) -> History:
    """Train what requires a gradient in ``classifier.model``, in place.

    Minimises the cross-entropy of the training rows with AdamW, linear warm-up and
    linear decay. Evaluates on validation after each epoch, never on test. Under
    ``accelerate launch`` each batch is shared out over the processes: the steps are those of
    one process, up to rounding. Only a last, short batch is filled up, with rows of the first.

    With a ``checkpoint`` to resume, a run that was killed ends with the same bits as one
    that never was: in one process on a CPU, with the same software; elsewhere as far as the
    device and the sums over processes repeat themselves. Build the model as it was then.

    Raises:
        TrainingFailed: the loss became NaN or infinite, or at the end every validation
            row gets the same label (after an earlier epoch that is only said: a run may
            recover). The model is then as it was after its last good epoch, or at the
            start, and ``.history`` tells how far it came.
        LoraError: nothing in the model trains, the data's labels are not the classifier's, the head cannot be fitted first,
            the batch cannot be shared out, the base cannot (``shard_base``), or the
            checkpoint cannot be gone on from or written (``Keeper``).
    """
    check_labels(classifier, data)
    model = classifier.model
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config),
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=not torch.backends.mps.is_available(),  # one call for all tensors, not ten for each
    )
    precision = pick_precision(config.precision)
    AcceleratorState._reset_state()  # else a process could train in one precision only
    accelerator = Accelerator(
        cpu=on_cpu(),
        mixed_precision="no" if precision == "fp32" else precision,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    processes, parts = accelerator.num_processes, config.accumulate
    if config.batch_size % (processes * parts):
        shares = f"{processes} processes" + (f" x {parts} parts" if parts > 1 else "")
        raise LoraError(f"batch_size {config.batch_size} is no multiple of {shares}")

    torch.manual_seed(config.seed + accelerator.process_index)  # dropout
    tokenizer = classifier.tokenizer
    ids = tokenise(tokenizer, data.train.texts, classifier.max_length)
    pad, multiple = tokenizer.pad_token_id, padded_to(precision)
    loader = train_loader(ids, data.train.labels, pad, config.batch_size, config.seed, multiple)
    sampler = loader.batch_sampler
    assert isinstance(sampler, LengthBuckets)
    total = config.max_steps or config.epochs * len(sampler)
    if config.shard_base:
        accelerator.print(shard_base(model, accelerator))
    else:
        model = accelerator.prepare(model)
        # It also wraps the model's forward in autocast, for good: later runs would compute in 16 bits, too.
        accelerator.unwrap_model(classifier.model, keep_fp32_wrapper=False)
    optimizer, loader = accelerator.prepare(optimizer, loader)
    if config.gradient_checkpointing:
        gradient_checkpointing(classifier.model.backbone, True)

    history = History(precision, str(accelerator.device), processes)
    good = _trained_state(classifier.model)

    def live() -> dict[str, Tensor]:
        return live_tensors(classifier.model, optimizer, good)

    settings = run_settings(classifier, data, config) | {"train_rows": len(ids), "precision": precision}
    keeper = Keeper(checkpoint, accelerator, settings, live)
    run, window, note = keeper.load(step=0, epoch=0, seen=0, history=asdict(history))
    step, epoch, seen, history = run["step"], run["epoch"], run["seen"], History(**run["history"])

    def save() -> None:
        keeper.save(window, step=step, epoch=epoch, seen=seen, history=asdict(history))

    progress = Progress(total, config.batch_size, show=accelerator.is_main_process, done=step)
    cut = sum(len(row) == classifier.max_length for row in ids) / len(ids)
    if cut > 0.01:
        progress.note(f"{cut:.1%} of the training texts reach {classifier.max_length} tokens and may be cut there")
    if note:
        progress.note(note)
    if step:
        history.resumed_at.append(step)
    else:
        if config.head_first:
            started = _clocks()
            with accelerator.autocast():  # in what the run computes in
                right = fit_head(classifier, data.train)
            progress.note(f"head first: it gets {right:.4f} of the training rows right")
            good = _trained_state(classifier.model)
            history.trained_since(started)
        # At once: a folder that cannot be written shows now, not after hours.
        save()
    try:
        while step < total:
            loader.set_epoch(epoch)  # else the prepared loader counts for itself, from 0
            sampler.set_epoch(epoch)  # and for several processes it does not pass that on
            started = _clocks()
            model.train()
            # A base in shares stays as it is: its tensors are not whole here.
            with frozen_linears_in(classifier.model, "fp32" if config.shard_base else precision):
                for batch in itertools.islice(loader, seen, seen + total - step):
                    for group in optimizer.param_groups:
                        group["lr"] = group["peak"] * rate_share(step, total, config.warmup)
                    window.append(_step(model, batch, optimizer, accelerator, config))
                    step, seen = step + 1, seen + 1
                    if step % LOG_EVERY == 0 or step == total:
                        loss, accuracy = accelerator.reduce(torch.stack(window).mean(0), "mean").tolist()
                        window.clear()
                        if not math.isfinite(loss):
                            raise TrainingFailed(f"the loss became {loss} by step {step} of {total}", config.lr)
                        rate = optimizer.param_groups[0]["lr"]
                        history.steps.append({"step": step, "loss": loss, "accuracy": accuracy, "lr": rate})
                        progress.update(step, loss, accuracy)
                    if keeper.due(step):
                        history.trained_since(started)
                        save()
                        started = _clocks()
            history.trained_since(started)
            epoch, seen = epoch + 1, 0
            window.clear()
            with accelerator.autocast():  # in what the run computes in
                metrics = evaluate(classifier, data.validation)
            history.validation = metrics
            history.epochs.append({"epoch": epoch, "accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1})
            progress.note(
                f"epoch {epoch}: validation accuracy {metrics.accuracy:.4f}, macro-F1 {metrics.macro_f1:.4f}"
            )
            if metrics.collapsed:
                label = classifier.label_names[metrics.predictions[0]]
                collapse = f"after epoch {epoch} every validation row is called {label!r}"
                progress.note(f"COLLAPSED: {collapse}")
                if step == total:
                    raise TrainingFailed(collapse, config.lr)
            else:
                good, history.good_epoch = _trained_state(classifier.model), epoch
            save()
    except TrainingFailed as failure:
        failure.history = history
        classifier.model.load_state_dict(good, strict=False)
        raise
    finally:
        progress.close()
        if config.gradient_checkpointing:
            gradient_checkpointing(classifier.model.backbone, False)
    return history


def _clocks() -> tuple[float, float]:
    """Seconds by the clock, and seconds of computing."""
    return time.perf_counter(), time.process_time()


def _step(model: nn.Module, batch: dict, optimizer, accelerator: Accelerator, config: TrainConfig) -> Tensor:
    """One update. Returns loss and accuracy as one tensor: reading them would wait for a GPU."""
    rows, measured = len(batch["labels"]), torch.zeros(2, device=batch["labels"].device)
    parts = list(zip(*(batch[key].chunk(config.accumulate) for key in ("input_ids", "attention_mask", "labels")), strict=True))
    for i, (ids, mask, labels) in enumerate(parts, start=1):
        share = len(labels) / rows  # of the step's mean
        # Between processes gradients are averaged once, with the last part.
        with accelerator.no_sync(model) if i < len(parts) else nullcontext():
            with accelerator.autocast():
                logits = model(ids, mask)
            loss = share * F.cross_entropy(logits.float(), labels)
            accelerator.backward(loss)
        measured += torch.stack([loss.detach(), share * (logits.argmax(1) == labels).float().mean()])
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    if config.shard_base:
        average_gradients(trained, accelerator)
    if config.clip:
        accelerator.clip_grad_norm_(trained, config.clip)
    optimizer.step()
    optimizer.zero_grad()
    return measured


def _trained_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
