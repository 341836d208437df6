"""Where a run computes, in how many processes, and what a model too large for one device needs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.recipe import TrainConfig
from lora_from_scratch.slots import adapters_of, is_adapted
from lora_from_scratch.targets import head_modules


def on_cpu() -> bool:
    """Whether this machine computes on its CPU: there accelerate looks for other processes only if told to."""
    return not torch.accelerator.is_available()


def processes() -> PartialState:
    """Which of the processes this is that ``accelerate launch`` or ``torchrun`` started."""
    return PartialState(cpu=on_cpu())


def accelerator_for(precision: str, cpu: bool | None = None) -> Accelerator:
    """What places tensors, rounds and averages for a run in "fp32", "bf16" or "fp16".

    Args:
        cpu: compute on the CPU; None means only where there is nothing faster.
    """
    AcceleratorState._reset_state()  # otherwise a process could train in one precision only
    return Accelerator(
        cpu=on_cpu() if cpu is None else cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )


def check_shares(config: TrainConfig, processes: int) -> None:
    """Refuse a batch that ``processes`` cannot share, and a base that a single one would share with nobody.

    Raises:
        LoraError: says which.
    """
    if config.batch_size % (processes * config.accumulate):
        parts = f" x {config.accumulate} parts" if config.accumulate > 1 else ""
        shares = f"{processes} process{'es' if processes > 1 else ''}{parts}"
        raise LoraError(f"batch_size is {config.batch_size}, expected a multiple of {shares}")
    if config.shard_base and processes == 1:
        raise LoraError("shard_base shares the base out over several processes, and there is one: start it with accelerate launch")


def prepare_model(model: nn.Module, accelerator: Accelerator, shard: bool) -> nn.Module:
    """Place ``model`` on this process's device, its base in shares if ``shard``; returns what has to be called in training.

    Raises:
        LoraError: see ``shard_base``.
    """
    if shard:
        accelerator.print(shard_base(model, accelerator))
        return model
    prepared = accelerator.prepare(model)
    # It also wraps the model's forward in autocast, for good: later runs would compute in 16 bits, too.
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return prepared


def shard_base(model: nn.Module, accelerator: Accelerator) -> str:
    """Share the frozen parameters of ``model`` out over the processes, in place, for good.

    Of every frozen tensor each of n processes keeps 1/n. A block of the encoder is
    gathered when the forward or the backward pass comes to it, and released afterwards
    (FSDP: Zhao et al. 2023, arXiv:2304.11277). What trains is small; every process keeps
    it whole, so an adapter is saved as usual, and its gradients are averaged by
    ``average_gradients``. From now on every process has to run the same passes.

    Returns: how much each process keeps, in words.

    Raises:
        LoraError: the base itself trains.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    trained = {p for p in model.parameters() if p.requires_grad}
    heads = sum(p.numel() for name in head_modules(model) for p in model.get_submodule(name).parameters())
    if not is_adapted(model) and sum(p.numel() for p in trained) > heads:
        raise LoraError("shard_base needs a frozen base, but here base weights train")
    for tensor in trained:
        tensor.data = tensor.data.to(accelerator.device)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for blocks in [m for m in model.modules() if isinstance(m, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block, mesh=mesh, ignored_params=trained)
    fully_shard(model, mesh=mesh, ignored_params=trained)
    if is_adapted(model):
        _hand_on(model)
    shares = (p.to_local() for p in model.parameters() if not p.requires_grad)  # type: ignore[attr-defined]  # DTensors now
    kept = sum(share.numel() for share in shares)
    return f"each of {accelerator.num_processes} processes keeps {kept:,} of the base's {frozen:,} frozen parameters"


def _hand_on(model: nn.Module) -> None:
    """Give the shares to the base's own modules as well, which wait outside the model.

    Otherwise they would hold on to the whole tensors, and nothing would have been saved.
    """
    for path, module in adapters_of(model).base.items():
        now = model.get_submodule(path)
        for name, _ in list(module.named_parameters(recurse=False)):
            if not getattr(now, name).requires_grad:
                setattr(module, name, getattr(now, name))


def average_gradients(trained: list[Tensor], accelerator: Accelerator) -> None:
    """Replace each gradient by its mean over the processes, all of them in one message."""
    own = torch.cat([p.grad.flatten() for p in trained])  # type: ignore[union-attr]  # every p took part in the loss
    flat = accelerator.reduce(own, "mean")
    for p, mean in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
        p.grad = mean.view_as(p)


@contextmanager
def gradient_checkpointing(encoder: nn.Module, on: bool) -> Iterator[None]:
    """Within it, if ``on``, training keeps only each block's input and computes the rest again in the backward pass."""
    # transformers 6 has other names for these methods.
    prefix = "activation" if hasattr(encoder, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(encoder, f"{prefix}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        if on:
            getattr(encoder, f"{prefix}_checkpointing_disable")()
