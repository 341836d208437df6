"""A fine-tuned language model as an export takes it: loaded, and with what has to be said about its base."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_from_scratch.adapter_files import CONFIG, load_adapter
from lora_from_scratch.config import LoraError
from lora_from_scratch.finetune.language import load_language_model
from lora_from_scratch.finetune.sidecar import SIDECAR
from lora_from_scratch.slots import injection_of, is_adapted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lora_from_scratch.slots import Injection


@dataclass
class TunedLanguageModel:
    """A language model with an adapter in it, or fine-tuned in full.

    ``base`` is what other programs load it by: the name on the hub, or a folder's full path. ``rounded`` and ``quantize``
    are what the base's weights had been through when the adapter was trained on them, as far as we know.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    base: str
    base_sha256: str
    rounded: str | None = None  # "Q4_1": the package's weights, which are not quite the hub's
    quantize: str | None = None  # "nf4"
    folder: Path | None = None  # that it was read from

    @property
    def on_hub(self) -> bool:
        return not Path(self.base).is_absolute()

    @property
    def adapter(self) -> "Injection":
        """Its active adapter.

        Raises:
            LoraError: it has none, since it was fine-tuned without.
        """
        if not is_adapted(self.model):
            raise LoraError("this model was fine-tuned without adapters, so there is none to export: --to merged and --to gguf take it whole")
        return injection_of(self.model)

    def notes(self) -> list[str]:
        """What a reader of an exported adapter has to know about the base that it was trained on."""
        said = []
        if self.rounded:
            said.append(
                f"It was trained on weights of {self.base} that had been rounded to {self.rounded} (sha256 {self.base_sha256}). On the "
                "weights as they were published the update is the same, and the answers differ a little, so measure them there."
            )
        if self.quantize:
            said.append(
                f"The base's linear layers were kept in {self.quantize.upper()} (4 bits) while it was trained. On a base in floats "
                "the answers differ a little, so measure them there."
            )
        return said

    def merged_notes(self) -> list[str]:
        """The same of an exported model that was merged."""
        if not self.rounded:
            return []
        return [
            f"The update was added to weights of {self.base} that had been rounded to {self.rounded} "
            f"(sha256 {self.base_sha256}), and not to those that were published."
        ]


def load_tuned(folder: Path, base: str | None = None, base_name: str | None = None) -> TunedLanguageModel:
    """The fine-tuned language model in a folder.

    Args:
        folder: that ``finetune`` wrote, or an adapter in PEFT's format.
        base: the base of an adapter in PEFT's format, as ``load_language_model`` takes it.
        base_name: what to write as the base's name instead of where it was loaded from.

    Raises:
        LoraError: the folder holds something else, or names a base that is no language model; see also
            ``load_language_model`` and ``load_adapter``.
    """
    if (folder / SIDECAR).is_file():
        if base:
            raise LoraError(f"{folder / SIDECAR} names the base: --base is for a folder without it")
        raise NotImplementedError
    if not base:
        if (folder / CONFIG).is_file():
            raise LoraError(f"{folder} has no {SIDECAR}, which names the adapter's base: pass --base")
        raise LoraError(f"{folder} holds no adapter: expected the folder that finetune wrote, or one in PEFT's format with --base")
    loaded = load_language_model(base)
    load_adapter(loaded.model, folder)
    name = base_name or loaded.hub or str(Path(base).resolve())
    return TunedLanguageModel(loaded.model, loaded.tokenizer, name, loaded.sha256, loaded.rounded, folder=folder)
