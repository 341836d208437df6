"""Four bits: the levels, the packing, the frozen linear, LoRA on it, and what is refused."""

import copy
import json

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    LoRALinear,
    LoRANF4Linear,
    NF4Linear,
    adapter_rows,
    add_adapter,
    add_lora,
    dequantize_linears,
    dequantize_nf4,
    disable_adapter,
    extract_lora,
    load_adapter,
    merge,
    merge_and_unload,
    merged_state_dict,
    model_bytes,
    nf4_levels,
    parameter_report,
    quantize_linears,
    quantize_nf4,
    remove_lora,
    save_adapter,
    set_adapter,
    unmerge,
)
from lora_from_scratch.__main__ import main
from lora_from_scratch.extras.nf4 import (
    absmax_and_codes,
    blocks_of,
    dequantize_absmax,
    int4_levels,
    nearest,
    pack,
    quantize_absmax,
    round_to,
    sizes,
    unpack,
)
from lora_from_scratch.finetune import load_classifier, load_finetuned
from lora_from_scratch.finetune.evaluate import predict_logits
from lora_from_scratch.finetune.memory import SavedTensors
from lora_from_scratch.finetune.model import quantize_encoder
from tests.conftest import assert_unchanged, shake, state_of, tiny_bert

# The code book of the authors' library, bitsandbytes, as printed there.
PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
CONFIG = LoraConfig(3, 5, "all-linear")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantised_bert():
    return quantize_linears(tiny_bert())


def test_the_levels_are_the_published_code_book():
    levels = nf4_levels()
    assert levels.dtype == torch.float32 and (levels - torch.tensor(PUBLISHED)).abs().max() <= 2e-7
    assert levels[7] == 0 and (levels.diff() > 0).all()


@pytest.mark.parametrize("levels", [nf4_levels(), int4_levels()])
def test_the_nearest_level_is_nearest(levels):
    x = torch.linspace(-1.1, 1.1, 997)
    assert torch.equal(nearest(x, levels).long(), (x[:, None] - levels).abs().argmin(1))
    assert torch.equal(nearest(levels, levels), torch.arange(16, dtype=torch.uint8))


def test_two_codes_a_byte_and_back():
    codes = torch.randint(16, (998,), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert pack(codes).numel() == 499 and torch.equal(unpack(pack(codes)), codes)
    assert pack(torch.tensor([1, 15], dtype=torch.uint8)).item() == 0x1F  # the first above, as in bitsandbytes


# Less than a block, a block, one more, odd sizes, and more than a group of 256 blocks.
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 64), (5, 13), (7, 31), (129, 130)])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e4])
def test_no_weight_moves_further_than_half_a_gap(shape, size):
    W = size * normal(*shape)
    packed = quantize_nf4(W)
    assert packed.dtype == torch.uint8 and packed.numel() == sum(sizes(W.numel()))
    rounded = dequantize_nf4(packed, shape)
    assert rounded.shape == W.shape and rounded.dtype == torch.float32
    exact = blocks_of(W).abs().amax(1)
    absmax, _ = absmax_and_codes(packed, W.numel())
    bound = absmax * nf4_levels().diff().max() / 2 + (exact - absmax).abs()
    assert (blocks_of(W - rounded).abs() <= bound[:, None] * 1.0001).all()


def test_double_quantisation_is_off_by_half_a_step_at_most():
    absmax = normal(1000).abs() + 1
    steps, scale, mean = quantize_absmax(absmax)
    assert steps.dtype == torch.int8 and steps.numel() == 1000 and scale.numel() == 4
    error = (dequantize_absmax(steps, scale, mean) - absmax).abs()
    assert (error <= scale.repeat_interleave(256)[:1000] * 0.5001).all()


def test_zeros_stay_zeros_and_no_absmax_is_negative():
    W = torch.zeros(4, 64)
    W[0] = 5.0
    rounded = dequantize_nf4(quantize_nf4(W), W.shape)
    assert (rounded[1:] == 0).all() and (rounded[0] - 5).abs().max() < 0.1
    assert torch.equal(dequantize_nf4(quantize_nf4(0 * W), W.shape), 0 * W)
    W = normal(512, 64) * torch.logspace(-6, 0, 512)[:, None]  # some absmax lie under half a step
    assert (dequantize_nf4(quantize_nf4(W), W.shape) * W >= 0).all()  # no sign turned


