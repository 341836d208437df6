"""predict: from texts, tables and standard input to labels."""

import csv
import io
import json
import sys

import pytest

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import load_finetuned, predicting, save_finetuned
from lora_from_scratch.finetune.evaluate import predict_logits
from tests.conftest import shake


@pytest.fixture
def adapter(classifier, tmp_path):
    shake(classifier.model, size=2.0)
    save_finetuned(classifier, tmp_path / "adapter")
    return str(tmp_path / "adapter")


TEXTS = [f"{word} {'so ' * (i % 4)}feel" for i, word in enumerate(["lonely", "happy", "fond", "scared, so", "furious"] * 3)]


@pytest.fixture
def answers(adapter):
    """What the classifier says of each text."""
    classifier = load_finetuned(adapter)
    shares = predict_logits(classifier, TEXTS).softmax(1)
    return [[(classifier.label_names[k], row[k].item()) for k in row.argsort(descending=True)] for row in shares]


def table(path, name="text"):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", name], *((str(i), text) for i, text in enumerate(TEXTS))])
    return str(path)


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("at_once", [2, 512])
def test_a_table_gets_two_columns(at_once, adapter, answers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predicting, "AT_ONCE", at_once)
    out = tmp_path / "predictions.csv"
    assert main(["predict", adapter, "--file", table(tmp_path / "m.csv", "message"), "--text-column", "message", "--out", str(out)]) == 0
    rows = read(out)
    assert list(rows[0]) == ["id", "message", "label", "probability"]
    assert [row["message"] for row in rows] == TEXTS and [row["id"] for row in rows] == [str(i) for i in range(15)]
    assert [row["label"] for row in rows] == [ranked[0][0] for ranked in answers]
    assert [float(row["probability"]) for row in rows] == pytest.approx([ranked[0][1] for ranked in answers], abs=1e-5)
    assert f"{out}: 15 texts: " in capsys.readouterr().out


