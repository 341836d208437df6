"""Chapter 10, forgetting: what its exercises are held against."""

from functools import wraps

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exercises.judge import close, compare, expect, given, judged, number, run, run_or_none, tensor
from lora_from_scratch import LoraConfig, add_lora
from lora_from_scratch.slots import lora_layers
from study import records


def adapter() -> tuple[Tensor, Tensor, Tensor]:
    """The matrices A and B of an adapter of rank 4, and an input."""
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(*shape, generator=generator).double() for shape in ((4, 32), (32, 4), (32,)))


@judged
def blind(answer):
    given(blind=answer)
    A, _, x = adapter()
    mine = tensor(answer, x.shape, "blind").detach()
    expect(mine.isfinite().all(), "blind isn't finite")
    zero = (A @ mine).norm() <= 1e-6 * max(1, mine.norm())
    expect(zero, "A still reads something of it: A @ blind isn't zero; are A's rows at right angles to each other?")
    nearest = x - A.T @ torch.linalg.solve(A @ A.T, A @ x)
    expect((mine - x).norm() <= (nearest - x).norm() + 1e-6, "nothing changes there, but another such input is nearer")
    return "all but 4 of 32 directions are out of the adapter's sight"


@judged
def nearer(function, minilm, counted):
    """``minilm`` and ``counted`` are features of the neutral sentences, for the praise."""
    f = torch.randn(192, 8, generator=torch.Generator().manual_seed(5)).double()
    f[1::3] *= 9  # a cosine doesn't care

    def share(f):
        return ((f[::3] * f[1::3]).sum(1) > (f[::3] * f[2::3]).sum(1)).double().mean()

    right = share(F.normalize(f, dim=1))
    compare(number(run(function, f.clone()), "nearer(f)"), right, {
        "that is a count; divide it by the 64 scenes": 64 * right,
        "that compares dot products; scale each row to length 1 first": share(f),
        "it's the other way round: a larger cosine is nearer": 1 - right,
    }, "the share is another on random features; rows 0, 3, 6 … are first sentences", rtol=0, atol=1e-6)  # fmt: skip
    return f"MiniLM {function(minilm.double()):.0%}, word counts {function(counted.double()):.0%}"


@judged
def above(function):
    one, other, apart = [(0.4, 1.0), (0.6, 0.8), (0.9, 0.2)], [(0.5, 0.7), (0.8, 0.4)], [(0.1, 0.9), (0.3, 0.8)]
    pairs = (one, other), (other, one), (one, one)
    value, back, same = (number(run(function, *pair), "above's answer") for pair in pairs)
    expect(run_or_none(function, one, apart) is None,
           "paths without a common accuracy must give None; np.interp would go on flat beyond the ends")  # fmt: skip
    grid = np.linspace(0.5, 0.8, 50)
    high, low = (np.interp(grid, *np.transpose(path)) for path in (one, other))
    right = float(np.mean(high - low))
    expect(not close(value, -right), "the sign is the other way round: it must be one minus other")
    fair = close(same, 0) and close(value, -back)
    expect(fair, "a path lies 0 above itself, and exchanging the two changes its sign; use the same grid for both")
    expect(close(value, right, atol=2e-3), f"for two paths of the check's own it is {value:.3f}, expected {right:.3f}; "
                                           "are the 50 accuracies those that both paths reach?")  # fmt: skip
    lines, paths = [], records.load("sweep/minilm/forgetting")["paths"]
    for method in ("rank 8", "rank 1"):
        gaps = (function(path(paths[method][seed]), path(paths["full"][seed])) for seed in sorted(paths["full"]))
        lines.append(f"    {method}: " + " ".join(f"{gap:+.2f}" for gap in gaps))
    return "\n".join(["map agreement above full fine-tuning's, by seed", *lines])


def path(run: dict) -> list[tuple[float, float]]:
    """Accuracy and map agreement along a run of the record, the lowest accuracy first."""
    return sorted(((p["accuracy"], p["rank_agreement"]) for p in run["points"]), key=lambda point: point[0])


@judged
def turned_down(function):
    torch.manual_seed(7)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(10, 6)
    base = model(x)
    layers = dict(lora_layers(add_lora(model, LoraConfig(r=2, alpha=6, target_modules=["0", "2"]))))
    for layer in layers.values():
        nn.init.normal_(layer.lora_B.weight)

    def state():
        tensors = ((layer.lora_A.weight, layer.lora_B.weight, torch.tensor(layer.scaling)) for layer in layers.values())
        return [t.detach().clone() for three in tensors for t in three]

    def updates():
        return {n: (layer.scaling * layer.lora_B.weight @ layer.lora_A.weight).detach() for n, layer in layers.items()}

    @wraps(function)
    def within(part):
        with function(model, part):
            return updates(), model(x)

    before, whole = state(), updates()
    for part in (0.3, 0.0):
        now, off = run(within, part)
        expect(all(map(torch.equal, state(), before)), "afterwards a matrix or the scaling isn't what it was; "
               "dividing by part again rounds, and part may be 0: keep copies")  # fmt: skip
        for name, update in now.items():
            compare(update, part * whole[name], {
                "both matrices were scaled, so the product was scaled by part squared": part**2 * whole[name],
            }, f"within it, the update of layer {name} is not {part} of the whole one")  # fmt: skip
    try:
        with function(model, 0.5):
            raise KeyError("on purpose")
    except KeyError:
        pass
    restored = all(map(torch.equal, state(), before))
    expect(restored, "after an error within the block the matrices stay turned down: use try … finally")
    expect(close(off, base), "at part 0 the model's answers aren't the base's")
    return "at part 0 it is the base, and the matrices come back to the bit"