def test_nf4_rounds_normal_numbers_better_than_int4_and_small_blocks_better_than_large():
    W = normal(256, 256)
    error = {block: (round_to(W, nf4_levels(), block) - W).norm() for block in (16, 64, 256)}
    assert error[16] < error[64] < error[256]
    assert error[64] < 0.9 * (round_to(W, int4_levels()) - W).norm()
    double = dequantize_nf4(quantize_nf4(W), W.shape) - W
    assert double.norm() < 1.01 * error[64]


@pytest.mark.parametrize("W", [torch.tensor([[1.0, float("nan")]]), torch.tensor([[float("inf")]]), torch.zeros(0, 3)])
def test_what_cannot_be_quantised(W):
    with pytest.raises(LoraError, match="finite"):
        quantize_nf4(W)


def test_bytes_of_another_shape_are_refused():
    with pytest.raises(LoraError, match="weights take"):
        dequantize_nf4(quantize_nf4(normal(4, 64)), (4, 65))
    with pytest.raises(LoraError, match="weights take"):
        dequantize_nf4(quantize_nf4(normal(4, 64))[:-1], (4, 64))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_layers_compute_and_learn_as_the_dequantised_linear(autocast, bias):
    torch.manual_seed(0)
    base = NF4Linear(nn.Linear(45, 21, bias=bias).requires_grad_(False))
    plain = nn.Linear(45, 21, bias=bias).requires_grad_(False)
    plain.weight.copy_(base.matrix())
    plain.bias = base.bias
    for one, other in ((base, plain), (LoRANF4Linear(base, 4, 6), LoRALinear(plain, 4, 6))):
        if isinstance(one, LoRALinear):
            nn.init.normal_(one.lora_B.weight)
            other.load_state_dict({n: p for n, p in one.state_dict().items() if n != "weight"}, strict=False)
        found = []
        for layer in (one, other):
            x = normal(2, 5, 45, seed=3).requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                y = layer(x)
            (y.float() * normal(2, 5, 21, seed=4)).sum().backward()
            found.append([y, x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)])
        close = 0.02 if autocast else 1e-5
        for a, b in zip(*found, strict=True):
            assert a.dtype == b.dtype and (a - b).abs().max() <= close * b.abs().max()
        assert isinstance(one, LoRALinear) or torch.equal(found[0][0], found[1][0])


def test_a_bias_that_trains_gets_its_gradient():
    linear = nn.Linear(8, 4)
    layer, x = NF4Linear(linear), normal(3, 5, 8)
    layer(x).square().sum().backward()
    expected = torch.autograd.grad(F.linear(x, layer.matrix(), linear.bias).square().sum(), linear.bias)[0]
    assert torch.allclose(linear.bias.grad, expected) and layer.weight.grad is None


def test_autograd_keeps_no_float_copy_of_the_weight():
    layer = NF4Linear(nn.Linear(64, 64, bias=False))
    x = normal(2, 64).requires_grad_()
    with SavedTensors(layer) as saved:
        layer(x)
    assert saved.bytes == 0
    adapted = LoRANF4Linear(layer, 2, 2)
    with SavedTensors(adapted) as saved:
        adapted(x)
    assert 0 < saved.bytes <= 4 * 2 * (64 + 2)  # x and A x


