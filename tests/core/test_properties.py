"""What holds for every shape, precision, rank and kind of layer."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_from_scratch import LoraConfig, add_lora, merge, unmerge

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
EPS = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}
KINDS = {"linear": nn.Linear, "no bias": lambda i, o: nn.Linear(i, o, bias=False), "conv1d": lambda i, o: Conv1D(o, i), "embedding": nn.Embedding}
SETTINGS = {"plain": {}, "rslora": {"rslora": True}, "dora": {"dora": True}, "pissa": {"init": "pissa"}, "olora": {"init": "olora"}, "lora_xs": {"init": "lora_xs"}}


@st.composite
def adapted(draw):
    """A model of one adapted layer, its bare twin, and an input."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    variant = "plain" if kind == "embedding" else draw(st.sampled_from(sorted(SETTINGS)))
    inputs, outputs, dtype = draw(st.integers(1, 10)), draw(st.integers(1, 10)), draw(st.sampled_from(DTYPES))
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = KINDS[kind](inputs, outputs)
    base = nn.Sequential(layer).to(dtype)
    twin = nn.Sequential(KINDS[kind](inputs, outputs)).to(dtype)
    twin.load_state_dict(base.state_dict())
    if variant in ("pissa", "olora") and min(inputs, outputs) < 2:
        variant = "plain"  # these have twice the rank
    r = draw(st.integers(1, min(inputs, outputs) // (2 if variant in ("pissa", "olora") else 1)))
    add_lora(base, LoraConfig(r, draw(st.floats(0.3, 30)), ("0",), **SETTINGS[variant]))
    lead = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    x = torch.randint(inputs, lead) if kind == "embedding" else torch.randn(*lead, inputs).to(dtype)
    return base, twin, x, variant, dtype


def largest(*tensors):
    return max([t.detach().double().abs().max().item() for t in tensors if t.numel()] or [0.0])


def parts(layer, x):
    """The rounding of an update that is the difference of two large products, in the factors' precision."""
    A, B = layer.factors()
    return 40 * EPS[A.dtype] * largest(A) * largest(B) * layer.scaling * (1 + largest(x))


@settings(max_examples=150, deadline=None)
@given(adapted())
def test_the_start_is_the_base(case):
    model, twin, x, variant, dtype = case
    if variant in ("pissa", "olora"):
        room = 40 * EPS[dtype] * (1 + largest(twin(x))) + parts(model[0], x)
        assert largest(model(x).double() - twin(x).double()) <= room
    else:
        assert torch.equal(model(x), twin(x))


@settings(max_examples=150, deadline=None)
@given(adapted(), st.integers(1, 3))
def test_steps_change_no_frozen_number_and_a_merge_is_undone_to_the_bit(case, cycles):
    model, twin, x, variant, dtype = case
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        model(x).float().square().sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    assert all(torch.equal(p, twin.state_dict()[name]) for name, p in frozen.items()) and frozen
    apart = model(x)
    for _ in range(cycles):
        merge(model)
        merged = model(x)
        unmerge(model)
    assert all(torch.equal(p, twin.state_dict()[name]) for name, p in frozen.items())
    assert torch.equal(model(x), apart)
    weight, update = largest(twin[0].weight), largest(model[0].adapted_matrix() - model[0].matrix().double())
    room = 40 * EPS[dtype] * (1 + (weight + update + 1) * (largest(x) + 1))
    if variant in ("pissa", "olora"):  # the difference of two products, each as large as W
        room += parts(model[0], x)
    assert largest(merged.double() - apart.double()) <= room


@settings(max_examples=100, deadline=None)
@given(adapted())
def test_the_update_has_at_most_the_rank(case):
    model, _, x, variant, dtype = case
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(torch.randn_like(p))
    A, B = model[0].factors()
    if variant == "dora":
        return  # its update is no product
    r = A.shape[0]
    values = torch.linalg.svdvals(B.detach().double() @ A.detach().double())
    assert (values[r:] <= 1e-12 * values[0] + 1e-300).all()
    assert r == model[0].r * (2 if variant in ("pissa", "olora") else 1)


def test_the_cases_cover_every_kind():
    seen = set()

    @settings(max_examples=500, deadline=None, database=None, derandomize=True)  # chance would fail it now and then
    @given(adapted())
    def collect(case):
        seen.add(((type(case[0][0]), case[0][0].transposed), case[4]))

    collect()
    assert len({kind for kind, _ in seen}) == 11 and {dtype for _, dtype in seen} == set(DTYPES)
