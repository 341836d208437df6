"""What one training step holds in memory: predicted from shapes, and counted."""

import re
import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_from_scratch.finetune.model import EncoderClassifier
from lora_from_scratch.layers import LoRALinear
from lora_from_scratch.slots import lora_layers

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # a module elsewhere

FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class StepMemory:
    """Bytes that one training step holds, by what they are for."""

    weights: int  # all parameters, trained or frozen
    gradients: int  # one value for each trained parameter
    optimizer: int  # AdamW's two means for each trained parameter
    activations: int  # what the forward pass keeps for the backward pass
    peak: int | None = None  # of the whole step, as a CUDA device counts it

    @property
    def total(self) -> int:
        """The four parts together; the true peak is close to it (gradients grow while
        activations are freed, and every operation needs room for its result)."""
        return self.weights + self.gradients + self.optimizer + self.activations


def predict_memory(model: EncoderClassifier, batch: int, tokens: int) -> StepMemory:
    """Bytes of a float32 AdamW step on ``batch`` rows of ``tokens`` tokens, from shapes alone.

    With P parameters of which n train: weights 4 P, gradients 4 n, optimiser 8 n. For
    each token the forward pass keeps (``kept_per_token``) floats of 4 bytes. ``model``
    may be on the meta device. Meant for BERT-like encoders with unfused attention and
    dropout 0, in each block of which something trains.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return StepMemory(
        weights=FLOAT * sum(p.numel() for p in model.parameters()),
        gradients=FLOAT * trained,
        optimizer=2 * FLOAT * trained,
        activations=FLOAT * batch * tokens * kept_per_token(model, tokens),
    )


def kept_per_token(model: EncoderClassifier, tokens: int) -> int:
    """Floats that the forward pass keeps for each token of a row of ``tokens``.

    With width h, inner width f and a heads, each block keeps, whether its weights train
    or not: q, k and v (3 h), one attention row for each head (a tokens), the inputs of
    two layer norms with mean and deviation (2 h + 4) and GELU's input (f). To this comes
    the input of every linear layer that trains or is adapted (one for q, k and v together),
    and r values, A x, for each adapter. Embeddings that train keep h + 2, the pooling 1.
    """
    config = model.backbone.config
    width, heads, blocks = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or config.hidden_dim
    inputs = {}
    for name, module in model.backbone.named_modules():
        trains = isinstance(module, nn.Linear) and module.weight.requires_grad
        if trains or isinstance(module, LoRALinear):
            inputs[re.sub(r"(query|key|value|[qkv]_lin)$", "qkv", name)] = module.in_features
    always = blocks * (5 * width + inner + heads * tokens + 4) + 1
    embeddings = width + 2 if model.backbone.get_input_embeddings().weight.requires_grad else 0
    ranks = sum(layer.r for _, layer in lora_layers(model))
    return always + embeddings + sum(inputs.values()) + ranks


def measure_memory(model: EncoderClassifier, batch: int, tokens: int, device="cpu") -> StepMemory:
    """Bytes that a real float32 AdamW step on random tokens holds, counted tensor by tensor.

    The step has learning rate 0, so the model stays as it was; it is moved to ``device``
    meanwhile. Activations are the storages that autograd saves, each counted once, those
    of parameters and buffers left out. On a CUDA device ``peak`` is filled in as well:
    for it to mean this model alone, nothing else should be on the device.
    """
    device = torch.device(device)
    home, training = next(model.parameters()).device, model.training
    vocabulary = model.backbone.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary // 2, vocabulary, (batch, tokens), generator=generator)
    ids = ids.to(device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0)
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with SavedTensors(model) as saved:
            loss = F.cross_entropy(model(ids, torch.ones_like(ids)), labels)
        activations = saved.bytes
        loss.backward()
        optimizer.step()
        return StepMemory(
            weights=_bytes(model.parameters()),
            gradients=_bytes(p.grad for p in trained if p.grad is not None),
            optimizer=_bytes(t for state in optimizer.state.values() for t in state.values()),
            activations=activations,
            peak=torch.cuda.max_memory_allocated(device) if on_cuda else None,
        )
    finally:
        model.zero_grad()
        model.to(home).train(training)


def peak_memory() -> int | None:
    """The most bytes of main memory that this process has ever held; None where the system does not say."""
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class SavedTensors(torch.autograd.graph.saved_tensors_hooks):
    """While open, counts what autograd saves: ``bytes``, each storage once, without ``model``'s own tensors."""

    def __init__(self, model: nn.Module):
        own = [*model.parameters(), *model.buffers()]
        self._known = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._kept: list[Tensor] = []  # alive while counting, so that no address is reused
        self.bytes = 0
        super().__init__(self._note, lambda tensor: tensor)

    def __enter__(self):
        super().__enter__()
        return self

    def __exit__(self, *error):
        self._kept.clear()
        super().__exit__(*error)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self._kept.append(tensor.detach())
            self.bytes += storage.nbytes()
        return tensor.detach()  # an operation that saved its own output would never be freed


def _bytes(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
