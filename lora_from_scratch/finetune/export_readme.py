"""The README of an exported folder: what is in it, how it is used without this package, and what its base went through."""

from pathlib import Path

from lora_from_scratch.finetune.tuned import TunedLanguageModel

README = "README.md"
ADAPTER = "# A LoRA adapter of a language model, exported by lora_from_scratch"
MERGED = "# A language model, fine-tuned with LoRA and merged by lora_from_scratch"
CARD = {
    ADAPTER: "---\nbase_model: {base}\nlibrary_name: peft\npipeline_tag: text-generation\ntags: [lora]\n---\n\n",
    MERGED: "---\nbase_model: {base}\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n",
}
USAGE = """\
{imports}

model, tokenizer = {auto}.from_pretrained({folder!r}), AutoTokenizer.from_pretrained({folder!r})
{prompt}
answer = model.generate(**batch, max_new_tokens=20, do_sample=False)[0, batch["input_ids"].shape[1]:]
print(tokenizer.decode(answer, skip_special_tokens=True))"""
CHAT = """\
messages = {messages!r}
batch = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")"""
PLAIN = """\
batch = tokenizer([{text!r}], return_tensors="pt")"""
EXAMPLE = "i feel wonderful today"


def usage_of(title: str, tuned: TunedLanguageModel, folder: Path) -> str:
    """The lines that use an exported folder without this package."""
    auto, imports = "AutoModelForCausalLM", "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if title == ADAPTER:
        auto, imports = "AutoPeftModelForCausalLM", "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer"
    if tuned.tokenizer.chat_template:
        prompt = CHAT.format(messages=messages_of(tuned, EXAMPLE))
    else:
        prompt = PLAIN.format(text=f"{tuned.classifier.instruction}\n\nMessage: {EXAMPLE}\nLabel:" if tuned.classifier else EXAMPLE)
    return USAGE.format(imports=imports, auto=auto, folder=str(folder), prompt=prompt)


def messages_of(tuned: TunedLanguageModel, text: str) -> list[dict[str, str]]:
    """The messages whose template has the tokens that the adapter was trained on: where the instruction is, a template decides."""
    if not tuned.classifier:
        return [{"role": "user", "content": text}]
    instruction, prompt, tokenizer = tuned.classifier.instruction, tuned.classifier.prompt, tuned.tokenizer
    apart = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
    asked = tokenizer.decode(prompt.around(tokenizer, [text], tuned.classifier.max_length)[0])
    try:
        rendered = str(tokenizer.apply_chat_template(apart, tokenize=False, add_generation_prompt=True))
    except Exception:  # a template's own: some know no system
        rendered = ""
    same = tokenizer.decode(tokenizer(rendered, add_special_tokens=False)["input_ids"]) == asked
    return apart if same else [{"role": "user", "content": f"{instruction}\n\n{text}"}]


def write_readme(title: str, tuned: TunedLanguageModel, folder: Path, usage: str, notes: list[str]) -> None:
    """The README, with the fields on top that a model hub reads if it has the base."""
    card = CARD[title].format(base=tuned.base) if tuned.on_hub else ""
    labels = f" It answers with one of: {', '.join(tuned.classifier.label_names)}." if tuned.classifier else ""
    said = "".join(f"{note}\n\n" for note in notes)
    (folder / README).write_text(
        f"{card}{title}\n\nThe base is `{tuned.base}`.{labels}\n\n{said}```python\n{usage}\n```\n", encoding="utf-8"
    )


def is_export(folder: Path) -> bool:
    """Whether a folder is one that was exported, which may be replaced if that is asked for."""
    try:
        lines = (folder / README).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return ADAPTER in lines or MERGED in lines
