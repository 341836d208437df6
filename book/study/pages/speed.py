"""The part of the book's page of results that is about time and memory, from results/bench-*.json and gpu-*.json."""

from .. import records
from .markdown import table

INTRODUCTION = """\
## Time and memory

What is compared took turns in one run on one machine, and only ratios are compared; the seconds of
another machine are others. Brackets hold the quartiles over batches or repetitions.
"""
EVERY_ROW = 16_000  # of emotion's training split
LEARNT = 0.5  # below this accuracy a run did not learn: the largest class alone gives a third


def speed() -> str:
    """The tables of those measurements of ``study.speed`` that have a record."""
    parts = {"bench-step": step, "bench-finetune": epoch, "bench-finetune-few-rows": epoch, "bench-time-to": time_to, "bench-layers": layers}
    parts |= {"bench-many-adapters": many_adapters, "bench-many-adapters-avx512": many_adapters, "bench-many-voices": many_voices}
    parts |= {"bench-layers-gpu": layers, "gpu-memory": gpu_memory}
    found = [show(records.load(name)) for name, show in parts.items() if records.exists(name)]
    return "\n\n".join([INTRODUCTION.rstrip(), *found]) if found else ""


def _made(record: dict) -> str:
    at, settings = record["environment"], record.get("settings", {})
    threads = settings.get("threads", at["threads"])
    peft = f", peft {record['peft']}" if "peft" in record else ""
    where = at["gpu"] if _on_gpu(record) else f"{cpu(at)}, {threads} thread(s)"
    return f"`{record['command']}`, on {where}, torch {at['libraries']['torch']}{peft}."


def cpu(environment: dict) -> str:
    instructions = environment.get("instructions")  # older records do not say
    return environment["processor"] + (f" ({instructions})" if instructions else "")


def _on_gpu(record: dict) -> bool:
    return "memory" in record or record.get("settings", {}).get("device") == "cuda"


def _spread(row: dict) -> str:
    low, high = row["time_quartiles"]
    return f"{row['time']:.2f} [{low:.2f}, {high:.2f}]"


def step(record: dict) -> str:
    sizes = record["batch"]
    first = next(iter(sizes.values()))
    lines = [[name, *(_spread(sizes[size][name]) for size in sizes)] for name in first]
    # The second batch size takes what was made for the first.
    making = [f"{row['seconds_to_compile']:.0f} s for `{name}`" for name, row in first.items() if "seconds_to_compile" in row]
    note = f" torch.compile took {', '.join(making)} before, once a process." if making else ""
    return (
        "### One step beside its floor\n\nThe floor is the frozen network's forward pass and the gradient of its activations, in float32. "
        f"All adapt the six linear layers of every block of MiniLM at rank {record['settings']['rank']}.\n\n"
        f"{table(['step', *(f'batch {size}' for size in sizes)], lines)}\n\n{_made(record)}{note}"
    )


def epoch(record: dict) -> str:
    """Seconds as a share of those of transformers' Trainer with PEFT, as its documentation sets it up."""
    results, how, rows = record["results"], record["contenders"], record["settings"]["rows"]
    few = rows < EVERY_ROW
    base = results["peft"]
    lost = [f"`{name}`" for name, row in results.items() if row["accuracy"] < LEARNT]
    note = f" {', '.join(lost)} has not learnt: its time is that of the work, not of a result." if lost else ""
    what = "The start of an epoch, the slow contenders too," if few else "An epoch"
    lines = [
        [
            f"`{name}`", how[name]["batch"], f"{row['seconds'] / base['seconds']:.2f}",
            f"{row['memory'] / 1e6:.0f}", f"{100 * row['accuracy']:.2f}",
        ]
        for name, row in results.items()
    ]  # fmt: skip
    head = ["contender", "batch", "time / peft's", "MB above the imports", "validation accuracy"]
    return (
        f"### {what} beside transformers' Trainer with PEFT\n\n{rows:,} training rows of emotion, rank "
        f"{record['settings']['rank']}, one seed; "
        f"the accuracy is that after {'so few rows, which is no result' if few else 'the epoch'}. `peft` is the Trainer with PEFT "
        f"as documented, in float32; `grouped` puts rows of about equal length together.\n\n{table(head, lines)}\n\n{_made(record)}{note}"
    )


