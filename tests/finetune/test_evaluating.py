"""The command `evaluate`: every row of what it is given, or the run's own data; and what of them was trained on."""

import json
import re
import shutil

import datasets
import pytest

from lora_from_scratch.__main__ import main
from lora_from_scratch.adapter_files import read_json, write_json
from lora_from_scratch.finetune import data as emotion_data
from lora_from_scratch.finetune import load_data, save_finetuned

WORDS = {"app": "lonely", "billing": "happy", "delivery": "scared"}
COLUMNS = ["--text-column", "message", "--label-column", "topic"]


def rows_of(n, start=0):
    return [(f"{word} {word} i am {'so ' * (i % 7)}{i}", topic) for topic, word in WORDS.items() for i in range(start, start + n)]


def write(path, rows, header="message,topic"):
    path.write_text("\n".join([header, *(f"{text},{topic}" for text, topic in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tiny_backbone, tmp_path_factory):
    """The folder of a run on a table of 150 rows, which is in it as well."""
    folder = tmp_path_factory.mktemp("run")
    table = write(folder / "messages.csv", rows_of(50))
    words = ["finetune", "--data", str(table), *COLUMNS, "--out", str(folder / "out"), "--model", tiny_backbone, "--split-seed", "3",
             "--held-out", "0.2", "--lr", "5e-3", "--head-lr", "2e-2", "--batch-size", "8", "--epochs", "2"]  # fmt: skip
    assert main(words) == 0
    return folder


@pytest.fixture
def evaluate(run, capsys):
    """Calls `evaluate` on the run's adapter; gives its JSON and what it said, or the error."""

    def call(*words):
        capsys.readouterr()
        status = main(["evaluate", str(run / "out"), "--json", *map(str, words)])
        out, err = capsys.readouterr()
        return (json.loads(out), err) if status == 0 else err

    return call


def test_every_row_of_a_file_is_scored(evaluate, tmp_path):
    found, said = evaluate("--data", write(tmp_path / "more.csv", rows_of(30, start=100)))
    assert (found["split"], found["rows"], found["trained_on"], len(found["predictions"])) == ("every row", 90, 0, 90)
    assert "more.csv, every row: 90 rows" in said and "macro-F1" in said and "on 90 rows" in said
    assert "trained on" not in said


def test_what_was_trained_on_is_counted(evaluate, run, tmp_path):
    data = load_data(run / "messages.csv", "message", "topic", split_seed=3, held_out=0.2)
    found, said = evaluate("--data", run / "messages.csv")
    assert (found["rows"], found["trained_on"]) == (150, len(data.train)) and 70 < len(data.train) < 130
    assert f"{len(data.train)} of these 150 texts were trained on, which flatters the figures" in said
    shouted = [(text.upper(), topic) for text, topic in rows_of(50)]
    assert evaluate("--data", write(tmp_path / "shouted.csv", shouted))[0]["trained_on"] == len(data.train)
    one = write(tmp_path / "one.csv", [*rows_of(2, start=100), (data.train.texts[0], "app")])
    assert "Note: 1 of these 7 texts was trained on" in evaluate("--data", one)[1]


def test_a_table_that_has_grown_has_no_trained_text_in_its_test_rows(evaluate, run, tmp_path):
    grown = write(tmp_path / "grown.csv", [*rows_of(25, start=500), *rows_of(50)])
    for split in ("test", "validation"):
        found, said = evaluate("--data", grown, "--split", split)
        assert found["trained_on"] == 0 and found["rows"] > 25
        assert f"grown.csv, {split}: {found['rows']} rows" in said
    everything = [evaluate("--data", grown, "--split", split)[0]["rows"] for split in ("train", "validation", "test")]
    assert sum(everything) == 225


def test_without_data_the_runs_own_rows_are_scored(evaluate, run):
    record = read_json(run / "out" / "record.json")
    for words, split in ([], "validation"), (["--split", "test"], "test"):
        found, said = evaluate(*words)
        assert (found["split"], found["predictions"]) == (split, record[split]["predictions"])
        assert "3 labels (app, billing, delivery)" in said and "not the rows that the run had" not in said
    assert record["rows"] == {split: evaluate("--split", split)[0]["rows"] for split in ("train", "validation", "test")}


def test_a_changed_table_is_told_from_the_runs_own(evaluate, run):
    table, kept = run / "messages.csv", (run / "messages.csv").read_bytes()
    try:
        write(table, [*rows_of(50), *rows_of(10, start=300)])
        found, said = evaluate("--split", "test")
        assert "these are not the rows that the run had: " in said and "for train then" in said
        assert found["trained_on"] == 0
        write(table, [(text.replace("lonely", "alone"), topic) for text, topic in rows_of(50)])
        assert "these are not the rows that the run had" in evaluate()[1]
        table.unlink()
        assert "the run's own data cannot be loaded: " in (error := evaluate()) and "Name others with --data" in error
    finally:
        table.write_bytes(kept)


def test_of_a_folder_a_test_file_is_enough(evaluate, tmp_path):
    write(tmp_path / "test.csv", rows_of(10))
    found, said = evaluate("--data", tmp_path)
    assert (found["split"], found["rows"]) == ("test", 30) and ", test: 30 rows" in said
    assert "has no validation; it has test" in evaluate("--data", tmp_path, "--split", "validation")
    write(tmp_path / "validation.csv", rows_of(7))
    assert evaluate("--data", tmp_path)[0]["rows"] == 21
    assert evaluate("--data", tmp_path, "--split", "test")[0]["rows"] == 30


def test_labels_that_are_missing_or_unknown(evaluate, tmp_path):
    found, said = evaluate("--data", write(tmp_path / "one.csv", [row for row in rows_of(4) if row[1] == "app"]))
    assert found["rows"] == 4 and "no rows of billing, delivery, whose F1 counts as 0 in the mean" in said
    strange = write(tmp_path / "strange.csv", [*rows_of(4), ("a", "bililng"), ("b", "weather")])
    assert "line 14: the classifier has no label 'bililng'; did you mean 'billing'?; --skip-bad-rows skips" in evaluate("--data", strange)
    found, said = evaluate("--data", strange, "--skip-bad-rows")
    assert found["rows"] == 12 and "skipped 2 rows: 2 with a label that the classifier does not have (first in line 14)" in said
    nothing = write(tmp_path / "none.csv", [("a", "weather")])
    assert "the classifier has no label 'weather'; it has app, billing, delivery" in evaluate("--data", nothing)


def test_columns_and_formats_are_the_runs_unless_said(evaluate, tmp_path):
    other = write(tmp_path / "other.csv", rows_of(5), header="words,kind")
    assert "has no column 'message' and no 'topic'; it has 'words', 'kind'" in evaluate("--data", other)
    assert evaluate("--data", other, "--text-column", "words", "--label-column", "kind")[0]["rows"] == 15
    semicolons = tmp_path / "semicolons.csv"
    semicolons.write_text(other.read_text().replace("words,kind", "message,topic").replace(",", ";"))
    assert evaluate("--data", semicolons, "--separator", ";")[0]["rows"] == 15


def test_emotions_own_format_goes_without_its_other_files(classifier, data, folder, capsys):
    out = save_finetuned(classifier, folder / "out")
    for gone in ("train", "validation"):
        (folder / f"{gone}.jsonl").unlink()
    assert main(["evaluate", str(folder / "out"), "--data", str(folder), "--json"]) == 0
    shown, said = capsys.readouterr()
    assert json.loads(shown)["rows"] == 60 and "labels are numbers, taken as 0 sadness, 1 joy" in said
    assert json.loads(shown)["trained_on"] is None
    assert main(["evaluate", str(out), "--json"]) != 0
    assert "has no record of a run that says which data it had: name some with --data" in capsys.readouterr().err


def test_a_dataset_of_the_hub(evaluate, monkeypatch):
    names = ["delivery", "app", "billing"]  # in another order than the classifier's

    def table(n):
        features = datasets.Features(message=datasets.Value("string"), topic=datasets.ClassLabel(names=names))
        rows = rows_of(n, start=200)
        columns = {"message": [text for text, _ in rows], "topic": [names.index(topic) for _, topic in rows]}
        return datasets.Dataset.from_dict(columns, features=features)

    parts = {"train": table(20), "test": table(5)}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, configuration: parts)
    monkeypatch.setattr(emotion_data, "hub_answers", lambda: True)
    found, said = evaluate("--data", "someone/topics")
    assert (found["split"], found["rows"]) == ("test", 15) and found["accuracy"] > 0.9
    assert evaluate("--data", "someone/topics", "--split", "validation")[0]["rows"] < 40
    del parts["train"]
    assert evaluate("--data", "someone/topics")[0]["rows"] == 15


def test_an_old_record_still_says_which_data(run, tmp_path, capsys):
    """One without the table's columns and without the hashes of its texts."""
    old = shutil.copytree(run / "out", tmp_path / "old")
    (old / "train_texts.bin").unlink()
    record = read_json(old / "record.json")
    del record["reading"], record["rows"]
    write_json(old / "record.json", record)
    assert main(["evaluate", str(old), "--json", *COLUMNS]) == 0
    shown, said = capsys.readouterr()
    assert json.loads(shown)["trained_on"] is None and "not the rows that the run had: they have another fingerprint" in said


@pytest.mark.parametrize("damage", [b"odd", bytes(16), (2).to_bytes(8, "little") + (1).to_bytes(8, "little")])
def test_damaged_hashes_are_refused(run, tmp_path, capsys, damage):
    bad = shutil.copytree(run / "out", tmp_path / "bad")
    (bad / "train_texts.bin").write_bytes(damage)
    assert main(["evaluate", str(bad), "--data", str(run / "messages.csv")]) != 0
    assert re.search("train_texts.bin is damaged: expected sorted hashes of 8 bytes each", capsys.readouterr().err)


@pytest.mark.parametrize("reading", [{"text": 1, "separator": 5}, {"held_out": 2}, [1], "x"])
def test_a_record_of_another_kind_is_refused(run, tmp_path, capsys, reading):
    bad = shutil.copytree(run / "out", tmp_path / "bad")
    write_json(bad / "record.json", read_json(bad / "record.json") | {"reading": reading})
    assert main(["evaluate", str(bad), "--data", str(run / "messages.csv")]) != 0
    assert "record.json does not say how to read a table" in capsys.readouterr().err


def test_validation_rows_are_few_and_always_the_same(tiny_backbone, run, tmp_path, capsys):
    words = ["finetune", "--data", str(run / "messages.csv"), *COLUMNS, "--model", tiny_backbone, "--held-out", "0.2", "--lr", "5e-3",
             "--max-steps", "3", "--validation-rows", "10", "--json"]  # fmt: skip
    seen = []
    for out in ("a", "b"):
        main([*words, "--out", str(tmp_path / out)])
        said = capsys.readouterr().err
        record = read_json(tmp_path / out / "record.json")
        seen.append(record["validation"]["confusion"])
        assert "Validation: on 10 of the " in said and record["data"]["validation_rows"] == 10 == record["rows"]["validation"]
    assert seen[0] == seen[1]
    assert main([*words, "--out", str(tmp_path / "c"), "--validation-rows", "0"]) != 0
    assert "--validation-rows must be a positive int, got 0" in capsys.readouterr().err
