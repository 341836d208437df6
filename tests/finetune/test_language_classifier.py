"""A language model as a classifier: its loss, its probabilities, and how it is saved and loaded."""

import json

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.finetune import load_classifier, load_finetuned, save_finetuned
from lora_from_scratch.finetune.answers import answer_scores, answer_tokens, padded_left
from lora_from_scratch.finetune.evaluate import predict_logits
from lora_from_scratch.finetune.language import LANGUAGE_MODELS
from lora_from_scratch.finetune.loop import IGNORED
from tests.conftest import assert_unchanged, shake, state_of

TEXTS = ["i feel happy today", "so lonely", "i am furious and i feel scared of what is to come"]


@pytest.fixture
def asked(tiny_decoder):
    return load_classifier(tiny_decoder)


@pytest.fixture
def adapted(asked):
    add_lora(asked.model, LoraConfig(4, 8, asked.targets()))
    shake(asked.model, size=0.5)
    return asked


def whole_answer(model, prompt_ids, answer):
    """``log p(answer | prompt)`` by the definition, one token after another, without padding and without a cache."""
    ids, total = list(prompt_ids), 0.0
    for token in answer:
        total += model(torch.tensor([ids])).logits[0, -1].log_softmax(0)[token].item()
        ids.append(token)
    return total


@torch.no_grad()
@pytest.mark.parametrize("cached", [True, False])
def test_scores_are_the_log_probabilities_of_whole_answers(adapted, cached, monkeypatch):
    answers = [[7], [8, 9], [8, 10, 11, 12]]
    prompts = adapted.encode(TEXTS)
    batch = padded_left(prompts, 0)
    model = adapted.model.eval()
    if not cached:  # as a model whose memory isn't kept token by token
        forward = model.forward

        def without(*args, **kwargs):
            output = forward(*args, **kwargs)
            output.past_key_values = None
            return output

        without.__signature__ = __import__("inspect").signature(forward)
        monkeypatch.setattr(model, "forward", without)
    scores = answer_scores(model, batch["input_ids"], batch["attention_mask"], answers)
    expected = [[whole_answer(model, ids, answer) for answer in answers] for ids in prompts]
    assert torch.allclose(scores, torch.tensor(expected), atol=1e-5)


@torch.no_grad()
def test_a_common_beginning_is_read_once_and_changes_no_score(adapted):
    answers, model, start = [[7], [8, 9], [8, 10, 11, 12]], adapted.model.eval(), [5, 6, 7, 8]
    rows = [[9], [10, 11, 12], [13, 14]]
    batch, whole = padded_left(rows, 0), padded_left([start + row for row in rows], 0)
    begun = model(torch.tensor([start]), use_cache=True).past_key_values
    begun.batch_repeat_interleave(len(rows))
    mask = torch.nn.functional.pad(batch["attention_mask"], (len(start), 0), value=1)
    scores = answer_scores(model, batch["input_ids"], mask, answers, begun)
    assert torch.allclose(scores, answer_scores(model, *whole.values(), answers), atol=1e-5)


@torch.no_grad()
def test_the_loss_is_the_mean_over_the_tokens_of_the_answers_alone(adapted):
    rows = list(zip(adapted.encode(TEXTS), [0, 3, 5], strict=True))
    batch = adapted.training_batch(rows)
    assert (batch["labels"] != IGNORED).sum() == sum(len(adapted.prompt.answers[k]) for _, k in rows)
    loss, _ = answer_tokens()(adapted.model.eval(), batch)
    totals = [whole_answer(adapted.model, ids, adapted.prompt.answers[k]) for ids, k in rows]
    count = sum(len(adapted.prompt.answers[k]) for _, k in rows)
    assert loss.item() == pytest.approx(-sum(totals) / count, abs=1e-5)
    # With weights each row's tokens count by its label's weight, and the mean stays one over tokens.
    weights = torch.tensor([2.0, 1, 1, 0, 1, 0.5])
    weighted, _ = answer_tokens(weights)(adapted.model, batch)
    expected = -sum(w * total for w, total in zip((2.0, 0, 0.5), totals, strict=True)) / count
    assert weighted.item() == pytest.approx(expected, abs=1e-5)


def test_predictions_do_not_depend_on_what_stands_beside_a_row(adapted):
    together = predict_logits(adapted, TEXTS)
    alone = torch.cat([predict_logits(adapted, [text]) for text in TEXTS])
    assert together.shape == (3, 6) and torch.allclose(together, alone, atol=1e-5)


def test_saved_and_loaded_here_and_by_peft(adapted, tmp_path):
    from peft import AutoPeftModelForCausalLM

    save_finetuned(adapted, tmp_path)
    expected = predict_logits(adapted, TEXTS)
    again = load_finetuned(tmp_path)
    assert torch.equal(predict_logits(again, TEXTS), expected) and again.prompt == adapted.prompt
    fields = json.loads((tmp_path / "adapter_config.json").read_text())
    assert fields["task_type"] == "CAUSAL_LM" and fields["base_model_name_or_path"] == adapted.backbone
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor(adapted.encode(TEXTS[:1]))
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, adapted.model.eval()(ids).logits, atol=1e-5)


def test_an_adapter_of_rounded_weights_says_so_and_warns_on_others(adapted, tmp_path, monkeypatch, tiny_decoder):
    packaged = {"tiny": LANGUAGE_MODELS["smollm2"]}
    monkeypatch.setattr("lora_from_scratch.finetune.model.LANGUAGE_MODELS", packaged)
    adapted.backbone, adapted.rounded, adapted.base_sha256 = "tiny", "Q4_1", "0" * 64
    save_finetuned(adapted, tmp_path)
    assert json.loads((tmp_path / "lora_from_scratch.json").read_text())["rounded"] == "Q4_1"

    def elsewhere(name, **settings):  # the same name, with weights as published
        found = load_classifier(tiny_decoder, **settings)
        found.backbone = name
        return found

    monkeypatch.setattr("lora_from_scratch.finetune.model.load_classifier", elsewhere)
    with pytest.warns(UserWarning, match="trained on tiny with weights rounded to Q4_1; here they are as published"):
        again = load_finetuned(tmp_path)
    assert again.rounded is None


def test_another_base_of_the_same_kind_is_refused(adapted, tmp_path):
    adapted.base_sha256 = "0" * 64
    save_finetuned(adapted, tmp_path)
    with pytest.raises(LoraError, match="the adapter was trained on a base with sha256 0000"):
        load_finetuned(tmp_path)


@pytest.mark.parametrize("field", ["instruction", "rounded"])
def test_a_changed_prompt_is_noticed(adapted, tmp_path, field):
    adapted.rounded = "Q4_1"
    save_finetuned(adapted, tmp_path)
    sidecar = json.loads((tmp_path / "lora_from_scratch.json").read_text())
    (tmp_path / "lora_from_scratch.json").write_text(json.dumps(sidecar | {field: "Answer in Latin"}))
    with pytest.raises(LoraError, match="is damaged or was edited"):
        load_finetuned(tmp_path)


def test_attention_means_what_lies_in_attention(asked, tmp_path):
    assert asked.targets("attention") == tuple(f"self_attn.{name}_proj" for name in "koqv")
    assert asked.targets("q_proj, up_proj") == ("q_proj", "up_proj")


def test_an_error_leaves_the_model_as_it_was(asked):
    before = state_of(asked.model)
    with pytest.raises(LoraError, match="text 2 is '', expected words"):
        predict_logits(asked, ["happy", ""])
    assert_unchanged(asked.model, before)
