"""The command merge: a fine-tuned classifier without adapters, in a folder that transformers reads without this package."""

import argparse
import hashlib
import shutil
from pathlib import Path

import torch
from torch import nn

from lora_from_scratch.config import LoraError
from lora_from_scratch.extras.merged import merge_and_unload
from lora_from_scratch.finetune.failures import RunFailed
from lora_from_scratch.finetune.language_classifier import LanguageClassifier
from lora_from_scratch.finetune.lock import locked
from lora_from_scratch.finetune.methods import choose_trained, uses_lora
from lora_from_scratch.finetune.model import HERE, TRAINED, TextClassifier, load_finetuned, save_finetuned
from lora_from_scratch.finetune.out import replacing
from lora_from_scratch.finetune.projected_head import ProjectedHead
from lora_from_scratch.finetune.sidecar import RECORD

README = "README.md"
TITLE = "# A text classifier, fine-tuned with LoRA and merged by lora_from_scratch"  # by which --overwrite knows its own
USAGE = """\
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

folder, labels = {folder!r}, {labels!r}
tokenizer, encoder, head = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder), load_file(f"{{folder}}/{trained}")
batch = tokenizer(["i feel wonderful today"], padding=True, truncation=True, max_length={max_length}, return_tensors="pt")
states, mask = encoder(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
logits = (states * mask).sum(1) / mask.sum(1) @ head["classifier.weight"].T + head["classifier.bias"]
print([labels[k] for k in logits.argmax(1)])"""

ASKING = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, before, after = {folder!r}, {before!r}, {after!r}
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
prompt = tokenizer(before + "i feel wonderful today" + after, add_special_tokens=False, return_tensors="pt")
answer = model.generate(**prompt, max_new_tokens={longest}, do_sample=False)[0, prompt["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))"""


def add_merge_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("adapter", help="the folder that finetune wrote")
    sub.add_argument("--out", required=True, help="the folder for model, tokenizer and head")
    sub.add_argument("--overwrite", action="store_true", help="replace the merged model in --out")


def run_merge(args: argparse.Namespace) -> dict:
    """Write the merged classifier into a folder and print the lines that use it without this package.

    The folder holds the base and its tokenizer as transformers saves them, and an encoder's head as ``trained.safetensors``:
    W [labels, width] and b [labels], on the mean of the last states. ``predict`` and ``evaluate`` read it, too.

    Raises:
        LoraError: the base is in 4 bits, or ``--out`` is there already; see also ``load_finetuned``.
        RunFailed: the folder cannot be written.
    """
    out, adapter = Path(args.out), Path(args.adapter)
    if out.exists() and not (args.overwrite and out.is_dir()):
        raise LoraError(f"{out} is there already: choose another --out" + (", or pass --overwrite" if out.is_dir() else ""))
    if out.exists() and any(out.iterdir()) and not _is_merged(out):
        raise LoraError(f"{out} holds something else than a merged model: choose another --out")
    classifier = merged(load_finetuned(adapter))
    usage = usage_of(classifier, out)
    try:
        _write(classifier, adapter, out, usage)
    except OSError as error:
        raise RunFailed(f"{out} cannot be written: {error}") from None
    print(f"Saved: {out}\nWithout this package:\n\n{usage}")
    return {"adapter": args.adapter, "out": str(out), "labels": list(classifier.label_names), "usage": usage}


def usage_of(classifier: TextClassifier, folder: Path) -> str:
    """The lines that use what is in ``folder`` without this package."""
    if not isinstance(classifier, LanguageClassifier):
        labels = list(classifier.label_names)
        return USAGE.format(folder=str(folder), labels=labels, max_length=classifier.max_length, trained=TRAINED)
    prompt = classifier.prompt
    before, after = (str(classifier.tokenizer.decode(ids)) for ids in (prompt.before, prompt.after))
    return ASKING.format(folder=str(folder), before=before + prompt.lead, after=after, longest=max(map(len, prompt.answers)))


def _is_merged(folder: Path) -> bool:
    try:
        return (folder / README).read_text(encoding="utf-8").startswith(TITLE)
    except (OSError, UnicodeDecodeError):
        return False


def merged(classifier: TextClassifier) -> TextClassifier:
    """The same classifier without adapters, in place: a plain encoder with a linear layer on top, or a plain language model.

    Raises:
        LoraError: see ``merge``: the base is in 4 bits, for one.
    """
    if uses_lora(classifier.method):
        merge_and_unload(classifier.model)
    head = getattr(classifier.model, "classifier", None)
    if isinstance(head, ProjectedHead):
        classifier.model.classifier = _unprojected(head)
    choose_trained(classifier.model, "head")
    classifier.method, classifier.backbone = "head", HERE
    return classifier


@torch.no_grad()
def _unprojected(head: ProjectedHead) -> nn.Linear:
    """One linear layer for ``C P (f - m) + c``: ``(C P) f + (c - C P m)``."""
    plain = nn.Linear(head.in_features, head.out_features)
    W = head.linear.weight.double() @ head.directions.double()
    plain.weight.copy_(W)
    plain.bias.copy_(head.linear.bias.double() - W @ head.mean.double())
    return plain


def _write(classifier: TextClassifier, adapter: Path, out: Path, usage: str) -> None:
    """All files of the folder, once all of them are whole."""
    from transformers.utils import logging

    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one for a single file
    with locked(out), replacing(out) as new:
        classifier.base.save_pretrained(new, max_shard_size="1TB")  # one file, whose sha256 says that it is whole
        classifier.tokenizer.save_pretrained(new)
        if bar:
            logging.enable_progress_bar()
        with open(new / "model.safetensors", "rb") as file:
            classifier.base_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        save_finetuned(classifier, new)
        if (adapter / RECORD).exists():  # how it was trained, and on what
            shutil.copyfile(adapter / RECORD, new / RECORD)
        (new / README).write_text(f"{TITLE}\n\n```python\n{usage}\n```\n", encoding="utf-8")
