"""Rows of a batch and their adapters in models of any layout: each row gets its own, or the model is refused."""

import pytest
import torch
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, adapter_rows, add_adapter, add_lora, disable_adapter, set_adapter
from tests.conftest import tiny_bert
from tests.core.test_adapters import randomise
from tests.tiny_models import MODELS, batch, make

UNSHOWN = "has not shown that entry i of its first dimension is row i of the batch"
UNCALLED = "trains in full, but the model did not call it, though its output depends on it"


class Scored(nn.Linear):
    """A head with a method of its own."""

    def score(self, x):
        return self.forward(x)


class Bare(nn.Module):
    """A head that holds parameters and computes nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))


class Net(nn.Module):
    """A linear layer, adapted, and a head, in a layout of many."""

    def __init__(self, layout, head=None):
        super().__init__()
        torch.manual_seed(0)
        self.layout, self.lin = layout, nn.Linear(4, 4)
        self.mix = nn.MultiheadAttention(4, 1)
        self.head = head or nn.Linear(4, 4)

    def forward(self, x):
        return getattr(self, self.layout)(x)

    def head_called(self, x):
        return self.head(self.lin(x))

    def head_in_a_list(self, x):
        return self.head[0](self.lin(x))

    def head_by_another_method(self, x):
        return self.head.score(self.lin(x))

    def head_as_parameters(self, x):
        return self.lin(x) @ self.head.weight

    def head_in_vain(self, x):
        return self.lin(x)

    def time_first(self, x):
        return self.lin(x.transpose(0, 1)).transpose(0, 1)

    def expert(self, x):
        y, at = torch.zeros_like(x), x[..., 0] > 0
        y[at] = self.lin(x[at])
        return y

    def flattened(self, x):
        return self.lin(x.flatten(0, 1)).view_as(x)

    def windows(self, x):
        return self.lin(x.reshape(-1, 2, 4)).view_as(x)

    def backwards(self, x):
        return self.lin(x.flip(0)).flip(0)

    def sorted_by_content(self, x):
        order = x.flatten(1).sum(1).argsort()
        return self.lin(x[order])[order.argsort()]

    def rows_mixed(self, x):  # attention with the time first, of a batch that comes with the time first
        return self.lin(self.mix(x, x, x)[0])

    def first_position(self, x):
        return self.lin(x[:, 0])

    def mean(self, x):
        return self.lin(x.mean(1))

    def one_for_all(self, x):
        return self.lin(x[:1]) + x


def two(model, targets=("lin",), saved=()):
    config = LoraConfig(2, 4, targets, modules_to_save=saved)
    add_lora(model, config)
    randomise(model, 1)
    add_adapter(model, "b", config)
    randomise(model, 2)
    return model


@torch.no_grad()
def one_at_a_time(model, names, *args, **kwargs):
    rows = []
    for i, name in enumerate(names):
        if name is None:
            with disable_adapter(model):
                rows.append(model(*args, **kwargs)[i])
        else:
            rows.append(set_adapter(model, name)(*args, **kwargs)[i])
    return torch.stack(rows)


def assert_right(model, names, x):
    wanted = one_at_a_time(model, names, x)
    with torch.no_grad(), adapter_rows(model, names):
        assert torch.allclose(model(x), wanted, rtol=1e-4, atol=1e-5)


LAYOUTS = {
    "head_in_a_list": (nn.ModuleList([nn.Linear(4, 4)]), UNCALLED), "head_by_another_method": (Scored(4, 4), UNCALLED),
    "head_as_parameters": (Bare(), UNCALLED), "time_first": (None, UNSHOWN), "backwards": (None, UNSHOWN),
    "sorted_by_content": (None, UNSHOWN), "rows_mixed": (None, UNSHOWN), "windows": (None, UNSHOWN),
    "flattened": (None, "is given 16 rows, but adapter_rows names 4 adapters"), "one_for_all": (None, "is given 1 rows"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_does_not_keep_the_rows_is_refused(layout):
    head, message = LAYOUTS[layout]
    model = two(Net(layout, head), saved=("head",) if head else ())
    x, names = torch.randn(4, 4, 4), ["default", "b", None, "b"]
    if layout == "windows":  # two rows of four positions in windows of two are four windows; here of one row and another
        x = torch.randn(2, 4, 4)
        with pytest.raises(LoraError, match="is given 2 rows"), adapter_rows(model, names):
            model(x)
        x, message = torch.randn(4, 4, 4), "is given 8 rows"
    for _ in range(2):  # it stays refused
        with pytest.raises(LoraError, match=message), adapter_rows(model, names):
            model(x)


@pytest.mark.parametrize("layout", ["head_called", "first_position", "mean", "head_in_vain"])
@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 1, 4), (4, 7, 4)])
def test_a_layout_that_keeps_the_rows_is_right(layout, shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    model = two(Net(layout), saved=("head",) if layout.startswith("head") else ())
    assert_right(model, ["default", "b", None, "b"], x)


@pytest.mark.parametrize("tokens", [1, 2, 3, 5])
def test_an_expert_is_refused_or_right_whatever_it_gets(tokens):
    model, generator = two(Net("expert")), torch.Generator().manual_seed(0)
    for step in range(150):
        rows = 2 + step % 3
        x = torch.randn(rows, 1 if step < 20 else tokens, 4, generator=generator)
        try:
            assert_right(model, [("default", "b", None)[i % 3] for i in range(rows)], x)
        except LoraError:
            continue
        assert x.shape[1] == 1


@pytest.mark.parametrize("names", [["b", "b", "b"], [None, None, None]])
def test_where_all_rows_have_one_adapter_any_layout_will_do(names):
    assert_right(two(Net("time_first")), names, torch.randn(3, 3, 4))
    with pytest.raises(LoraError, match=UNCALLED), adapter_rows(two(Net("head_in_a_list", nn.ModuleList([nn.Linear(4, 4)])), saved=("head",)), ["b", "b"]) as model:
        model(torch.randn(2, 4))


CASES = [(name, content) for name in sorted(MODELS) for content in ("its own", "as many tokens as rows")]
CASES += [(name, "all alike") for name in ("bert", "llama", "t5", "clip")]


@pytest.mark.parametrize(("name", "content"), CASES)
def test_every_architecture_keeps_its_rows(name, content):
    inputs = batch(name)
    if content == "as many tokens as rows":
        inputs = {key: t if t.ndim > 2 else t[:, :3].clone() for key, t in inputs.items()}
        if name == "clip":
            inputs["input_ids"][:, 2] = 2  # where it reads its text's embedding
    elif content == "all alike":
        inputs = {key: torch.full_like(t, 1 if key == "attention_mask" else 2) for key, t in inputs.items()}
    flat = name == "opt"  # its second linear layer gets all tokens of all rows in one list
    model = two(make(name), [t for t in MODELS[name].targets if not (flat and t == "fc2")], MODELS[name].head)
    names, outputs = ["b", None, "default"], {}
    for one in ("default", "b"):
        outputs[one] = set_adapter(model, one)(**inputs)
    with disable_adapter(model):
        outputs[None] = model(**inputs)
    key = next(k for k in ("logits", "text_embeds") if k in outputs["b"])
    with torch.no_grad(), adapter_rows(model, names):
        got = model(**inputs)[key]
    for i, one in enumerate(names):
        assert torch.allclose(got[i], outputs[one][key][i], rtol=1e-3, atol=1e-5)


def test_a_head_of_which_a_pass_makes_no_use_is_no_fault():
    class Tasks(Net):
        def forward(self, x, task="head"):
            return getattr(self, task)(self.lin(x))

    model = Tasks("head_called")
    model.other = nn.ModuleList([nn.Linear(4, 4)])
    model.third = nn.Linear(4, 2)
    two(model, saved=("head", "third"))
    for task in ("head", "third", "head"):
        wanted = one_at_a_time(model, ["b", "default"], torch.ones(2, 4), task=task)
        with adapter_rows(model, ["b", "default"]):
            assert torch.allclose(model(torch.ones(2, 4), task=task), wanted, rtol=1e-4, atol=1e-5)


def test_the_trial_is_run_once_and_leaves_no_trace():
    passes = []
    model = two(tiny_bert(hidden_dropout_prob=0.3), ("query", "intermediate.dense"), ("classifier",)).train()
    model.bert.encoder.layer[1].eval()
    model.bert.embeddings.register_forward_hook(lambda module, args, output: passes.append(len(output)))
    modes = [module.training for module in model.modules()]
    ids = torch.arange(1, 21).view(4, 5)
    random = torch.get_rng_state()
    for names in (["b", "default", None, "b"], ["default", "b", "b", None]):
        with adapter_rows(model, names):
            model(ids)
            model(ids[:, :4], attention_mask=torch.ones(4, 4, dtype=torch.long))
    assert passes == [6, 7, 4, 4, 4, 4]
    assert [module.training for module in model.modules()] == modes
    after = torch.rand(1)
    torch.set_rng_state(random)
    with adapter_rows(model, ["b", "default", None, "b"]):
        for size in (5, 4, 5, 4):
            model(ids[:, :size], attention_mask=torch.ones(4, size, dtype=torch.long))
    assert torch.equal(torch.rand(1), after)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules() if m is not model.bert.embeddings)


def test_parts_of_a_model_may_be_called_as_text_is_generated():
    model, ids = two(make("t5"), MODELS["t5"].targets), batch("t5")["input_ids"]
    wanted = [set_adapter(model, name).generate(ids, max_new_tokens=4, do_sample=False)[i] for i, name in enumerate(("b", "default", "b"))]
    with adapter_rows(model, ["b", "default", "b"]):
        got = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(got, torch.stack(wanted))
    fresh, ids = two(make("llama"), MODELS["llama"].targets), batch("llama")["input_ids"].clamp(min=3)
    wanted = [set_adapter(fresh, name).generate(ids, max_new_tokens=4, do_sample=False)[i] for i, name in enumerate(("b", "default", "b"))]
    with adapter_rows(fresh, ["b", "default", "b"]):
        assert torch.equal(fresh.generate(ids, max_new_tokens=4, do_sample=False), torch.stack(wanted))


def test_a_tower_that_the_first_batches_leave_out_is_tried_when_it_is_reached():
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.text, self.image = Net("head_called"), Net("time_first")

        def forward(self, text, image=None):
            return self.text(text) if image is None else self.image(image)

    model, x = two(Towers(), ("text.lin", "image.lin")), torch.randn(3, 3, 4)
    wanted = one_at_a_time(model, ["b", None, "default"], x)
    with adapter_rows(model, ["b", None, "default"]):
        assert torch.allclose(model(x), wanted, rtol=1e-4, atol=1e-5)
        with pytest.raises(LoraError, match=f"'image.lin' is given .*{UNSHOWN}"):
            model(x, x)
        assert torch.allclose(model(x), wanted, rtol=1e-4, atol=1e-5)


def test_a_model_that_gets_no_rows_or_no_other_number_of_them_is_refused():
    class OfAList(Net):
        def forward(self, x):
            return self.lin(torch.stack(x) if isinstance(x, list) else torch.tensor(float(x)).expand(2, 4))

    class OfTwo(Net):
        def forward(self, x):
            return self.lin(x).view(2, 3, 4)

    model = two(OfAList("head_called"))
    with adapter_rows(model, ["b", "default"]), pytest.raises(LoraError, match="the model is given no tensor, but adapter_rows names 2"):
        model(3)
    with adapter_rows(two(OfTwo("head_called")), ["b", "default"]) as model, pytest.raises(LoraError, match=f"{UNSHOWN} .the trial failed: RuntimeError"):
        model(torch.randn(2, 3, 4))


def test_a_batch_beside_a_mask_of_the_same_length_is_told_apart():
    class Masked(Net):
        def forward(self, x, positions):
            return self.lin(x + positions[:, None].float())

    class AfterIt(Net):
        def forward(self, mask, x):
            return self.lin(mask.float() @ x)

    model, x = two(Masked("head_called")), torch.randn(3, 3, 4)
    names, positions = ["b", None, "default"], torch.arange(3)
    wanted = one_at_a_time(model, names, x, positions)
    with adapter_rows(model, names):
        assert torch.allclose(model(x, positions), wanted, rtol=1e-4, atol=1e-5)
    with adapter_rows(two(AfterIt("head_called")), names) as model, pytest.raises(LoraError, match="has not shown"):
        model(torch.ones(3, 3).tril(), x)
