"""An adapter a row while a language model writes: each row's tokens and logits are those of its adapter alone."""

import copy
import json
from contextlib import contextmanager, nullcontext

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, adapter_rows, add_adapter, add_lora, disable_adapter, set_adapter
from lora_from_scratch.extras import row_trial
from lora_from_scratch.finetune.language import load_language_model
from study.pages.speed import many_voices
from study.speed import many_voices as bench

TEXTS = ["i feel so happy", "i feel", "lonely", "what a day it was so far", "so", "i am furious and scared"]
ALL, MIXED = list("abcdef"), ["a", None, "c", "c", None, "f"]
RANK_1 = ["a", "d", "d", "a", "a", "d"]
GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "output_logits": True, "return_dict_in_generate": True}


@pytest.fixture(scope="module")
def voices(tiny_decoder):
    """A small language model with six adapters of random values, of three ranks, and a batch that is padded on the left."""
    loaded = load_language_model(tiny_decoder)
    for i, name in enumerate(ALL):
        config = LoraConfig(1 + i % 3, 4, "all-linear", modules_to_save=())
        add_adapter(loaded.model, name, config) if i else add_lora(loaded.model, config)
        random_values(loaded.model, seed=i)
    loaded.model.lora.named["a"] = loaded.model.lora.named.pop("default")
    return set_adapter(loaded.model, "a"), loaded.tokenizer(TEXTS, padding=True, return_tensors="pt")


@pytest.fixture(autouse=True)
def nothing_shown():
    """Each test begins with a model of which no trial has shown anything."""
    row_trial.SHOWN.clear()
    row_trial.UNUSED.clear()


@torch.no_grad()
def random_values(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad:
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))


def alone(model, name):
    return disable_adapter(model) if name is None else nullcontext(set_adapter(model, name))


def write(model, batch, seed=0, **how):
    torch.manual_seed(seed)
    return model.generate(**batch, **(GREEDY | how))


def assert_rows_are_those_alone(model, batch, names, times=1, logits=True, **how):
    """Row by row, ``times`` rows for each name, against generating for the whole batch with one adapter after another."""
    with adapter_rows(model, [name for name in names for _ in range(times)]):
        together = write(model, batch, **how)
    texts = together.sequences.unflatten(0, (len(names), -1))
    for i, name in enumerate(names):
        with alone(model, name):
            apart = write(model, batch, **how)
        assert torch.equal(texts[i], apart.sequences.unflatten(0, (len(names), -1))[i]), f"row {i}, adapter {name}"
        for step, (mine, theirs) in enumerate(zip(together.logits, apart.logits, strict=True) if logits else ()):
            assert torch.allclose(mine[i], theirs[i], rtol=1e-4, atol=1e-5), f"row {i}, adapter {name}, step {step}"
            assert name is not None or torch.equal(mine[i], theirs[i])  # the base's, bit for bit
    return texts


@pytest.mark.parametrize("names", [ALL, MIXED, ["b"] * 6, RANK_1])
@pytest.mark.parametrize("how", [
    {}, {"use_cache": False}, {"cache_implementation": "static"}, {"prefill_chunk_size": 3}, {"repetition_penalty": 1.5},
], ids=str)  # fmt: skip
def test_each_row_writes_what_its_adapter_writes_alone(voices, names, how):
    # A text that has ended early would be padded, and the others' logits still compared.
    texts = assert_rows_are_those_alone(*voices, names, min_new_tokens=6, **how)
    assert len({tuple(row.flatten().tolist()[-6:]) for row in texts}) > 2  # they don't all write the same


def test_rows_of_rank_1_train(voices):
    """With gradients nothing is added in place, also where the update of a row is an outer product."""
    model, batch = voices
    layer = set_adapter(model, "a").get_submodule("model.layers.1.mlp.up_proj")
    with adapter_rows(model, RANK_1):
        model(**batch).logits[0].square().sum().backward()
    together = layer.lora_A.weight.grad.clone()
    layer.zero_grad()
    model(**batch).logits[0].square().sum().backward()
    assert together.any() and torch.allclose(together, layer.lora_A.weight.grad, rtol=1e-3, atol=1e-5)
    model.zero_grad()


@pytest.mark.parametrize("times", [1, 3])
def test_sampled_rows(voices, times):
    """The generator is drawn from in the same order, so equal logits give equal texts."""
    assert_rows_are_those_alone(
        *voices, MIXED, times=times, logits=False, do_sample=True, top_k=0, temperature=1.3, min_new_tokens=6, num_return_sequences=times
    )


@pytest.mark.parametrize("returned", [1, 3])
def test_beams_take_a_name_each(voices, returned):
    assert_rows_are_those_alone(*voices, ALL, times=3, logits=False, num_beams=3, num_return_sequences=returned, min_new_tokens=6)


