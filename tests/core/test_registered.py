"""Everything that is registered, on every type of module: from the start to a file and back, or a clear refusal."""

import warnings
from dataclasses import dataclass

import peft
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    LoRALinear,
    NF4Linear,
    adapter_rows,
    add_adapter,
    add_lora,
    combine_adapters,
    load_adapter,
    merge,
    merged_state_dict,
    parameter_report,
    save_adapter,
    unmerge,
)
from lora_from_scratch.registry import BASES, VARIANTS

MODULES = {  # by the type that a plain layer adapts: a module, and what goes in
    nn.Linear: (lambda: nn.Linear(12, 10), lambda: torch.randn(4, 3, 12)),
    "transformers.pytorch_utils.Conv1D": (lambda: Conv1D(10, 12), lambda: torch.randn(4, 3, 12)),
    nn.Embedding: (lambda: nn.Embedding(12, 10), lambda: torch.randint(12, (4, 3))),
    NF4Linear: (lambda: NF4Linear(nn.Linear(12, 10)), lambda: torch.randn(4, 3, 12)),
    nn.Conv2d: (lambda: nn.Conv2d(3, 10, 3, stride=2, padding=1), lambda: torch.randn(4, 3, 7, 6)),
}
KINDS = [(base, variant) for base in BASES for variant in ["", *VARIANTS]]


def taken(kind) -> bool:
    """Whether the base type takes the variant; plain LoRA goes with all of them."""
    base, variant = kind
    return not variant or BASES[base].takes_variants

R = 2


class Net(nn.Module):
    """Two modules of one kind, and a head that trains in full."""

    def __init__(self, base):
        super().__init__()
        make, _ = MODULES[base]
        torch.manual_seed(0)
        self.one, self.two, self.head = make(), make(), nn.Linear(20, 3)
        self.head_modules = ("head",)

    def forward(self, x):
        both = torch.cat([part.flatten(2).mean(2) if part.dim() > 3 else part.mean(1) for part in (self.one(x), self.two(x))], 1)
        return self.head(both)


@dataclass
class Case:
    """An adapted model, and what it is held against."""

    base: type | str
    variant: str
    x: torch.Tensor

    @property
    def config(self) -> LoraConfig:
        """Settings that have no default are sizes; a variant without an alpha wants it equal to r."""
        kind = VARIANTS.get(self.variant, LoRALinear)
        settings = {name: 9 for name, default in kind.settings.items() if default is None}
        for alpha in (3, R):
            try:
                return LoraConfig(R, alpha, ("one", "two"), settings=settings, **LoraConfig.asking_for(self.variant))
            except LoraError as error:
                refused = error
        raise refused

    def fresh(self) -> nn.Module:
        return Net(self.base)

    def adapted(self, steps=0) -> nn.Module:
        return train(add_lora(self.fresh(), self.config), self.x, steps)


def train(model, x, steps):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    return model


def same(one, other):
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def called(kind):
    base, variant = kind
    return f"{getattr(base, '__name__', base).rpartition('.')[2]}-{variant or 'plain'}"


def made(kind) -> Case:
    base, variant = kind
    torch.manual_seed(2)
    return Case(base, variant, MODULES[base][1]())


@pytest.fixture(params=[kind for kind in KINDS if taken(kind)], ids=called)
def case(request):
    return made(request.param)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not taken(kind)], ids=called)
def test_a_base_type_that_takes_no_variant_refuses_it_by_name(kind):
    with pytest.raises(LoraError, match="target 'one' is of type .*, for which there is no"):
        made(kind).adapted()


def test_every_base_type_has_a_module_here():
    assert MODULES.keys() == BASES.keys()


def test_the_start_leaves_the_output_and_steps_move_it(case):
    x, base = case.x, case.fresh()(case.x)
    assert same(case.adapted()(x), base)
    assert not same(case.adapted(steps=3)(x), base)


def test_what_is_saved_is_loaded_to_the_bit(case, tmp_path):
    check_files(case, tmp_path)


