"""Every class of transformers that predicts tokens or classifies texts, tiny: adapted, trained, merged, saved and loaded.

``make test-long`` runs it, in about two minutes. A class that is refused, cannot be made tiny or
leaves layers idle is in one of the tables below, with the reason; a class that is in a table
and no longer belongs there fails, too.
"""

import re

import pytest
import torch
import transformers as hf

from lora_from_scratch import (
    LoraConfig,
    LoraError,
    add_lora,
    load_adapter,
    merge,
    parameter_report,
    save_adapter,
    unmerge,
)
from lora_from_scratch.layers import trained_tensors
from lora_from_scratch.slots import lora_layers
from tests.core.sweep.tiny_configs import every_class, inputs_for, tiny_model

pytestmark = pytest.mark.long

REFUSED = {  # by add_lora, in these words
    "FalconForCausalLM": "is of type FalconLinear.* if it computes W x [+] b, declare it",
    "FalconForSequenceClassification": "is of type FalconLinear.* if it computes W x [+] b, declare it",
    "IBertForSequenceClassification": "has no linear layer outside its head",  # layers of its own, with integers
    "FlaubertForSequenceClassification": "its head is not known; name it in modules_to_save",
    "XLMForSequenceClassification": "its head is not known; name it in modules_to_save",
    "XLNetForSequenceClassification": "its head is not known; name it in modules_to_save",
    "PerceiverForSequenceClassification": "its head is not known; name it in modules_to_save",
    "Nemotron3_5TranscribeForConditionalGeneration": "its head is not known; name it in modules_to_save",
}
NOT_MERGED = {"LukeForMaskedLM": "the weight of entity_predictions.decoder is tied to another module"}
SOUND = "it wants sound, not only tokens"
PLACES = "which of its layers share weights is given by a list, not by sizes"
CACHE = "a config of two layers has none of the kind that its cache asks"
OWN = "its config of sizes depends on more than their names say"
NOT_TINY = {  # the model without adapters cannot be built, or run, by what tiny_configs knows
    "BailingHybridForCausalLM": OWN, "BambaForCausalLM": CACHE, "BltForCausalLM": OWN, "CohereCompassForCausalLM": OWN,
    "CohereCompassTextForSequenceClassification": OWN, "DbrxForCausalLM": OWN, "Dots1ForCausalLM": OWN, "Dots3NoteForCausalLM": SOUND,
    "Emu3ForCausalLM": OWN, "Gemma3nForConditionalGeneration": "it needs timm", "Gemma4AssistantForCausalLM": OWN,
    "Gemma4UnifiedAssistantForCausalLM": OWN, "GraniteMoeHybridForCausalLM": CACHE, "HrmTextForCausalLM": OWN,
    "LayoutLMv2ForSequenceClassification": "it needs detectron2", "MoshiForCausalLM": SOUND, "MusicgenForCausalLM": SOUND,
    "MusicgenMelodyForCausalLM": SOUND, "NeoMMEForMaskedLM": OWN, "NystromformerForMaskedLM": OWN,
    "NystromformerForSequenceClassification": OWN, "Qwen4ExpForCausalLM": OWN,
    "ReformerForMaskedLM": "its backward pass needs training mode, and so dropout",
    "ReformerForSequenceClassification": "its backward pass needs training mode, and so dropout",
    "ReformerModelWithLMHead": "its backward pass needs training mode, and so dropout",
    "RwkvForCausalLM": "its own backward pass fails on the CPU: it changes a state in place",
    "VibeVoiceAsrForConditionalGeneration": SOUND, "VoxtralRealtimeForConditionalGeneration": SOUND,
    "Zamba2ForCausalLM": PLACES, "Zamba2ForSequenceClassification": PLACES, "ZambaForCausalLM": PLACES,
    "ZambaForSequenceClassification": PLACES, "xLSTMForCausalLM": OWN,
}  # fmt: skip
IDLE = {  # layers that a text alone gives no gradient, so that merging changes nothing
    "vision|visual|image|img|audio|speech|multi_modal|modality|projector|granite": "a tower for images or sound, which got none",
    "^model.encoder": "a tower for images or sound, which got none",  # of Granite's speech models
    "encoder_attn|cross_attn": "a decoder's attention to an encoder that is not there",
    "^encoder.encoder": "its random encoder's output is not handed on",
    "pooler": "what is pooled is not used",
    "indexer|compressor": "these choose what to attend to, and no gradient flows through a choice",
    "_global|e2e_query|e2w_query|w2e_query|entity_predictions": "attention of tokens that this batch marks none of",
    "layout|contact_head|xpath_unitseq2|canine.final_char_encoder": "it feeds an output that is not the logits",
    "mra.encoder": "its kernel is for GPUs, and on the CPU gives zeros",
}


def logits(model, inputs):
    found = model(**inputs)
    return next(found[key] for key in ("logits", "prediction_logits") if found.get(key) is not None)


def randomise(model):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            for p in trained_tensors(layer).values():
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))


def base_that_trains(name):
    """The model, its inputs and what it gives for them; its own backward pass works."""
    model = tiny_model(name)
    inputs = inputs_for(model, every_class()[name][1])
    before = logits(model, inputs)
    before.float().square().sum().backward()
    model.zero_grad()
    return model, inputs, before.detach()


@pytest.mark.parametrize("name", every_class())
@pytest.mark.filterwarnings("ignore")
def test_a_class_is_adapted_merged_saved_and_loaded(name, tmp_path):
    hf.logging.set_verbosity_error()
    if name in NOT_TINY:
        with pytest.raises(Exception):  # noqa: B017  # whatever transformers raises
            base_that_trains(name)
        pytest.skip(NOT_TINY[name])
    model, inputs, before = base_that_trains(name)
    if name in REFUSED:
        with pytest.raises(LoraError, match=REFUSED[name]):
            add_lora(model, LoraConfig(1, 2, "all-linear"))
        return
    add_lora(model, LoraConfig(1, 2, "all-linear"))
    torch.testing.assert_close(logits(model, inputs), before, rtol=0, atol=1e-6 * before.abs().max().item())
    randomise(model)
    adapted = logits(model, inputs)
    assert not torch.equal(adapted, before)
    adapted.float().square().sum().backward()
    check_idle(model)
    if name in NOT_MERGED:
        with pytest.raises(LoraError, match=NOT_MERGED[name]):
            merge(model)
    else:
        merged = logits(merge(model), inputs)
        torch.testing.assert_close(merged, adapted, rtol=1e-3, atol=1e-4 * adapted.abs().max().item())
        unmerge(model)
    save_adapter(model, tmp_path)
    again = load_adapter(tiny_model(name), tmp_path)
    assert torch.equal(logits(again, inputs), logits(model, inputs))


def check_idle(model):
    """The report names the adapters without a gradient, and for each there is a reason."""
    idle = [name for name, layer in lora_layers(model) if any(p.grad is None for p in trained_tensors(layer).values())]
    said = [name for name in parameter_report(model).without_gradient if name in dict(lora_layers(model))]
    assert said == idle
    unexplained = [name for name in idle if not any(re.search(pattern, name) for pattern in IDLE)]
    assert not unexplained, unexplained


def test_the_tables_name_classes_that_exist():
    assert not {*REFUSED, *NOT_MERGED, *NOT_TINY} - every_class().keys()
