import math

import torch
import torch.nn.functional as F

from book.study import voices
from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.finetune import Split
from lora_from_scratch.finetune.language import load_language_model
from lora_from_scratch.finetune.loop import IGNORED


def adapted(tiny_decoder):
    base = load_language_model(tiny_decoder)
    torch.manual_seed(0)
    add_lora(base.model, LoraConfig(r=2, target_modules="all-linear"))
    for name, p in base.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    return base


def test_a_shared_opening_changes_neither_loss_nor_gradients(tiny_decoder):
    base = adapted(tiny_decoder)
    base.model.double()  # in float32 the two round differently, by how much depends on the processor
    start = voices.opening(base.tokenizer)
    batch = voices.padded([[7, 9, 11, 4], [12, 3], [8, 8, 8, 8, 8, 2, 3]])
    trained = [p for p in base.model.parameters() if p.requires_grad]
    shared = voices.answer_nats(base.model, start, batch)
    whole = torch.cat([torch.tensor([start]).expand(3, -1), batch["input_ids"]], 1)
    logits = base.model(whole).logits[:, len(start) - 1 : -1]
    plain = F.cross_entropy(logits.float().transpose(1, 2), batch["labels"], ignore_index=IGNORED, reduction="none")
    assert torch.allclose(shared, plain, atol=1e-6)
    for one, other in zip(torch.autograd.grad(shared.sum(), trained), torch.autograd.grad(plain.sum(), trained), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def test_the_loss_of_a_text_is_its_own_whatever_it_is_measured_with(tiny_decoder):
    base = adapted(tiny_decoder)
    start = voices.opening(base.tokenizer)
    rows = [[7, 9, 11, 4], [12, 3], [8, 8, 8, 8, 8, 2, 3], [5]]
    together = voices.text_nats(base.model, start, rows, size=3)
    alone = [voices.text_nats(base.model, start, [row])[0] for row in rows]
    assert [tokens for _, tokens in together] == [4, 2, 7, 1]
    assert torch.allclose(torch.tensor(together), torch.tensor(alone), atol=1e-4)


def test_perplexity_counts_every_token_once():
    assert abs(voices.perplexity([(math.log(2), 1), (0.0, 1)]) - 2**0.5) < 1e-6


def test_texts_are_the_emotions_own_each_once_and_not_known():
    split = Split(["a", "b", "a", "c", "d"], [1, 1, 1, 0, 1])
    assert voices.texts_of(split, 1) == ["a", "b", "d"]
    assert voices.texts_of(split, 1, known=["b"]) == ["a", "d"]


def test_answers_end_the_turn_and_long_ones_are_left_out(tiny_decoder):
    tokenizer = load_language_model(tiny_decoder).tokenizer
    rows = voices.answers(tokenizer, ["anger", "joy joy joy joy"], longest=3)
    assert len(rows) == 1 and rows[0][-1] == tokenizer.eos_token_id


def test_a_sample_depends_on_its_seed_alone_and_stops_at_the_end_of_turn(tiny_decoder):
    base = load_language_model(tiny_decoder)
    start = voices.opening(base.tokenizer)
    first, again, other = (voices.sample(base.model, base.tokenizer, start, 3, longest=6, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    with torch.no_grad():  # a model that can only end
        base.model.lm_head.weight.zero_()
        base.model.lm_head.bias = torch.nn.Parameter(torch.full((len(base.tokenizer),), -50.0))
        base.model.lm_head.bias[base.tokenizer.eos_token_id] = 50
    assert voices.sample(base.model, base.tokenizer, start, 3, longest=6) == ["", "", ""]


def test_copies_are_found_whole_or_in_part_and_in_any_spelling():
    data = [Split(["i dont feel like a stranger in this town any more", "im glad"], [0, 1])]
    copied = ["I don't feel like a stranger in this town any more.", "so I don't feel like a stranger in this village", "I'm glad!"]
    assert voices.copies(copied, data) == [True, True, True]
    assert voices.copies(["i dont feel like a friend in this town", "im glad to be here"], data) == [False, False]


def test_batches_hold_every_row_once_an_epoch():
    rows = [[i] * (1 + i % 4) for i in range(10)]
    made = voices.batches(rows, 4, seed=0)
    epoch = [next(made) for _ in range(3)]
    assert sorted(ids[0].item() for batch in epoch for ids in batch["input_ids"]) == list(range(10))
    assert all((batch["labels"] == IGNORED).sum() <= 3 * len(batch["labels"]) for batch in epoch)