def test_the_k_best_labels(adapter, answers, tmp_path, capsys):
    out = tmp_path / "predictions.csv"
    words = ["predict", adapter, "--file", table(tmp_path / "m.csv"), "--out", str(out)]
    assert main([*words, "--top-k", "3"]) == 0
    assert list(read(out)[0]) == ["id", "text", "label", "probability", "label_2", "probability_2", "label_3", "probability_3"]
    assert [row["label_3"] for row in read(out)] == [ranked[2][0] for ranked in answers]
    assert main([*words, "--top-k", "99", "--overwrite"]) == 0
    assert len(read(out)[0]) == 2 + 2 * 6
    capsys.readouterr()
    assert main(["predict", adapter, *TEXTS[:2], "--top-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[1].split()[0] == answers[0][0][0] and lines[2].split()[0] == answers[0][1][0]
    assert main(["predict", adapter, TEXTS[0], "--top-k", "2", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert set(answer["probabilities"]) == {name for name, _ in answers[0][:2]}
    assert main(["predict", adapter, TEXTS[0], "--top-k", "0"]) == 2
    assert "--top-k must be a positive int, got 0" in capsys.readouterr().err


def test_lines_come_from_standard_input_and_from_a_file(adapter, answers, tmp_path, monkeypatch, capsys):
    (tmp_path / "m.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    best = [ranked[0][0] for ranked in answers]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\r\n".join(TEXTS).encode("utf-8-sig"))))
    for source in (str(tmp_path / "m.txt"), "-"):
        assert main(["predict", adapter, "--file", source]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == best and [line.split("%  ")[1] for line in lines] == TEXTS


def test_lines_of_json_keep_what_they_hold(adapter, answers, tmp_path, capsys):
    source, out = tmp_path / "m.jsonl", tmp_path / "out.jsonl"
    rows = [{"text": text, "tags": [i, "é"]} | ({"more": None} if i else {}) for i, text in enumerate(TEXTS)]
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert main(["predict", adapter, "--file", str(source), "--out", str(out)]) == 0
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [{k: v for k, v in row.items() if k not in ("label", "probability")} for row in found] == rows
    assert [row["label"] for row in found] == [ranked[0][0] for ranked in answers]
    assert main(["predict", adapter, "--file", str(source), "--out", str(tmp_path / "out.csv")]) == 2
    assert "a row has 'more', which the first row lacks: let --out end in .jsonl" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
    assert main(["predict", adapter, "--file", str(source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == found


def test_a_label_that_is_there_already_is_kept(adapter, answers, tmp_path):
    (tmp_path / "m.csv").write_text("text,label\n" + "".join(f'"{text}",mine\n' for text in TEXTS))
    out = tmp_path / "out.csv"
    assert main(["predict", adapter, "--file", str(tmp_path / "m.csv"), "--out", str(out)]) == 0
    assert [(row["label"], row["predicted_label"]) for row in read(out)] == [("mine", ranked[0][0]) for ranked in answers]
    assert main(["predict", adapter, "--file", str(out), "--out", str(tmp_path / "again.csv")]) == 2


def test_a_row_without_a_text_gets_no_label_and_is_counted(adapter, answers, tmp_path, capsys):
    (tmp_path / "m.txt").write_text("\n".join([TEXTS[0], "", "  ", TEXTS[1]]))
    out = tmp_path / "out.csv"
    assert main(["predict", adapter, "--file", str(tmp_path / "m.txt"), "--out", str(out)]) == 0
    assert [row["label"] for row in read(out)] == [answers[0][0][0], "", "", answers[1][0][0]]
    told = capsys.readouterr()
    assert "warning: 2 rows of" in told.err and "without a text got no label" in told.err and ": 2 texts: " in told.out
    (tmp_path / "one.txt").write_text(TEXTS[0])
    assert main(["predict", adapter, "--file", str(tmp_path / "one.txt"), "--out", str(tmp_path / "one.csv")]) == 0
    assert ": 1 text: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\n" + "a\n" * 5 + "a,b\n", "line 7: more fields than columns"),
        ('text\na\n"b\n', "not CSV"),
        ("message\na\n", "has no column 'text'; it has 'message': choose with --text-column"),
        ("text,text\na,b\n", "more than one column 'text'"),
        ("text\n", "has no rows"),
        ("", "has no column 'text'; it has none"),
        (b"text\na\n\xff\xfe\n", "is not readable as UTF-8 text"),
    ],
)
def test_a_faulty_table_leaves_the_earlier_predictions(content, message, adapter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predicting, "AT_ONCE", 2)
    path, out = tmp_path / "m.csv", tmp_path / "out.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out.write_text("earlier")
    assert main(["predict", adapter, "--file", str(path), "--out", str(out), "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert out.read_text() == "earlier" and sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "m.csv", "out.csv"]


def test_what_cannot_go_together_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predicting, "load_finetuned", lambda folder: pytest.fail("nothing may be loaded"))
    source = table(tmp_path / "m.csv")
    for words, message in [
        ([], "expected one text or more, each in quotes, or --file with a table"),
        (["a text", "--file", source], "or --file with a table, not both"),
        (["a text", "--out", "x.csv"], "--out takes the rows of a table: give it with --file"),
        (["--file", source, "--out", str(tmp_path / "x.xls")], "expected a .csv or a .jsonl file"),
        (["--file", source, "--out", source, "--overwrite"], "the file that is read: choose another name"),
        (["--file", source, "--out", str(tmp_path / "no" / "x.csv")], "is not a folder"),
    ]:
        assert main(["predict", "adapter", *words]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "x.csv").write_text("mine")
    assert main(["predict", "adapter", "--file", source, "--out", str(tmp_path / "x.csv")]) == 2
    assert "is there already: choose another --out, or pass --overwrite" in capsys.readouterr().err


def test_files_that_are_not_there_or_of_another_kind(adapter, tmp_path, capsys):
    (tmp_path / "m.xls").write_text("a")
    for source, message in [("nowhere.csv", "nowhere.csv is not there"), (str(tmp_path / "m.xls"), "expected a .csv, .tsv, .jsonl, .json or .parquet file, a .txt file with a text a line, or - for")]:
        assert main(["predict", adapter, "--file", source]) == 2
        assert message in capsys.readouterr().err


def test_a_text_that_looks_like_a_file_gets_a_hint(adapter, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "m.csv")
    assert main(["predict", adapter, "m.csv", "-", "happy", "x" * 5000]) == 0
    told = capsys.readouterr()
    assert "note: 'm.csv' is a file here, and was read as a text; for what is in it: predict" in told.err
    assert f"{adapter} --file m.csv" in told.err and "'-' is often standard input" in told.err
    assert told.err.count("note:") == 2 and told.out.splitlines()[0] == "m.csv"


def test_a_long_field(adapter, tmp_path):
    (tmp_path / "m.csv").write_text("text\nhappy so\n" + "so " * 60_000 + "\n")
    assert main(["predict", adapter, "--file", str(tmp_path / "m.csv"), "--out", str(tmp_path / "o.jsonl")]) == 0
    assert [len(json.loads(line)["text"]) for line in (tmp_path / "o.jsonl").open()] == [8, 180_000]


@pytest.mark.parametrize("order", ["tf", "ft", "tft", "f--t"])
def test_flags_and_texts_may_stand_in_any_order(order, adapter, capsys):
    parts = {"tf": [*TEXTS[:2], "--top-k", "1", "--json"], "ft": ["--top-k", "1", "--json", *TEXTS[:2]],
             "tft": [TEXTS[0], "--json", TEXTS[1]], "f--t": ["--json", "--", *TEXTS[:2]]}  # fmt: skip
    assert main(["predict", adapter, *parts[order]]) == 0
    assert [answer["text"] for answer in json.loads(capsys.readouterr().out)["answers"]] == TEXTS[:2]
    with pytest.raises(SystemExit, match="2"):
        main(["predict", adapter, "--json", "happy", "--tpo-k", "1"])
    assert "unknown argument '--tpo-k'; did you mean --top-k?" in capsys.readouterr().err


def test_a_full_disk_keeps_the_earlier_predictions(adapter, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.csv"
    out.write_text("earlier")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predicting, "_write_rows", full)
    assert main(["predict", adapter, "--file", table(tmp_path / "m.csv"), "--out", str(out), "--overwrite"]) == 1
    assert "out.csv cannot be written: [Errno 28] No space left on device" in capsys.readouterr().err
    assert out.read_text() == "earlier"