def time_to(record: dict) -> str:
    lines = []
    for run in record["runs"]:
        last = run["epochs"][-1]
        lines.append([run["seed"], last["epoch"], f"{100 * last['accuracy']:.2f}", f"{last['seconds']:.0f}"])
    head = ["seed", "epochs", "validation accuracy", "seconds"]
    return (
        f"### Time to {100 * record['mark']:g} % validation accuracy\n\nFrom the start of the process, imports and loading counted, "
        f"with `finetune {record['finetune']}`.\n\n{table(head, lines)}\n\n{_made(record)}"
    )


def layers(record: dict) -> str:
    sizes = record["tokens"]
    first = next(iter(sizes.values()))
    largest = list(sizes.values())[-1]
    lines = [
        [
            name, *(f"{largest[name][f'{way}_operations']}" for way in ("forward", "backward")),
            *(f"{largest[name][f'{way}_allocations']:.2f}" for way in ("forward", "backward")),
            *(_spread(sizes[size][name]) for size in sizes),
        ]
        for name in first
    ]  # fmt: skip
    head = ["layer", "operations forward", "backward", "allocations forward", "backward", *(f"time, {size} tokens" for size in sizes)]
    settings = record["settings"]
    where = ", on a GPU" if _on_gpu(record) else ""
    return (
        f"### One adapted layer beside the frozen one{where}\n\n{settings['width']} to {settings['width']} at rank {settings['rank']}; allocations in sizes "
        f"of the output, at the most tokens; time as a ratio to the frozen layer's.\n\n{table(head, lines)}\n\n{_made(record)}"
    )


def many_adapters(record: dict) -> str:
    """A batch of which every row has an adapter of its own, as a ratio to one adapter for all of them."""
    found, settings = record["precision"], record["settings"]
    first = next(iter(found.values()))
    lines = [[name, *(_spread(rows[name]) for rows in found.values())] for name in first]
    ours = {precision: next(row for row in rows.values() if "to_peft" in row) for precision, rows in found.items()}
    beside = ", ".join(
        f"{row['to_peft']:.2f} [{row['to_peft_quartiles'][0]:.2f}, {row['to_peft_quartiles'][1]:.2f}] in {precision}"
        for precision, row in ours.items()
    )
    return (
        f"### A batch with an adapter a row, in {' and '.join(found)}\n\n{settings['rows']} rows of {settings['tokens']} tokens through MiniLM, rank {settings['rank']} in all "
        "six linear layers of every block, no gradients; time as a ratio to one adapter's on the same batch. "
        f"Ours, one adapter a row, took {beside} of the time of PEFT's mixed batch.\n\n"
        f"{table(['pass', *found], lines)}\n\n{_made(record)}"
    )


def many_voices(record: dict) -> str:
    """Six adapters of a language model that write in one batch, as ratios to one adapter for all rows."""
    found, settings = record["result"], record["settings"]
    tokens = settings["rows"] * settings["decoded"]
    ours = next(row for row in found.values() if "decode_to_peft" in row)
    lines = [
        [name, *(f"{row[part]:.2f}" for part in ("prompt", "decode", "whole")), f"{tokens / row['decode_seconds']:.1f}"]
        for name, row in found.items()
    ]
    low, high = ours["whole_quartiles"]
    return (
        f"### A language model that writes with an adapter a row\n\n{settings['rows']} rows of one prompt and {settings['decoded']} tokens more from SmolLM2 in float32, "
        f"rank {settings['rank']} in every linear layer; the processor's time of each pass is the least of {settings['repeats']} turns, as a ratio to one "
        f"adapter's. Ours, one adapter a row, took {ours['prompt_to_peft']:.2f} of the time of PEFT's mixed batch for the prompt, {ours['decode_to_peft']:.2f} for decoding and "
        f"{ours['whole_to_peft']:.2f} for all of it. By the clock whole texts took {ours['whole_median']:.2f} [{low:.2f}, {high:.2f}] of one adapter's time.\n\n"
        f"{table(['pass', 'prompt', 'decoding', 'both', 'tokens a second, decoding'], lines)}\n\n{_made(record)}"
    )


def gpu_memory(record: dict) -> str:
    lines = []
    for model, cases in record["memory"].items():
        for case, found in cases.items():
            guess = sum(size for part, size in found["predicted"].items() if part != "peak")
            peak = found["measured"]["peak"]
            lines.append([model, case, f"{guess / 1e6:,.0f}", f"{peak / 1e6:,.0f}", f"{peak / guess:.2f}"])
    head = ["backbone", "step", "predicted MB", "peak MB", "peak / predicted"]
    return (
        f"### Memory of a step on a GPU\n\n{record['tokens']} tokens a row; full fine-tuning and LoRA at rank 8 in all linear layers.\n\n"
        f"{table(head, lines)}\n\n{_made(record)}"
    )