def test_at_most_six_tenths_of_a_byte_a_weight():
    model = nn.Sequential(nn.Linear(384, 384), nn.Linear(384, 1536), nn.LayerNorm(1536))
    floats = model_bytes(model)
    assert (floats.weights, floats.per_weight) == (0, 0.0)
    counted = model_bytes(quantize_linears(model))
    n = 384 * 384 + 384 * 1536
    blocks = n // 64
    assert (counted.weights, counted.codes) == (n, n // 2)
    assert counted.constants == blocks + 4 * (1 + 9) + 4 * (1 + 36)  # 2,304 and 9,216 blocks in groups of 256
    assert counted.rest == 4 * (384 + 1536 + 2 * 1536)
    assert counted.total == sum(t.numel() * t.element_size() for t in model.parameters())
    assert 0.5 < counted.per_weight <= 0.52


def test_quantising_replaces_the_linears_and_nothing_else(batch):
    plain, model = tiny_bert(), quantised_bert()
    kinds = {name: type(module) for name, module in model.named_modules()}
    assert sum(kind is NF4Linear for kind in kinds.values()) == 13  # six in each of two blocks, and the pooler's
    assert kinds["classifier"] is nn.Linear and kinds["bert.embeddings.word_embeddings"] is nn.Embedding
    difference = (model(**batch).logits - plain(**batch).logits).abs().max()
    assert 0 < difference < 0.1
    assert parameter_report(model).total == parameter_report(plain).total
    floats = dequantize_linears(copy.deepcopy(model))
    assert torch.equal(floats(**batch).logits, model(**batch).logits)
    assert parameter_report(add_lora(model, CONFIG)).base == parameter_report(plain).total


def test_types_and_files_leave_the_bytes_alone(batch, tmp_path):
    model = quantised_bert()
    weight = model.bert.encoder.layer[0].attention.self.query.weight
    before = weight.clone()
    model.to(torch.bfloat16)
    assert torch.equal(weight, before) and weight.dtype == torch.uint8
    assert model(**batch).logits.dtype == torch.bfloat16
    model.float()
    state = model.state_dict()
    other = quantize_linears(tiny_bert(seed=1))
    other.load_state_dict(state)
    assert torch.equal(other(**batch).logits, model(**batch).logits)


def test_an_adapter_on_four_bits_lives_like_any_other(batch, tmp_path):
    model = quantised_bert()
    base = model(**batch).logits
    before = state_of(model)
    torch.manual_seed(0)
    add_lora(model, CONFIG)
    assert torch.equal(model(**batch).logits, base)
    assert all(isinstance(m, LoRANF4Linear) for n, m in model.named_modules() if n.endswith(("query", "dense")))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    learnt = model(**batch).logits
    assert (learnt - base).abs().max() > 0.01
    save_adapter(model, tmp_path)
    with disable_adapter(model):
        assert torch.equal(model(**batch).logits, base)
    add_adapter(model, "other", LoraConfig(2, 2, ("query",)))
    set_adapter(model, "default")
    assert torch.equal(model(**batch).logits, learnt)
    with adapter_rows(model, ["default", None, None, "other", "default"]):
        rows = model(batch["input_ids"], batch["attention_mask"]).logits
    assert torch.allclose(rows[[0, 4]], learnt[[0, 4]], atol=1e-5)
    model.bfloat16().float()  # reaches only what is in place
    remove_lora(model)
    fresh = load_adapter(quantised_bert(), tmp_path)
    assert torch.equal(fresh(**batch).logits, learnt)
    remove_lora(fresh)
    assert_unchanged(fresh, before)


def test_peft_reads_the_adapter_as_plain_lora_on_the_dequantised_base(batch, tmp_path):
    model = add_lora(quantised_bert(), CONFIG)
    shake(model, size=0.5)
    logits = model(**batch).logits
    save_adapter(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    theirs = peft.PeftModel.from_pretrained(dequantize_linears(quantised_bert()), tmp_path)
    assert (theirs(**batch).logits - logits).abs().max() <= 2e-6 * logits.abs().max()
    assert (logits - quantised_bert()(**batch).logits).abs().max() > 1e-3


@pytest.mark.parametrize("act", [merge, merge_and_unload, merged_state_dict])
def test_merging_is_refused_and_the_way_out_that_is_named_works(act, batch, tmp_path):
    model = add_lora(quantised_bert(), CONFIG)
    shake(model)
    logits, before = model(**batch).logits, state_of(model)
    with pytest.raises(LoraError, match="base has 4 bits.*dequantize_linears"):
        act(model)
    assert_unchanged(model, before)
    with pytest.raises(LoraError, match="not merged"):
        unmerge(model)
    save_adapter(model, tmp_path)
    remove_lora(model)
    merged = merge_and_unload(load_adapter(dequantize_linears(model), tmp_path))
    assert torch.allclose(merged(**batch).logits, logits, atol=1e-5)


@pytest.mark.parametrize("fields", [{"dora": True}, {"init": "pissa"}, {"init": "olora"}, {"init": "lora_xs"}])
def test_variants_that_need_the_weight_itself_are_refused(fields):
    model = quantised_bert()
    before = state_of(model)
    with pytest.raises(LoraError, match="is of type NF4Linear, for which there is no"):
        add_lora(model, LoraConfig(2, 2, "all-linear", **fields))
    assert_unchanged(model, before)
    add_lora(model, LoraConfig(2, 2, "all-linear", init="gaussian", rslora=True, dropout=0.1))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("qurey",), "did you mean 'query'"),
        (("word_embeddings",), "is a Embedding: only nn.Linear"),
        ((), "empty"),
        ("no.such", "matches no full name"),
    ],
)
def test_bad_targets(targets, message):
    model = tiny_bert()
    before = state_of(model)
    with pytest.raises(LoraError, match=message):
        quantize_linears(model, targets)
    assert_unchanged(model, before)


