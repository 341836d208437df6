"""A step makes no tensor anywhere but where the model is, and reads none back: what a GPU would stop at, or wait for.

The meta device stands for a GPU. It holds no values, so whatever is read from it counts as zero here.
"""

import contextlib
import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora_from_scratch import LoraConfig, adapter_rows, add_adapter, add_lora, quantize_linears
from lora_from_scratch.finetune.answers import answer_scores, answer_tokens, with_answers
from lora_from_scratch.finetune.language import empty_language_model
from lora_from_scratch.finetune.loop import weighted_scores
from tests.conftest import tiny_bert
from tests.core.test_meta import KINDS, NEED_VALUES

READ = torch.ops.aten._local_scalar_dense.default


class Watch(TorchDispatchMode):
    """Notes each operation with a tensor that isn't on the meta device, and each value that our own code reads from it."""

    def __init__(self):
        super().__init__()
        self.elsewhere, self.read = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is READ and args[0].is_meta:
            if "/lora_from_scratch/" in (caller := _caller()):
                self.read.append(caller)
            return args[0].dtype != torch.bool and 0
        out = func(*args, **(kwargs or {}))
        if any(isinstance(t, torch.Tensor) and not t.is_meta for t in tree_leaves((args, kwargs, out))):
            self.elsewhere.append(f"{func} at {_caller()}")
        return out


def _caller() -> str:
    """The file and line, outside of PyTorch and of this file, that the operation comes from."""
    return next(f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_stack()) if "/torch/" not in f.filename and f.filename != __file__)


@contextlib.contextmanager
def one_device():
    with Watch() as watch:
        yield
    assert not watch.elsewhere, watch.elsewhere
    assert not watch.read, watch.read


def bert_batch():
    ids = torch.zeros(5, 7, dtype=torch.long, device="meta")
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0]}


def adapted(**fields):
    model = tiny_bert()
    return add_lora(model, LoraConfig(**{"r": 2, "alpha": 4, "target_modules": ("query", "value")} | fields))


VARIANTS = {name: fields for name, (_, fields) in KINDS.items() if name in ("lora", "gaussian", "vera")} | NEED_VALUES


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_of_every_variant(variant):
    model = adapted(**VARIANTS[variant]).to("meta").train()
    with one_device():
        model(**bert_batch()).loss.backward()
    assert all(p.grad.is_meta for p in model.parameters() if p.requires_grad)


def test_a_step_on_a_base_of_four_bits():
    model = quantize_linears(tiny_bert(), ("query", "value"))
    add_lora(model, LoraConfig(4, 8, ("query", "value"))).to("meta")
    with Watch():  # the sixteen levels are made once, and kept on each device
        model(**bert_batch())
    with one_device():
        model(**bert_batch()).loss.backward()


def test_a_step_with_dropout_and_with_weighted_labels():
    model = adapted(dropout=0.1).to("meta").train()
    weights = torch.ones(3, device="meta")
    with one_device():
        loss, _ = weighted_scores(weights)(lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits, bert_batch())
        loss.backward()


def test_one_adapter_a_row():
    with torch.device("meta"):
        model = adapted()
    add_adapter(model, "other", LoraConfig(2, 4, ("query", "value")))
    ids = bert_batch()["input_ids"]
    with torch.no_grad(), adapter_rows(model, ["default", "other", None, "default", "other"]):
        with Watch():  # the first batch is tried out on a few rows, and the answers are read
            model(input_ids=ids)
        with one_device():
            assert model(input_ids=ids).logits.is_meta


@pytest.fixture(scope="module")
def language_model():
    return add_lora(empty_language_model("smollm2"), LoraConfig(4, 8, "all-linear"))


def test_a_step_of_a_language_model(language_model):
    batch = {name: t.to("meta") for name, t in with_answers([[5, 6, 7], [8, 9]], [[3], [4, 5]], pad=0).items()}
    with one_device():
        loss, right = answer_tokens()(language_model, batch)
        loss.backward()
    assert loss.is_meta and right.is_meta


def test_the_scores_of_a_language_model(language_model):
    ids = torch.zeros(2, 6, dtype=torch.long, device="meta")
    with one_device(), torch.no_grad():
        assert answer_scores(language_model, ids, torch.ones_like(ids), [[3], [4, 5]]).is_meta
