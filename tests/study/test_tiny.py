"""The frontier's list of runs: each trains as many parameters as its name says."""

from study import records
from study.runs import tiny
from study.runs.tiny import SIZES, XS_RATES, runs


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


def test_a_size_waits_for_its_rates_and_takes_the_best(monkeypatch):
    found = {f"tiny/minilm/try-xs-294-lr{rate:g}": {"failure": None, "validation": {"accuracy": 1 - rate}} for rate in XS_RATES}
    monkeypatch.setattr(tiny.records, "exists", lambda name: name in found)
    monkeypatch.setattr(tiny.records, "load", found.__getitem__)
    listed = runs()
    assert listed["xs-294-tuned-seed4"].lr == min(XS_RATES) and "xs-774-tuned-seed0" not in listed
    found["tiny/minilm/try-xs-294-lr0.005"]["failure"] = "collapsed"
    assert runs()["xs-294-tuned-seed4"].lr == 1e-2


def test_a_seed_computes_as_the_others_of_its_setting_do():
    for setting, made in records.groups(tiny.FOLDER).items():
        assert len({run["history"]["precision"] for run in made}) == 1
        assert tiny.precision(f"{setting}-seed4") == made[0]["history"]["precision"]
    assert tiny.precision("xs-294-tuned-seed0") == tiny.precision("try-xs-102-lr0.01") == "bf16"
