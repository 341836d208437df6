"""The frontier's list of runs: each trains as many parameters as its name says."""

from study.runs.tiny import SIZES, runs


def trained(run):
    adapters = {"vector": run.vector_size, "lora": 4 * 384 * run.r}.get(run.method, 36 * run.r**2)
    return adapters + (6 * run.k + 6 if run.k else 2310)


def test_names_tell_how_many_parameters_train():
    for name, run in runs().items():
        if not run.tunes:
            assert trained(run) == int(name.split("-")[1]), name
    assert all(36 * r**2 + (6 * k + 6 if k else 2310) == n for n, (r, k) in SIZES.items())


def test_what_is_used_to_choose_sees_no_test():
    chosen = {name: run for name, run in runs().items() if name.startswith(("tune-", "try-"))}
    assert chosen and all(run.tunes for run in chosen.values())
    assert not any(run.tunes for name, run in runs().items() if name not in chosen)
    for name, run in chosen.items():
        if name.startswith("try-"):
            assert trained(run) == int(name.split("-")[2]), name
        else:
            assert trained(run) <= 2256, name
