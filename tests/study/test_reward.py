"""Chapter 18's learning from a judge: what is sampled, what its probability is, and that reward rises."""

import ast
import inspect
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.finetune import load_classifier, load_emotion
from lora_from_scratch.finetune.language import load_language_model
from study import reward
from study.runs import reward as runs
from tests.conftest import make_decoder


def adapted(folder):
    """A tiny model with an adapter, its tokenizer, the prompt's tokens, and an optimiser for what trains."""
    base = load_language_model(folder)
    base.model.model.norm.weight.data.mul_(10)  # else its logits are so small that no text is likelier than another
    torch.manual_seed(0)
    add_lora(base.model, LoraConfig(2, 4, target_modules="all-linear"))
    optimiser = torch.optim.AdamW([p for p in base.model.parameters() if p.requires_grad], lr=3e-2, weight_decay=0)
    return base.model, base.tokenizer, reward.prompt_of(base.tokenizer), optimiser


@pytest.fixture
def small(tiny_decoder):
    return adapted(tiny_decoder)


def test_what_is_sampled_has_the_probability_that_one_whole_pass_gives_it(small):
    model, tokenizer, prompt, _ = small
    tokens, mask = reward.sample_texts(model, prompt, 5, 7, tokenizer.eos_token_id)
    assert tokens.shape == mask.shape == (5, 7)
    whole = model(torch.cat([prompt.expand(5, -1), tokens], 1)).logits[:, prompt.shape[1] - 1 : -1].log_softmax(-1)
    expected = whole.gather(-1, tokens[..., None]).squeeze(-1)
    torch.testing.assert_close(reward.log_probs(model, prompt, tokens), expected, atol=1e-4, rtol=1e-4)


def test_samples_are_as_frequent_as_they_are_probable(small):
    model, tokenizer, prompt, _ = small
    tokens, _ = reward.sample_texts(model, prompt, 4000, 1, tokenizer.eos_token_id)
    p = model(prompt).logits[0, -1].softmax(-1)
    found = torch.bincount(tokens[:, 0], minlength=len(p)) / 4000
    assert (found - p).abs().max() < 4 * (p * (1 - p) / 4000).sqrt().max()


def test_a_text_ends_with_its_first_stop_which_counts(small):
    model, tokenizer, prompt, _ = small
    torch.manual_seed(1)
    tokens, _ = reward.sample_texts(model, prompt, 40, 30, tokenizer.eos_token_id)
    stop = tokens[0, 3].item()  # any token can be the one that ends
    torch.manual_seed(1)
    again, mask = reward.sample_texts(model, prompt, 40, 30, stop)
    assert torch.equal(tokens, again)
    for row, kept in zip(tokens.tolist(), mask.tolist(), strict=True):
        length = row.index(stop) + 1 if stop in row else 30
        assert kept == [True] * length + [False] * (30 - length)


def learn(small, judge, steps, beta):
    model, tokenizer, prompt, optimiser = small
    torch.manual_seed(2)
    return [reward.reinforce_step(model, tokenizer, optimiser, prompt, judge, 32, 6, beta) for _ in range(steps)]


def early(texts):
    """The share of six words that begin with one of the alphabet's first letters."""
    return torch.tensor([sum(word < "h" for word in text.split()) / 6 for text in texts])


def test_the_reward_rises_and_a_penalty_keeps_it_and_the_drift_lower(small, tiny_decoder):
    free = learn(small, early, 30, 0.0)
    assert free[0]["drift"].abs().max() < 1e-4  # an adapter starts as the base
    assert free[-1]["rewards"].mean() > free[0]["rewards"].mean() + 0.3
    held = learn(adapted(tiny_decoder), early, 30, 0.2)
    assert held[-1]["drift"].mean() < free[-1]["drift"].mean() / 2
    assert held[-1]["rewards"].mean() < free[-1]["rewards"].mean()


def test_only_the_adapter_learns(small):
    model = small[0]
    before = {name: p.clone() for name, p in model.named_parameters()}
    learn(small, early, 2, 0.1)
    assert {name for name, p in model.named_parameters() if not torch.equal(p, before[name])} == {
        name for name in before if "lora_" in name
    }


def test_equal_rewards_teach_nothing(small):
    model = small[0]
    before = {name: p.clone() for name, p in model.named_parameters()}
    learn(small, lambda texts: torch.full([len(texts)], 0.7), 1, 0.0)
    # The baseline is their mean: all that is left of the advantage is rounding, which the first step of Adam would enlarge.
    assert all((p - before[name]).abs().max() < 1e-3 or "lora_B" in name for name, p in model.named_parameters())


