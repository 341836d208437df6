"""Fine-tuning a classifier: one loop for one process or many, on a CPU or a GPU."""

import math
from dataclasses import asdict

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lora_from_scratch.finetune.batches import LengthBuckets, epochs, train_batches
from lora_from_scratch.finetune.classifier import TextClassifier
from lora_from_scratch.finetune.compiling import compiled_blocks, uncompiled
from lora_from_scratch.finetune.data import TextData
from lora_from_scratch.finetune.evaluate import Metrics, check_labels, evaluate, in_words
from lora_from_scratch.finetune.failures import Collapsed, TrainingFailed, advise
from lora_from_scratch.finetune.head import fit_head
from lora_from_scratch.finetune.history import History, Stopwatch
from lora_from_scratch.finetune.loop import Loss, balanced_weights, steps
from lora_from_scratch.finetune.parallel import accelerator_for, check_shares, gradient_checkpointing, prepare_model
from lora_from_scratch.finetune.precision import frozen_linears_in, pick_precision
from lora_from_scratch.finetune.progress import Progress
from lora_from_scratch.finetune.recipe import TrainConfig, adamw
from lora_from_scratch.finetune.resume import Checkpoint, Keeper, live_tensors
from lora_from_scratch.finetune.settings import run_settings

LOG_EVERY = 20  # steps


def finetune(
    classifier: TextClassifier, data: TextData, config: TrainConfig, checkpoint: Checkpoint | None = None
) -> History:
    """Train what requires a gradient in ``classifier.model``, in place.

    Minimises the cross-entropy of the training rows with AdamW, linear warm-up and
    linear decay (``steps``). Evaluates on validation after each epoch, never on test. Under
    ``accelerate launch`` the processes share each batch: the steps are those of
    one process, up to rounding. Only a last, short batch is filled up, with rows of the first.

    With a ``checkpoint`` to resume from, a run that was killed ends with the same bits as one
    that never was: in one process on a CPU, with the same software. Elsewhere that holds as far as the
    device and the sums over processes repeat themselves. Build the model as you did the first time.

    Raises:
        TrainingFailed: the loss became NaN or infinite, or (``Collapsed``) at the end every validation
            row gets the same label. (After an earlier epoch that is only reported, since a run may
            recover; and so it is if ``config.keep`` is "best" and there was a better epoch.) The model is then
            as it was after its last good epoch, or at the
            start, and ``.history`` holds what was measured until then.
        LoraError: nothing in the model trains, the data has other labels than the classifier,
            the head cannot be fitted first, the processes cannot share the batch or the base
            (``shard_base``), the checkpoint cannot be written or resumed from (``Keeper``), or
            the base cannot be compiled (``compile``).
    """
    check_labels(classifier, data)
    optimizer = adamw(classifier.model, config)
    precision = pick_precision(config.precision)
    accelerator = accelerator_for(precision)
    check_shares(config, accelerator.num_processes)
    torch.manual_seed(config.seed + accelerator.process_index)  # dropout
    loader = train_batches(classifier, data.train, config)
    sampler = loader.batch_sampler
    assert isinstance(sampler, LengthBuckets)
    model = prepare_model(classifier.model, accelerator, config.shard_base)
    optimizer, loader = accelerator.prepare(optimizer, loader)

    run = _Run(classifier, data, config, accelerator, optimizer, sampler, precision, checkpoint)
    run.begin()
    try:
        with (
            # A base in shares stays as it is: its tensors are not whole here.
            frozen_linears_in(classifier.model, "fp32" if config.shard_base else precision),
            gradient_checkpointing(classifier.base, config.gradient_checkpointing),
            compiled_blocks(classifier.base, config.compile),
        ):
            batches, loss, total = epochs(loader, sampler, run.step), run.loss(), run.step if run.ended else run.total
            for step, measured in steps(
                model, batches, loss, config, total, optimizer=optimizer, accelerator=accelerator, done=run.step
            ):
                run.after_step(step, measured)
                if run.ended:
                    break
    except TrainingFailed as failure:
        failure.history = run.history
        classifier.model.load_state_dict(run.good, strict=False)
        raise
    finally:
        run.progress.close()
    return run.history


