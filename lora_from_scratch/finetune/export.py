"""The command export: a fine-tuned language model in the formats that other programs read."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_from_scratch.config import LoraError
from lora_from_scratch.files import write_whole
from lora_from_scratch.finetune.export_folders import merge_for_good, needs_plain, write_merged, write_peft
from lora_from_scratch.finetune.export_readme import (
    ADAPTER,
    EXAMPLE,
    MERGED,
    is_export,
    messages_of,
    usage_of,
    write_readme,
)
from lora_from_scratch.finetune.failures import RunFailed
from lora_from_scratch.finetune.gguf_adapter import adapter_writer
from lora_from_scratch.finetune.gguf_llama import import_gguf
from lora_from_scratch.finetune.gguf_merged import merged_writer, packaged_gguf, write_gguf
from lora_from_scratch.finetune.lock import locked
from lora_from_scratch.finetune.out import replacing
from lora_from_scratch.finetune.tuned import TunedLanguageModel, load_tuned

KINDS = {
    "peft": "a folder that PEFT and vLLM read",
    "merged": "a model without adapters in a folder that transformers reads",
    "gguf-adapter": "a file that llama.cpp adds to a GGUF file of the base",
    "gguf": "a merged file that llama.cpp and Ollama run",
}
DTYPES = ("float32", "bfloat16", "float16")
MAGIC = b"GGUF"


def add_export_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("adapter", help="the folder that finetune wrote for a language model, or with --base any in PEFT's format")
    sub.add_argument("--to", required=True, choices=list(KINDS), help="; ".join(f"{kind}: {what}" for kind, what in KINDS.items()))
    sub.add_argument("--out", required=True, help="the folder to write, or the file for the two kinds of GGUF")
    sub.add_argument("--overwrite", action="store_true", help="replace an earlier export in --out")
    sub.add_argument("--base", help="the base of an adapter in PEFT's format that names none: smollm2, a folder, owner/name")
    sub.add_argument("--base-name", help="what to write as the base's name, if not where it is loaded from here")
    sub.add_argument("--base-gguf", help="a GGUF file of the base, for the tokenizer's metadata; smollm2 has its own")
    sub.add_argument("--dtype", choices=DTYPES, help="of merged weights; float32, and float16 in a GGUF file, if not given")
    sub.add_argument("--plain", action="store_true", help="peft: write a variant's update as plain factors A and B")


def run_export(args: argparse.Namespace) -> dict:
    """Write a fine-tuned language model for other programs, and print the lines that use it there.

    Raises:
        LoraError: the adapter or its base is of a kind that the format can't hold, which says what to do instead; a flag
            doesn't go with the format; or ``--out`` is there already.
        RunFailed: ``--out`` cannot be written.
    """
    out, in_file = Path(args.out), args.to.startswith("gguf")
    _check_flags(args)
    _check_free(out, in_file, args.overwrite)
    if in_file:
        import_gguf()  # before minutes of loading
    tuned = load_tuned(Path(args.adapter), args.base, args.base_name)
    write: dict[str, Callable[[argparse.Namespace, TunedLanguageModel, Path], tuple[str, list[str]]]] = {
        "peft": _peft, "merged": _merged, "gguf-adapter": _gguf_adapter, "gguf": _gguf,
    }  # fmt: skip
    usage, notes = write[args.to](args, tuned, out)
    print(f"Saved: {out}", *(f"Note: {note}" for note in notes), "Without this package:", "", usage, sep="\n")
    told = {"adapter": args.adapter, "to": args.to, "out": args.out, "base": tuned.base, "rounded": tuned.weights.rounded}
    return told | {"notes": notes, "usage": usage}


def _check_flags(args: argparse.Namespace) -> None:
    for flag, given, kinds in (
        ("--base-gguf", args.base_gguf, ("gguf",)),
        ("--dtype", args.dtype, ("merged", "gguf")),
        ("--plain", args.plain, ("peft",)),
    ):
        if given and args.to not in kinds:
            raise LoraError(f"{flag} is for --to {' and --to '.join(kinds)}, not for --to {args.to}")


def _check_free(out: Path, in_file: bool, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite or out.is_dir() == in_file:
        kind = "file" if in_file else "folder"
        hint = "" if out.is_dir() == in_file else ", or pass --overwrite"
        raise LoraError(f"{out} is there already, expected a new {kind}: choose another --out{hint}")
    if in_file:
        with open(out, "rb") as file:
            if file.read(4) != MAGIC:
                raise LoraError(f"{out} is no GGUF file: choose another --out")
    elif any(out.iterdir()) and not is_export(out):
        raise LoraError(f"{out} holds something else than an exported model: choose another --out")


def _peft(args: argparse.Namespace, tuned: TunedLanguageModel, out: Path) -> tuple[str, list[str]]:
    plain = args.plain or needs_plain(tuned)
    notes = tuned.notes()
    if plain and not args.plain:
        notes.append("PEFT knows no such variant, so each layer's update was written as plain factors A and B.")
    if len({(layer.factors()[0].shape[0], layer.scaling) for layer in tuned.adapter.layers.values()}) > 1:
        notes.append(
            "Ranks or scalings differ between its layers. PEFT reads them from rank_pattern and alpha_pattern; a program that "
            "doesn't would scale some layers wrongly, so ask it about these two fields, or take --to merged."
        )
    usage, notes = _folder(out, ADAPTER, tuned, notes, lambda new: write_peft(tuned, new, plain))
    if not tuned.on_hub:  # which is for you, and not for the README
        notes = [*notes, f"The base is named by its folder here, {tuned.base}: pass --base-name before you give the adapter away."]
    return usage, notes


def _merged(args: argparse.Namespace, tuned: TunedLanguageModel, out: Path) -> tuple[str, list[str]]:
    merge_for_good(tuned)
    return _folder(out, MERGED, tuned, tuned.merged_notes(), lambda new: write_merged(tuned, new, args.dtype or "float32"))


def _folder(out: Path, title: str, tuned: TunedLanguageModel, notes: list[str], write: Callable[[Path], None]) -> tuple[str, list[str]]:
    usage = usage_of(title, tuned, out)
    earlier = tuple(path.name for path in out.iterdir() if path.is_file()) if out.exists() else ()
    try:
        with locked(out), replacing(out, earlier) as new:
            write(new)
            write_readme(title, tuned, new, usage, notes)
    except OSError as error:
        raise RunFailed(f"{out} cannot be written: {error}") from None
    return usage, notes


def _gguf_adapter(args: argparse.Namespace, tuned: TunedLanguageModel, out: Path) -> tuple[str, list[str]]:
    _write_file(adapter_writer(tuned), out)
    notes, base = tuned.notes(), "BASE.gguf"
    if tuned.trained_on and tuned.trained_on.rounded and (path := packaged_gguf(tuned.base)):
        base = str(path)
        notes.append(f"The base with the very weights that it was trained on is {path}.")
    return f"llama-cli -m {base} --lora {out}", [*notes, *_asked(tuned)]


def _gguf(args: argparse.Namespace, tuned: TunedLanguageModel, out: Path) -> tuple[str, list[str]]:
    merge_for_good(tuned)
    _write_file(merged_writer(tuned, args.dtype or "float16", Path(args.base_gguf) if args.base_gguf else None), out)
    return f"llama-cli -m {out}", [*tuned.merged_notes(), *_asked(tuned)]


def _asked(tuned: TunedLanguageModel) -> list[str]:
    """How a file without a README wants to be asked."""
    return [f"Ask it as it was trained: {messages_of(tuned, EXAMPLE)}"] if tuned.classifier and tuned.tokenizer.chat_template else []


def _write_file(writer: Any, out: Path) -> None:
    try:
        write_whole(out, lambda path: write_gguf(writer, path))
    except LoraError as error:
        raise RunFailed(str(error)) from None
