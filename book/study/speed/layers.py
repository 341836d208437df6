"""One adapted linear layer, forward and backward: operations, allocations and time beside the frozen layer's.

python -m book.study.speed.layers                       print, and write results/bench-layers.json
python -m book.study.speed.layers --repeats 20 --out x.json

Width 768 to 768, rank 8, float32; the input needs a gradient, as inside a network. All
variants run in turn within each repeat, so that whatever slows the machine down slows
all of them; the time is the median over repeats of the ratio to the frozen layer's time
in the same repeat. Allocations are counted in activations, of tokens x width values.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from torch import Tensor, nn

from lora_from_scratch import DoRALinear, LoRALinear, lora_forward
from lora_from_scratch.extras.pissa import PiSSALinear

from . import arguments, at_least_two, in_turns, ratios, write_record
from .ledger import Ledger

WIDTH, RANK, ALPHA, TOKENS = 768, 8, 16, (64, 512, 2048)
WARM_UP = 3  # repeats
Forward = Callable[[Tensor], Tensor]


def contestants(device: str = "cpu") -> dict[str, tuple[Forward, list[Tensor]]]:
    """Name -> the forward pass, and what of the layer trains. All share one base weight's values."""
    torch.manual_seed(0)
    base = nn.Linear(WIDTH, WIDTH, device=device).requires_grad_(False)
    found: dict[str, tuple[Forward, list[Tensor]]] = {"frozen": (base, [])}
    ours = LoRALinear(base, RANK, ALPHA)

    def plain(x: Tensor) -> Tensor:
        return F.linear(x, base.weight, base.bias) + lora_forward(x, *ours.factors(), ours.scaling)

    found["ours, fused"] = ours, list(ours.factors())
    found["ours, the plain formula"] = plain, list(ours.factors())
    dora = DoRALinear(base, RANK, ALPHA)
    found["ours, DoRA"] = dora, [*dora.factors(), dora.lora_magnitude_vector]
    pissa = PiSSALinear(base, RANK, ALPHA)
    found["ours, PiSSA"] = pissa, [pissa.lora_A.weight, pissa.lora_B.weight]
    for name, use_dora in (("PEFT", False), ("PEFT, DoRA", True)):
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH, device=device))
        model[0].load_state_dict(base.state_dict())
        peft = get_peft_model(model, PeftConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"], use_dora=use_dora))
        layer = peft.base_model.model[0]  # the layer alone: not what wraps the model
        found[name] = layer, [p for p in layer.parameters() if p.requires_grad]
    for _, trained in found.values():
        with torch.no_grad():
            for p in trained:
                p.add_(0.01 * torch.randn_like(p))  # B is no longer zero
    return found


def step(forward: Forward, trained: list[Tensor], x: Tensor, g: Tensor) -> None:
    torch.autograd.grad(forward(x), [x, *trained], g)


def count(forward: Forward, trained: list[Tensor], x: Tensor, g: Tensor) -> dict:
    with Ledger() as there:
        y = forward(x)
    with Ledger() as back:
        torch.autograd.grad(y, [x, *trained], g)
    return {
        "forward_operations": len(there.operations),
        "backward_operations": len(back.operations),
        "forward_allocations": round(there.numbers / x.numel(), 3),
        "backward_allocations": round(back.numbers / x.numel(), 3),
    }


def measure(tokens: int, repeats: int, device: str = "cpu") -> dict[str, dict]:
    """Counts and relative time of every contestant at this many tokens."""
    runs = contestants(device)
    x, g = torch.randn(tokens, WIDTH, device=device, requires_grad=True), torch.randn(tokens, WIDTH, device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None  # a GPU computes on after the call

    def turn(forward: Forward, trained: list[Tensor], repeat: int) -> None:
        step(forward, trained, x, g)
        wait()

    seconds = in_turns({name: partial(turn, *run) for name, run in runs.items()}, range(WARM_UP + repeats))
    result = {}
    for name, (forward, trained) in runs.items():
        median, quartiles = ratios(seconds[name][WARM_UP:], seconds["frozen"][WARM_UP:])
        result[name] = count(forward, trained, x, g) | {"time": median, "time_quartiles": quartiles}
    return result


def main() -> None:
    parser = arguments("layers", __doc__)
    parser.add_argument("--repeats", type=at_least_two, default=200, help="how often each variant runs (default: 200)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    by_tokens = {}
    for tokens in TOKENS:
        by_tokens[str(tokens)] = rows = measure(tokens, args.repeats, args.device)
        print(f"{tokens} tokens{'':<17} operations   allocations    time / frozen (quartiles)")
        for name, row in rows.items():
            operations = f"{row['forward_operations']} + {row['backward_operations']}"
            allocations = f"{row['forward_allocations']:.2f} + {row['backward_allocations']:.2f}"
            low, high = row["time_quartiles"]
            print(f"  {name:<25} {operations:>9} {allocations:>13} {row['time']:>10.2f}  ({low:.2f} to {high:.2f})")
    settings = {"width": WIDTH, "rank": RANK, "repeats": args.repeats, "threads": args.threads, "device": args.device, "dtype": "float32"}
    write_record(args.out, "layers", settings=settings, tokens=by_tokens)


if __name__ == "__main__":
    main()
