"""Bases that cannot be adapted: one clear error, the model as it was, and advice that holds."""

import peft
import pytest
import torch
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, add_lora, load_adapter, parameter_report, save_adapter
from tests.conftest import assert_unchanged, state_of

ONE = LoraConfig(2, 4, ("0",))


def on_peft(**changes):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["0"], r=2, **changes))


@pytest.mark.parametrize("targets", ["all-linear", ("0",), ("1",), r".*\.1", ("base_layer",)])
@pytest.mark.parametrize("inner", [False, True])
def test_a_model_with_pefts_adapters_is_refused_whatever_the_targets(targets, inner):
    model = on_peft()
    base = model.base_model.model if inner else model  # the bare model has PEFT's layers in it
    with pytest.raises(LoraError, match=r"the model has adapters of PEFT: call its merge_and_unload\(\) and take what it returns"):
        add_lora(base, LoraConfig(2, 4, targets))
    assert not hasattr(base, "lora")


@pytest.mark.parametrize("way_out", ["merge_and_unload", "unload"])
def test_what_peft_returns_is_adapted(way_out):
    assert parameter_report(add_lora(getattr(on_peft(), way_out)(), LoraConfig(2, 4, "all-linear"))).matched == {"all-linear": 2}


def float8():
    return nn.Sequential(nn.Linear(4, 4).to(torch.float8_e4m3fn), nn.Linear(4, 4))


def whole_numbers():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].weight = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    return model


def packed():
    """As some quantise: the weight is gone, and what it was packed into is in buffers."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    del model[0].weight
    model[0].register_buffer("qweight", torch.ones(4, 1, dtype=torch.int32))
    return model


@pytest.mark.parametrize(("build", "dtype"), [(float8, "torch.float8_e4m3fn"), (whole_numbers, "torch.int8"), (packed, "None")])
def test_a_weight_that_is_no_number_to_compute_with(build, dtype):
    model = build()
    before = [(n, p.requires_grad, p.data_ptr()) for n, p in model.named_parameters()]
    with pytest.raises(LoraError, match=rf"target '0' has a weight of {dtype}, in which no adapter computes: convert it"):
        add_lora(model, ONE)
    assert [(n, p.requires_grad, p.data_ptr()) for n, p in model.named_parameters()] == before
    add_lora(model, LoraConfig(2, 4, ("1",)))  # next to it another layer may be one


def test_float8_that_is_converted_is_adapted():
    model = add_lora(float8().to(torch.bfloat16), ONE)
    assert model(torch.ones(1, 4, dtype=torch.bfloat16)).isfinite().all()


def with_head(head):
    return nn.ModuleDict({"lin": nn.Linear(4, 4), "head": head})


SAVED = LoraConfig(2, 4, ("lin",), modules_to_save=("head",))


class Locked(nn.Linear):
    """What cannot be copied for another reason."""

    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle '_thread.lock' object")


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: nn.utils.weight_norm(nn.Linear(4, 3)), "Only Tensors created explicitly"),
        (lambda: nn.utils.weight_norm(nn.Conv2d(4, 3, 1)), "Only Tensors created explicitly"),
        (lambda: Locked(4, 3), "cannot pickle"),
    ],
)
def test_a_head_that_cannot_be_copied(build, reason):
    model = with_head(build())
    before = state_of(model)
    with pytest.raises(LoraError, match=f"'head' is to train in full, but cannot be copied .*: {reason}"):
        add_lora(model, SAVED)
    assert_unchanged(model, before)


def test_weight_norm_of_the_new_kind_trains_and_is_saved(tmp_path):
    def build():
        torch.manual_seed(0)
        return with_head(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))

    model = add_lora(build(), SAVED)
    with torch.no_grad():
        for p in model["head"].parameters():
            p.add_(1.0)
    save_adapter(model, tmp_path)
    x = torch.ones(1, 4)
    assert torch.equal(load_adapter(build(), tmp_path)["head"](x), model["head"](x))


@pytest.mark.parametrize("config", [LoraConfig(2, 4, ("lin",)), SAVED, LoraConfig(2, 4, ("head",)), LoraConfig(2, 4, "all-linear")])
def test_a_lazy_module(config):
    model = with_head(nn.LazyLinear(3))
    with pytest.raises(LoraError, match="'head.weight' has no shape yet, since its module is lazy: run the model on one batch first"):
        add_lora(model, config)
    assert all(p.requires_grad for p in model.parameters()) and not hasattr(model, "lora")
    model["head"](model["lin"](torch.ones(1, 4)))
    add_lora(model, config)


class Token(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.lin = nn.Parameter(torch.zeros(4)), nn.Linear(4, 4)


class Tokens(nn.Module):
    """As the advice has it: the parameter in a module of its own."""

    def __init__(self):
        super().__init__()
        self.prompt, self.lin = nn.ParameterDict({"token": torch.zeros(4)}), nn.Linear(4, 4)


LIN = LoraConfig(2, 4, ("lin",))


@pytest.mark.parametrize("build", [Token, lambda: nn.Sequential(Token())])
def test_a_parameter_next_to_a_target_is_told_where_to_go(build, tmp_path):
    model = add_lora(build(), LIN)
    [token] = [name for name, _ in model.named_parameters() if name.endswith("token")]
    model.get_parameter(token).requires_grad_(True)
    with pytest.raises(LoraError, match=rf"that train: {token}; .*\(a parameter next to a target needs a module of its own\)"):
        save_adapter(model, tmp_path)
    with pytest.raises(LoraError, match="modules_to_save: 'token' is a parameter: put it into a module of its own, and name that"):
        add_lora(build(), LoraConfig(2, 4, ("lin",), modules_to_save=("token",)))


def test_as_it_is_told(tmp_path):
    config = LoraConfig(2, 4, ("lin",), modules_to_save=("prompt",))
    model = add_lora(Tokens(), config)
    with torch.no_grad():
        model.prompt["token"].fill_(3)
    save_adapter(model, tmp_path)
    assert load_adapter(Tokens(), tmp_path).prompt["token"].tolist() == [3, 3, 3, 3]


def test_a_tensor_of_experts_is_no_target():
    with pytest.raises(LoraError, match="target_modules: 'token' is a parameter"):
        add_lora(Token(), LoraConfig(2, 4, ("token",)))