def test_models_that_cannot_be_quantised():
    with pytest.raises(LoraError, match="adapters: quantise first"):
        quantize_linears(add_lora(tiny_bert(), CONFIG))
    with pytest.raises(LoraError, match="quantised already"):
        quantize_linears(quantised_bert())
    with pytest.raises(LoraError, match="nothing in the model"):
        dequantize_linears(tiny_bert())
    with pytest.raises(LoraError, match="remove_lora"):
        dequantize_linears(add_lora(quantised_bert(), CONFIG))
    with pytest.raises(LoraError, match="Conv1D: only nn.Linear"):
        quantize_linears(nn.Sequential(Conv1D(4, 4)))
    with pytest.raises(LoraError, match="quantised: dequantize_linears"):
        extract_lora(quantised_bert(), quantised_bert(), CONFIG)
    tied = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6, bias=False))
    tied[1].weight = tied[0].weight
    with pytest.raises(LoraError, match="tied to a Embedding"):
        quantize_linears(tied, ("1",))
    broken = tiny_bert()
    broken.bert.encoder.layer[1].output.dense.weight.data[0, 0] = float("nan")
    before = state_of(broken)["modules"]
    with pytest.raises(LoraError, match=r"layer\.1\.output\.dense.*finite"):
        quantize_linears(broken)
    assert state_of(broken)["modules"] == before


def test_the_command_line_quantises_and_remembers(tiny_backbone, data_folder, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["finetune", "--model", tiny_backbone, "--data", str(data_folder), "--out", str(out), "--max-steps", "60"]
    words += ["--rank", "2", "--lr", "2e-2", "--head-lr", "2e-2", "--batch-size", "16"]
    assert main([*words, "--quantize", "nf4"]) == 0
    assert "bytes for each" in capsys.readouterr().out
    record = json.loads((out / "record.json").read_text())
    assert record["quantize"] == "nf4" and record["test"]["predictions"]
    loaded = load_finetuned(out)
    kinds = [type(m) for m in loaded.model.modules()]
    assert kinds.count(LoRANF4Linear) == 12 and loaded.quantize == "nf4"
    texts = ["i feel quite well", "nobody wrote to me"]
    plain = load_classifier(tiny_backbone)
    quantize_encoder(plain, "nf4")
    load_adapter(plain.model, out)
    assert torch.equal(predict_logits(loaded, texts), predict_logits(plain, texts))
    assert main([*words, "--resume"]) != 0  # the same run without --quantize is another
    assert "quantize is None, there 'nf4'" in capsys.readouterr().err
    for more in (["--method", "lora-unfrozen"], ["--shard-base"]):
        assert main([*words, "--overwrite", "--quantize", "nf4", *more]) != 0
        assert "--quantize needs a frozen base" in capsys.readouterr().err
    with pytest.raises(LoraError, match="expected 'nf4'"):
        quantize_encoder(plain, "int4")