def check_files(case, folder):
    """What a variant fails that is registered, but saved as something else."""
    model = case.adapted(steps=3)
    save_adapter(model, folder / "own")
    again = load_adapter(case.fresh(), folder / "own")
    if not model.lora.named["default"].layers["one"].saved_plain:  # else other layers compute it
        assert type(again.one) is type(model.one)
        assert torch.equal(again(case.x), model(case.x))
    assert same(again(case.x), model(case.x))
    save_adapter(again, folder / "again")
    assert (folder / "own/adapter_model.safetensors").read_bytes() == (folder / "again/adapter_model.safetensors").read_bytes()
    if model.one.is_product:
        save_adapter(model, folder / "plain", plain=True)
        assert same(load_adapter(case.fresh(), folder / "plain")(case.x), model(case.x))
    else:
        with pytest.raises(LoraError, match="has no plain form"):
            save_adapter(model, folder / "plain", plain=True)


def test_peft_reads_the_file(case, tmp_path):
    model = case.adapted(steps=3)
    native = model.one.peft_type in peft.PeftType.__members__
    save_adapter(model, tmp_path, plain=not native)
    if case.base is NF4Linear:
        pytest.skip("PEFT does not know this package's NF4Linear")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fan_in_fan_out
        theirs = peft.PeftModel.from_pretrained(case.fresh(), tmp_path)
    assert same(theirs(case.x), model(case.x))


def test_a_merge_is_undone_to_the_bit_or_refused(case):
    model = case.adapted(steps=3)
    before, weight = model(case.x), model.one.weight.clone()
    try:
        merge(model)
    except LoraError as error:
        assert case.base is NF4Linear and "one: the base has 4 bits" in str(error)
        assert torch.equal(model(case.x), before)
        return
    assert same(model(case.x), before) and not torch.equal(model.one.weight, weight)
    unmerge(model)
    assert torch.equal(model.one.weight, weight) and torch.equal(model(case.x), before)
    plain = case.fresh()
    plain.load_state_dict(merged_state_dict(model))
    assert same(plain(case.x), before)


def test_rows_have_adapters_of_their_own_or_are_refused(case):
    model = case.adapted(steps=3)
    add_adapter(model, "other", case.config)
    train(model, case.x, 2)
    other, base = model(case.x), case.fresh()(case.x)
    try:
        with torch.no_grad(), adapter_rows(model, ["other", None, "other", None]):
            rows = model(case.x)
    except LoraError as error:
        assert "cannot go row by row" in str(error)
        assert torch.equal(model(case.x), other)
        return
    assert same(rows[::2], other[::2]) and torch.equal(rows[1::2], base[1::2])


def test_adapters_are_combined_or_refused(case):
    model = case.adapted(steps=3)
    try:
        combine_adapters(model, "sum", {"default": 1.0})
    except LoraError as error:
        assert not model.one.is_product and "is not a product" in str(error)
        return
    assert model.lora.active == "sum" and model.one.variant == ""
    assert same(model(case.x), case.adapted(steps=3)(case.x))


def test_the_report_counts_what_trains(case):
    report = parameter_report(case.adapted())
    plain = parameter_report(case.fresh())
    assert report.base == plain.total and not report.unexpected
    assert report.trainable_without_head == sum(t.parameters for t in report.trained if t.reason == "adapter") > 0


def test_a_variant_that_would_be_saved_as_something_else_is_refused(tmp_path):
    """It trains a gain of its own, and says nothing of how a file is to name it."""

    class Gain(LoRALinear, variant="gain"):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.gain = nn.Parameter(torch.ones(self.out_features, 1))

        def factors(self):
            A, B = super().factors()
            return A, self.gain * B

    class Named(Gain, variant="named"):
        peft_type = "NAMED"

    class Plain(Gain, variant="plain"):
        saved_plain = True

    class Dropped(Gain, variant="dropped"):  # its file lacks what it computes with
        peft_type = "DROPPED"

        def factors(self):
            A, B = super().factors()
            return A, torch.randn(B.shape, generator=torch.Generator().manual_seed(id(self) % 1000)) + B

    try:
        torch.manual_seed(2)
        cases = {name: Case(nn.Linear, name, torch.randn(4, 3, 12)) for name in ("gain", "named", "plain", "dropped")}
        with pytest.raises(LoraError, match="the variant 'gain' would be read back as plain LoRA"):
            check_files(cases["gain"], tmp_path / "gain")
        assert not (tmp_path / "gain").exists()
        check_files(cases["named"], tmp_path / "named")
        check_files(cases["plain"], tmp_path / "plain")
        with pytest.raises(AssertionError):
            check_files(cases["dropped"], tmp_path / "dropped")
    finally:
        for name in ("gain", "named", "plain", "dropped"):
            VARIANTS.pop(name)