def test_dpo_starts_at_ln_2_and_pulls_pairs_apart(small):
    model, tokenizer, prompt, optimiser = small
    tokens, mask = reward.sample_texts(model, prompt, 8, 6, tokenizer.eos_token_id)
    base = (reward.log_probs(model, prompt, tokens) * mask).sum(1).detach()
    losses = []
    for _ in range(20):
        losses.append(loss := reward.dpo_loss(model, prompt, tokens, mask, base, 0.1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[0].item() == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < 0.5
    now = (reward.log_probs(model, prompt, tokens) * mask).sum(1) - base
    assert (now[:4] > now[4:]).all()


def test_texts_are_compared_with_rows_whatever_their_capitals_and_stops():
    data = load_emotion("built-in")
    unlike = reward.not_in(data)
    row = data.validation.texts[3]
    assert not unlike(row) and not unlike(f" {row.upper()}!  ") and unlike(f"{row} indeed")


def test_repeating_oneself_lowers_the_share_of_distinct_pairs():
    assert reward.distinct_pairs(["i am glad", "you are sad"]) == 1
    assert reward.distinct_pairs(["i am glad", "I am glad"]) == 0.5
    assert reward.distinct_pairs(["", "word"]) == 0


def functions(source: str) -> dict[str, str]:
    """The functions at the top of a source, as their trees say them."""
    return {node.name: ast.dump(node) for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def test_the_chapter_writes_out_these_very_functions():
    book = Path(inspect.getfile(reward)).parents[1]
    cells = json.loads((book / "18_reward.ipynb").read_text(encoding="utf-8"))["cells"]
    written = {}
    for cell in cells:
        if cell["cell_type"] == "code" and "set-up" not in cell["metadata"].get("tags", ()):
            written |= functions("".join(cell["source"]))
    here = functions(inspect.getsource(reward))
    for name in ("sample_texts", "log_probs", "decode", "reinforce_step", "dpo_loss"):
        assert written[name] == here[name], name


def test_a_label_that_the_data_do_not_have():
    with pytest.raises(LoraError, match="no label 'boredom' in these data, only sadness, joy"):
        reward.words_judge(load_emotion("built-in"), "boredom")


def test_a_tokenizer_that_cannot_chat(tmp_path):
    tokenizer = load_language_model(make_decoder(tmp_path, ["one text"], chat=None)).tokenizer
    with pytest.raises(LoraError, match="no chat template"):
        reward.prompt_of(tokenizer)


@pytest.fixture
def small_study(tiny_decoder, tiny_backbone, monkeypatch):
    monkeypatch.setattr(runs, "load_classifier", lambda name: load_classifier(tiny_backbone))
    monkeypatch.setattr(runs, "PAIRS", 8)
    return runs.Study(load_language_model(tiny_decoder), load_emotion("built-in"))


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(small_study, tmp_path, monkeypatch):
    run = runs.Run(1, 1e-2, 0.1, seed=3, steps=4, n=8, length=5)

    def result(name):
        return runs.train(name, run, lambda: small_study, tmp_path)["steps"]

    whole = result("whole")
    plain, calls = reward.reinforce_step, []

    def stops(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(reward, "reinforce_step", stops)
    with pytest.raises(KeyboardInterrupt):
        result("stopped")
    monkeypatch.setattr(reward, "reinforce_step", plain)
    assert (tmp_path / "stopped.pt").exists()
    with pytest.raises(LoraError, match=r"stopped.pt is of .*'rank': 1.*, expected .*'rank': 2.*: delete it"):
        runs.train("stopped", replace(run, rank=2), lambda: small_study, tmp_path)
    assert result("stopped") == whole
    assert not list(tmp_path.iterdir())


def test_a_record_says_what_was_written_and_how_it_was_judged(small_study, tmp_path):
    record = runs.train("one", runs.Run(1, 1e-2, 0.0, seed=0, steps=3, n=8, length=5), lambda: small_study, tmp_path)
    first, _, last = record["steps"]
    assert set(runs.MEANS) < set(first) and len(first["texts"]) == len(last["texts"]) == 8
    assert first["kl"] == pytest.approx(0, abs=1e-4) and last["kl"] != 0
    assert record["trained_parameters"] > 0 and set(record["judges_on_test"]) == {"words", "sentences"}
    assert runs.tail(record, "reward", 2) == pytest.approx((record["steps"][1]["reward"] + last["reward"]) / 2)


def test_a_text_that_is_a_row_is_counted_and_not_kept(small_study):
    row = small_study.data.train.texts[0]
    found = {"texts": [row, "nobody wrote this"], "rewards": torch.tensor([0.5, 0.6]), "drift": torch.zeros(2),
             "base": torch.tensor([-4.0, -4.0]), "tokens": torch.tensor([3, 5])}  # fmt: skip
    said = small_study.row(found, 2)
    assert said["texts"] == ["nobody wrote this"] and said["left_out"] == 1 and said["strangeness"] == 1


def test_pairs_teach_the_study_s_model(small_study, tmp_path):
    record = runs.train("pairs", runs.Run(1, 1e-2, 0.1, seed=0, steps=6, method="dpo", n=8, length=5), lambda: small_study, tmp_path)
    before, after = record["steps"]
    assert before["kl"] == pytest.approx(0, abs=1e-4) and after["kl"] != 0
    assert len(after["losses"]) == 6 and after["losses"][-1] < after["losses"][0]


def test_which_runs_there_are(monkeypatch):
    monkeypatch.setattr(runs.records, "tuned", lambda *given: {})
    waiting = runs.runs()
    assert len(waiting) == 2 + (4 + 4 + 10) + 30 + 5 and sum(run is None for run in waiting.values()) == 30
    tries = {lr: {"settings": {"beta": 0.1}, "steps": [{"reward": value, "kl": 1.0}] * 4}
             for lr, value in zip(runs.RATES, (0.5, 0.9, 0.7, 0.1), strict=True)}  # fmt: skip
    monkeypatch.setattr(runs.records, "tuned", lambda *given: tries)
    assert runs.best_rate(64) is None, "its lower rates weren't tried"
    lower = {lr: tries[1e-3] | {"steps": [{"reward": 1.0, "kl": 1.0}] * 4} for lr in runs.LOWER_RATES[64]}
    monkeypatch.setattr(runs.records, "tuned", lambda method, folder: tries | (lower if method == "r64" else {}))
    found = runs.runs()
    assert found["r64-lr7.8125e-06-free-seed0"].lr == 7.8125e-6
    assert all(run is not None for run in found.values())
    free, held = found["r8-lr0.001-free-seed1"], found["r8-lr0.001-penalty-seed1"]
    assert free.lr == held.lr == 1e-3 and (free.beta, held.beta) == (0.0, runs.BETA)
    assert "r1-lr0.002-free-seed0" in found and "r1-lr0.001-free-seed0" in found  # the first pair keeps its own rate