class _Run:
    """What ``finetune`` does around its steps: log, evaluate after an epoch, keep a checkpoint."""

    def __init__(
        self,
        classifier: TextClassifier,
        data: TextData,
        config: TrainConfig,
        accelerator: Accelerator,
        optimizer,
        sampler: LengthBuckets,
        precision: str,
        checkpoint: Checkpoint | None,
    ):
        self.classifier, self.data, self.config, self.accelerator = classifier, data, config, accelerator
        self.optimizer, self.sampler = optimizer, sampler
        self.total = config.max_steps or config.epochs * len(sampler)
        self.step = 0
        self.window: list[Tensor] = []  # what was measured since the last log line
        self.history = History(precision, str(accelerator.device), accelerator.num_processes)
        self.good = _trained_state(classifier.model)  # after the last epoch that ended well
        settings = run_settings(classifier, data, config) | {"train_rows": len(data.train), "precision": precision}
        self.keeper = Keeper(checkpoint, accelerator, settings, self._live)

    def loss(self) -> Loss:
        """What is minimised."""
        balanced = balanced_weights(self.data.train.labels, len(self.classifier.label_names))
        return self.classifier.loss(balanced if self.config.class_weights else None)

    @property
    def ended(self) -> bool:
        """Whether no step is left, or validation has not improved for as many epochs as ``patience`` says."""
        patience = self.config.patience
        return self.step == self.total or patience is not None and self.history.waited() >= patience

    def begin(self) -> None:
        """Resume from the checkpoint; or fit the head, if it comes first, and save the start."""
        saved, self.window, note = self.keeper.load(step=0, history=asdict(self.history))
        self.step, self.history = saved["step"], History(**saved["history"])
        show = self.accelerator.is_main_process
        self.progress = Progress(self.total, self.config.batch_size, show=show, done=self.step)
        longest = self.classifier.longest
        cut = sum(length == longest for length in self.sampler.lengths) / len(self.sampler.lengths)
        if cut > 0.01:
            self.progress.note(f"{cut:.1%} of the training texts reach {longest} tokens and may be cut there")
        if note:
            self.progress.note(note)
        if self.step:
            self.history.resumed_at.append(self.step)
        else:
            if self.config.head_first:
                self._fit_head()
            self._save()  # at once: a folder that cannot be written to shows now, not after hours
        self.watch = Stopwatch(self.history)

    def after_step(self, step: int, measured: Tensor) -> None:
        """Log, evaluate and save what is due after ``step`` steps."""
        self.step = step
        self.window.append(measured)
        if step % LOG_EVERY == 0 or step == self.total:
            self._log()
        if step % len(self.sampler) == 0 or step == self.total:
            with self.watch.stopped():
                self._end_epoch()
                self._save()
        elif self.keeper.due(step):
            with self.watch.stopped():
                self._save()

    def _log(self) -> None:
        loss, accuracy = self.accelerator.reduce(torch.stack(self.window).mean(0), "mean").tolist()
        self.window.clear()
        if not math.isfinite(loss):
            raise TrainingFailed(f"the loss became {loss} by step {self.step} of {self.total}", self.config.lr)
        rate = self.optimizer.param_groups[0]["lr"]
        self.history.steps.append({"step": self.step, "loss": loss, "accuracy": accuracy, "lr": rate})
        self.progress.update(self.step, loss, accuracy)

    def _end_epoch(self) -> None:
        epoch = math.ceil(self.step / len(self.sampler))
        self.window.clear()
        metrics = self._evaluate()
        best = self.history.epochs[self.history.good_epoch - 1]["macro_f1"] if self.history.good_epoch else -1.0
        self.history.epochs.append({"epoch": epoch, "accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1})
        self.progress.note(f"epoch {epoch}: validation {in_words(metrics)}")
        if metrics.collapsed:
            self.progress.note(f"COLLAPSED: {self._collapse(metrics, epoch)}")
        elif self.config.keep == "last" or metrics.macro_f1 > best:
            self.good, self.history.good_epoch = _trained_state(self.classifier.model), epoch
        if self.ended:
            self._finish(metrics, epoch)

    def _finish(self, metrics: Metrics, epoch: int) -> None:
        """Leave the model as it is to be kept."""
        config, good = self.config, self.history.good_epoch
        if self.step < self.total:
            self.progress.note(f"stopped: no better macro-F1 since epoch {epoch - self.history.waited()}")
        if metrics.collapsed and (config.keep == "last" or not good):
            label, labels, weights = metrics.predictions[0], self.data.train.labels, _trained_state(self.classifier.model)
            endless = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
            if endless:  # by the very last update: no loss has shown it
                raise TrainingFailed(f"{endless[0]} became nan or infinite by step {self.step} of {self.total}", config.lr)
            advice = advise(self.classifier.label_names[label], labels.count(label) / len(labels), config, epoch)
            raise Collapsed(self._collapse(metrics, epoch), config.lr, advice, weights)
        if good != epoch:
            self.classifier.model.load_state_dict(self.good, strict=False)
            self._evaluate()
            self.progress.note(f"kept: epoch {good}")

    def _evaluate(self) -> Metrics:
        with self.accelerator.autocast(), uncompiled():  # in the run's own precision
            metrics = evaluate(self.classifier, self.data.validation)
        self.history.validation = metrics
        return metrics

    def _collapse(self, metrics: Metrics, epoch: int) -> str:
        return f"after epoch {epoch} every validation row is called {self.classifier.label_names[metrics.predictions[0]]!r}"

    def _fit_head(self) -> None:
        watch = Stopwatch(self.history)
        with self.accelerator.autocast():  # in the run's own precision
            right = fit_head(self.classifier, self.data.train, self.config.class_weights)
        self.progress.note(f"head first: it gets {right:.4f} of the training rows right")
        self.good = _trained_state(self.classifier.model)
        watch.lap()

    def _save(self) -> None:
        self.keeper.save(self.window, step=self.step, history=asdict(self.history))

    def _live(self) -> dict[str, Tensor]:
        return live_tensors(self.classifier.model, self.optimizer, self.good)


def _trained_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
