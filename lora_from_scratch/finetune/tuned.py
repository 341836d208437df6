"""A fine-tuned language model as an export takes it: loaded, and with what has to be said about its base and its prompt."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_from_scratch.adapter_files import CONFIG, load_adapter
from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.language import load_language_model
from lora_from_scratch.finetune.language_classifier import LanguageClassifier
from lora_from_scratch.finetune.model import HERE, load_finetuned
from lora_from_scratch.finetune.sidecar import SIDECAR, read_sidecar
from lora_from_scratch.slots import Injection, injection_of, is_adapted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Weights:
    """Which weights of a base: their sha256, and the format that they had been rounded to, if any."""

    sha256: str
    rounded: str | None


@dataclass
class TunedLanguageModel:
    """A language model with an adapter in it, or fine-tuned in full.

    ``base`` is what other programs load it by: its name on the hub, or a folder's full path.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    base: str
    weights: Weights  # that are loaded here
    trained_on: Weights | None = None  # None: nobody said
    quantize: str | None = None  # "nf4": how the base was kept while the adapter was trained
    classifier: LanguageClassifier | None = None  # which knows the prompt
    folder: Path | None = None  # that it was read from

    @property
    def on_hub(self) -> bool:
        return not Path(self.base).is_absolute()

    @property
    def stops(self) -> list[int]:
        """The tokens that end an answer: what training taught, and what the tokenizer calls the end."""
        taught = [self.classifier.prompt.end] if self.classifier else []
        return list(dict.fromkeys([*taught, self.tokenizer.eos_token_id]))

    @property
    def adapter(self) -> Injection:
        """Its active adapter.

        Raises:
            LoraError: it has none, since it was fine-tuned without.
        """
        if not is_adapted(self.model):
            raise LoraError("this model was fine-tuned without adapters, so there is none to export: --to merged and --to gguf take it whole")
        return injection_of(self.model)

    def notes(self) -> list[str]:
        """What has to be said of an exported adapter about the weights that it was trained on."""
        said = []
        if self.trained_on and self.trained_on.rounded:
            said.append(
                f"It was trained on weights of {self.base} that had been rounded to {self.trained_on.rounded} (sha256 "
                f"{self.trained_on.sha256}). On the weights as they were published it adds the same update, and the answers differ "
                "a little, so measure them there."
            )
        if self.quantize:
            said.append(
                f"The base's linear layers were kept in {self.quantize.upper()} (4 bits) while it was trained. On a base in floats "
                "the answers differ a little, so measure them there."
            )
        return said

    def merged_notes(self) -> list[str]:
        """What has to be said of an exported model about the weights that it was merged into."""
        if not self.weights.rounded:
            return []
        return [
            f"The update was added to weights that had been rounded to {self.weights.rounded}, and not to those that were published: "
            f"{self.base}, sha256 {self.weights.sha256}."
        ]


def load_tuned(folder: Path, base: str | None = None, base_name: str | None = None) -> TunedLanguageModel:
    """The fine-tuned language model in a folder.

    Args:
        folder: that ``finetune`` wrote, or an adapter in PEFT's format.
        base: the base of an adapter in PEFT's format, as ``load_language_model`` takes it.
        base_name: what to write as the base's name instead of where it was loaded from.

    Raises:
        LoraError: the folder holds an encoder's classifier or something else, or lacks the base's name; see also
            ``load_finetuned``, ``load_language_model`` and ``load_adapter``.
    """
    if (folder / SIDECAR).is_file() or not base:
        if not (folder / SIDECAR).is_file() and (folder / CONFIG).is_file():
            raise LoraError(f"{folder} has no {SIDECAR}, which names the adapter's base: pass --base")
        return _ours(folder, base, base_name)
    loaded = load_language_model(base)
    load_adapter(loaded.model, folder)
    name = base_name or loaded.hub or str(Path(base).resolve())
    return TunedLanguageModel(loaded.model, loaded.tokenizer, name, Weights(loaded.sha256, loaded.rounded), folder=folder)


def _ours(folder: Path, base: str | None, base_name: str | None) -> TunedLanguageModel:
    sidecar = read_sidecar(folder)
    if base:
        raise LoraError(f"{folder / SIDECAR} names the base: --base is for a folder without it")
    if "instruction" not in sidecar:
        raise LoraError(f"{folder} holds an encoder's classifier, which none of these formats has a place for: merge writes it for transformers")
    classifier = load_finetuned(folder)
    assert isinstance(classifier, LanguageClassifier)  # load_finetuned has compared the two
    # What merge wrote is a base of its own, and what its weights had been through only the sidecar knows.
    rounded = sidecar.get("rounded") if sidecar["backbone"] == HERE else classifier.rounded
    return TunedLanguageModel(
        classifier.model, classifier.tokenizer,
        base_name or classifier.hub or str(Path(classifier.backbone).resolve()),
        weights=Weights(classifier.base_sha256, rounded),
        trained_on=Weights(sidecar["base_sha256"], sidecar.get("rounded")),
        quantize=classifier.quantize, classifier=classifier, folder=folder,
    )  # fmt: skip
