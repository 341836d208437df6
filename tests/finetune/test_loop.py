"""The training loop: the steps of `finetune`, to look at on the way, for any loss and any optimiser."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lora_from_scratch import LoraConfig, LoraError, add_lora
from lora_from_scratch.finetune import (
    TrainConfig,
    class_scores,
    encoder_targets,
    evaluate,
    finetune,
    load_classifier,
    steps,
)
from lora_from_scratch.finetune.batches import train_batches
from lora_from_scratch.finetune.loop import IGNORED
from lora_from_scratch.finetune.parallel import accelerator_for
from lora_from_scratch.finetune.recipe import parameter_groups, rate_share
from tests.conftest import state_of

CONFIG = TrainConfig(lr=2e-2, precision="fp32", batch_size=16, head_lr=None)


def weights(model) -> dict:
    return state_of(model)["weights"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_script_takes_the_steps_of_finetune_and_may_look_in_between(classifier, data, tiny_backbone, precision):
    config = TrainConfig(lr=2e-2, max_steps=20, precision=precision, batch_size=16, head_lr=None)
    history = finetune(classifier, data, config)
    other = load_classifier(tiny_backbone)
    torch.manual_seed(0)
    add_lora(other.model, LoraConfig(4, 8, encoder_targets(other.model.backbone)))
    batches, seen = train_batches(other, data.train, config), []
    for step, measured in steps(other.model, batches, class_scores, config, 20):
        seen.append(measured)
        if step == 7:
            other.model.eval()  # which would switch dropout off for the rest
            evaluate(other, data.validation)
    assert len(seen) == 20 and other.model.training
    mine, theirs = weights(classifier.model), weights(other.model)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    loss, accuracy = torch.stack(seen).mean(0).tolist()
    assert (history.steps[0]["loss"], history.steps[0]["accuracy"]) == (loss, accuracy)


def test_taken_in_two_goes_it_is_the_same_run(classifier, data):
    other = copy.deepcopy(classifier)
    batches = list(train_batches(classifier, data.train, CONFIG))[:10]
    together = list(steps(classifier.model, batches, class_scores, CONFIG, 10))
    optimizer = torch.optim.AdamW(parameter_groups(other.model, CONFIG), betas=(0.9, 0.98), weight_decay=0, fused=True)
    apart = list(itertools.islice(steps(other.model, batches, class_scores, CONFIG, 10, optimizer=optimizer), 4))
    apart += steps(other.model, batches[4:], class_scores, CONFIG, 10, optimizer=optimizer, done=4)
    assert [step for step, _ in apart] == list(range(1, 11))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(together, apart, strict=True))
    assert not list(steps(other.model, batches, class_scores, CONFIG, 10, done=10))


def test_an_optimiser_of_ones_own_follows_the_schedule(classifier, data):
    before = weights(classifier.model)
    trained = [p for p in classifier.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    batches = train_batches(classifier, data.train, CONFIG)
    rates = [optimizer.param_groups[0]["lr"] for _ in steps(classifier.model, batches, class_scores, CONFIG, 12, optimizer=optimizer)]
    assert rates == pytest.approx([0.5 * rate_share(step, 12, CONFIG.warmup) for step in range(12)])
    moved = {name for name, tensor in weights(classifier.model).items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, p in classifier.model.named_parameters() if p.requires_grad}


def test_the_gradient_is_clipped_unless_told_otherwise(classifier, data):
    batches = list(train_batches(classifier, data.train, CONFIG))[:1]
    start, lengths = copy.deepcopy(classifier.model), []
    for clip in (1e-3, None):
        model = copy.deepcopy(start)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        config = TrainConfig(precision="fp32", clip=clip)
        list(steps(model, batches, class_scores, config, 1, optimizer=optimizer))
        moved = zip(model.parameters(), start.parameters(), strict=True)
        lengths.append(torch.stack([(a - b).norm() for a, b in moved]).norm().item())
    assert lengths[0] == pytest.approx(1e-3, rel=1e-2) and lengths[1] > 1e-2


class NextToken(nn.Module):
    """A language model of the smallest kind: what follows a token depends on that token alone."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, ids):
        return self.out(self.embed(ids))


def completion(model, batch):
    """The cross-entropy of the completion's tokens, and how far it is from certain."""
    logits = model(batch["input_ids"][:, :-1]).flatten(0, 1)
    labels = batch["labels"][:, 1:].flatten()
    chances = logits.softmax(-1).amax(-1)[labels != IGNORED]
    return F.cross_entropy(logits, labels, ignore_index=IGNORED), 1 - chances.mean()


def test_the_tokens_of_a_completion_are_a_loss_as_well_whatever_parts_a_batch_is_taken_in():
    """Rows have 1 to 6 tokens of a completion: a mean over rows, or over parts, would be another loss."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(8):
        ids = torch.randint(11, (6, 8), generator=generator)
        labels = ids.clone()
        for row in range(6):
            labels[row, : 7 - row] = IGNORED
        batches.append({"input_ids": ids, "labels": labels})
    torch.manual_seed(0)
    start, found = NextToken(), []
    for parts in (1, 4):
        model = copy.deepcopy(start)
        config = TrainConfig(lr=1e-2, precision="fp32", accumulate=parts)
        found.append([measured for _, measured in steps(model, batches, completion, config, 8)])
    whole, cut = map(torch.stack, found)
    assert whole.shape == (8, 2) and whole[-1, 0] < whole[0, 0]
    torch.testing.assert_close(whole, cut, rtol=1e-5, atol=1e-6)
    assert whole[0, 0].item() == pytest.approx(completion(start, batches[0])[0].item())


def test_nothing_to_train_is_said_before_the_first_step(classifier, data):
    classifier.model.requires_grad_(False)
    with pytest.raises(LoraError, match="nothing in the model trains"):
        next(steps(classifier.model, [], class_scores, CONFIG, 3))


def test_an_accelerator_may_be_given(classifier, data):
    on_cpu = accelerator_for("fp32", cpu=True)
    batches = train_batches(classifier, data.train, CONFIG)
    assert len(list(steps(classifier.model, batches, class_scores, CONFIG, 3, accelerator=on_cpu))) == 3
    assert next(classifier.model.parameters()).device.type == "cpu"
