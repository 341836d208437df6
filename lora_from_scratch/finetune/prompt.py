"""How a language model is asked for a label: its chat template around a text, and the tokens of every answer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.weights import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "TEXTGOESHERE"  # stands for the text while the template is taken apart


@dataclass(frozen=True)
class Prompt:
    """The tokens around a text, and those of each label's answer.

    A text with the tokens t becomes ``before + t + after``, and the model is to go on with ``answers[k]``: the label's
    name, of however many tokens, and ``end``, which ends its turn.
    """

    before: list[int]
    after: list[int]
    answers: list[list[int]]
    end: int
    lead: str  # what stands in front of the text, so that its first word gets the token that it has within a sentence

    @property
    def length(self) -> int:
        """How many tokens a prompt has beside the text's, the longest answer included."""
        return len(self.before) + len(self.after) + max(map(len, self.answers))

    @property
    def compared(self) -> list[list[int]]:
        """The tokens by whose probability labels are told apart.

        They are the names' own. Only where one name is the beginning of another does what ends the turn belong to them,
        since otherwise the shorter name could never be less probable than the longer one.
        """
        names = [answer[:-1] for answer in self.answers]
        begins = any(a is not b and b[: len(a)] == a for a in names for b in names)
        return self.answers if begins else names

    def around(self, tokenizer: "PreTrainedTokenizerBase", texts: list[str], max_length: int) -> list[list[int]]:
        """The tokens of a prompt for each text, of which ``max_length`` tokens are kept.

        What looks like a special token in a text is read as the characters that it is made of: no text can end the turn.
        """
        encoded = tokenizer(
            [self.lead + text for text in texts],
            add_special_tokens=False, split_special_tokens=True, truncation=True, max_length=max_length,
        )  # fmt: skip
        return [self.before + ids + self.after for ids in encoded["input_ids"]]


def default_instruction(label_names: tuple[str, ...]) -> str:
    """What the model is told to do, if nothing else is said."""
    *others, last = label_names
    names = f"{', '.join(others)} or {last}" if others else last
    return f"Answer with the label of the message: {names}."


def make_prompt(tokenizer: "PreTrainedTokenizerBase", instruction: str, label_names: tuple[str, ...]) -> Prompt:
    """A prompt in the tokenizer's chat template; or, if it has none, as ``Message:`` and ``Label:``.

    The instruction is the system's message, which spares the tokens of a default one. Where a template
    knows no system the instruction stands in front of the text.

    Raises:
        LoraError: the template fails, or leaves the text out; or two labels have the same tokens.
    """
    if tokenizer.chat_template:
        before, after, end = _from_template(tokenizer, instruction)
        lead = space = ""
        ids_before = _ids(tokenizer, before)
    else:
        before, after, end = f"{instruction}\n\nMessage:", "\nLabel:", tokenizer.eos_token_id
        lead = space = " "
        ids_before = tokenizer(before)["input_ids"]  # with what the tokenizer begins a text with
        if ids_before and ids_before[-1] == tokenizer.eos_token_id:
            ids_before = ids_before[:-1]
    answers = [[*_ids(tokenizer, space + name), end] for name in label_names]
    for name, answer in zip(label_names, answers, strict=True):
        same = [other for other, ids in zip(label_names, answers, strict=True) if ids == answer and other != name]
        if same or len(answer) == 1 or tokenizer.unk_token_id in answer:
            what = f"the same tokens as {same[0]!r}" if same else "no tokens of its own"
            raise LoraError(f"the label {name!r} has {what} in this model's vocabulary, so no answer could name it")
    return Prompt(ids_before, _ids(tokenizer, after), answers, end, lead)


def _from_template(tokenizer: "PreTrainedTokenizerBase", instruction: str) -> tuple[str, str, int]:
    """What a template puts before and after a user's text, and the token that ends the answer."""
    question = [{"role": "system", "content": instruction}, {"role": "user", "content": MARK}]
    try:
        try:
            asked = _rendered(tokenizer, question, add_generation_prompt=True)
        except Exception:  # a template's own: some know no system
            asked = ""
        if instruction not in asked:
            question = [{"role": "user", "content": f"{instruction}\n\n{MARK}"}]
            asked = _rendered(tokenizer, question, add_generation_prompt=True)
        whole = _rendered(tokenizer, [*question, {"role": "assistant", "content": MARK}])
    except Exception as error:
        raise LoraError(f"the tokenizer's chat template fails: {first_line(error)}") from error
    if asked.count(MARK) != 1 or instruction not in asked:
        raise LoraError("the tokenizer's chat template leaves out what the user says")
    before, after = asked.split(MARK)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ends = [i for i in _ids(tokenizer, whole.rpartition(MARK)[2]) if i in special]
    return before, after, ends[0] if ends else tokenizer.eos_token_id


def _rendered(tokenizer: "PreTrainedTokenizerBase", messages: list[dict], **how) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **how))


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