@pytest.mark.parametrize("how", [{"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}])
def test_names_that_are_not_repeated_for_beams_are_refused(voices, how):
    model, batch = voices
    with pytest.raises(LoraError, match="given 12 rows, but adapter_rows names 6 adapters; with num_beams.* each adapter 2 times"):
        with adapter_rows(model, ALL):
            write(model, batch, **how)
    assert model.lora.active is not None  # the adapters are back
    assert_rows_are_those_alone(model, batch, ALL, min_new_tokens=6)


@pytest.mark.parametrize("given", [5, 7])
def test_another_count_of_rows_is_refused_without_that_hint(voices, given):
    model, batch = voices
    with pytest.raises(LoraError, match=f"given {given} rows, but adapter_rows names 6 adapters$"), adapter_rows(model, ALL):
        model(torch.full((given, 3), 7))


@pytest.mark.parametrize("names", [ALL, MIXED])
@pytest.mark.parametrize("new", [1, 3])
def test_a_cache_that_the_base_has_filled_before(voices, names, new):
    """All rows share a beginning that no adapter has touched; the first pass by rows gets its cache."""
    model, batch = voices
    ids, mask = batch["input_ids"], batch["attention_mask"]
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), disable_adapter(model):
        filled = model(ids[:, :-new], attention_mask=mask[:, :-new], position_ids=places[:, :-new], use_cache=True).past_key_values

    @torch.no_grad()
    def rest():
        cache = copy.deepcopy(filled)
        logits = model(ids[:, -new:], attention_mask=mask, position_ids=places[:, -new:], past_key_values=cache).logits
        return logits, cache

    with adapter_rows(model, names):
        together, cache = rest()
    assert cache.get_seq_length() == ids.shape[1]  # the trial has not added to it
    assert filled.get_seq_length() == ids.shape[1] - new
    for i, name in enumerate(names):
        with alone(model, name):
            assert torch.allclose(together[i], rest()[0][i], rtol=1e-4, atol=1e-5), (i, name)


@contextmanager
def passes(model):
    """How many rows each pass has, the trial's included."""
    rows: list[int] = []
    hook = model.model.register_forward_pre_hook(lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()


def test_passes_a_text_takes(voices):
    """Two short passes of the base come before the first one, and none later."""
    model, batch = voices
    with passes(model) as rows:
        for _ in range(2):
            with adapter_rows(model, ALL):
                write(model, batch, min_new_tokens=6)
    assert rows == [6, 7] + 12 * [6]


def test_texts_that_begin_with_one_token(voices):
    """One position shows little, so each pass is tried anew; what is written is right all the same."""
    model, _ = voices
    first = torch.full((6, 1), 2)
    batch = {"input_ids": first, "attention_mask": torch.ones_like(first)}
    with passes(model) as rows, adapter_rows(model, MIXED):
        write(model, batch, min_new_tokens=6)
    assert rows == 6 * [6, 7, 6]
    assert_rows_are_those_alone(model, batch, MIXED, min_new_tokens=6)


def test_rows_of_smollm2():
    """The real model: prompts of two lengths, three adapters and the base, four tokens."""
    loaded = load_language_model("smollm2")
    config = LoraConfig(1, 2, "all-linear", modules_to_save=())
    for i, name in enumerate("abc"):
        add_adapter(loaded.model, name, config) if i else add_lora(loaded.model, config)
        random_values_of(loaded.model, seed=i)
    loaded.model.lora.named["a"] = loaded.model.lora.named.pop("default")
    set_adapter(loaded.model, "a")
    batch = loaded.tokenizer(["The kettle has", "What was that noise on the", "I could", "The kettle has"], padding=True, return_tensors="pt")
    names = ["a", "b", None, "c"]
    with torch.no_grad(), adapter_rows(loaded.model, names):
        together = write(loaded.model, batch, max_new_tokens=4, min_new_tokens=4)
    assert not torch.allclose(together.logits[0][0], together.logits[0][3], atol=0.1)  # the same prompt, another adapter
    for i, name in enumerate(names):
        one = {key: value[i : i + 1] for key, value in batch.items()}
        with alone(loaded.model, name):
            apart = write(loaded.model, one, max_new_tokens=4, min_new_tokens=4)
        assert torch.equal(together.sequences[i], apart.sequences[0]), name
        for mine, theirs in zip(together.logits, apart.logits, strict=True):
            assert (mine[i] - theirs[0]).abs().max() < 1e-3 * theirs.abs().max(), name


@torch.no_grad()
def random_values_of(model, seed):
    """Small enough that a model of thirty blocks still writes."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad:
            p.copy_(0.05 * torch.randn(p.shape, generator=generator))


def test_the_benchmark_of_many_voices_writes_its_record(tiny_decoder, tmp_path, monkeypatch, capsys):
    contenders = bench.contenders
    monkeypatch.setattr(bench, "contenders", lambda: contenders(lambda: load_language_model(tiny_decoder), ["a", "b", "c"]))
    monkeypatch.setattr(bench, "DECODED", 4)
    monkeypatch.setattr("sys.argv", ["many_voices", "--repeats", "2", "--out", str(tmp_path / "b.json")])
    bench.main()
    record = json.loads((tmp_path / "b.json").read_text())
    rows = record["result"]
    assert rows[bench.BASELINE]["prompt"] == rows[bench.BASELINE]["decode"] == 1
    ours = rows[bench.BY_ROWS]
    assert ours["decode_to_peft"] > 0
    assert ours["same_tokens"] == {name: 3 * 4 for name in (bench.SWITCHED, bench.PEFT_MIXED)}  # all contenders write the same
    assert "by rows / PEFT's mixed batch" in capsys.readouterr().out
    machine = {"processor": "an abacus", "instructions": "beads", "threads": 1, "libraries": {"torch": "2"}}
    shown = many_voices(record | {"environment": machine})
    assert f"| {bench.BY_ROWS} |" in shown and "of the time of PEFT's mixed batch for the prompt" in shown and "an abacus (beads)" in shown
