"""predict --file reads what finetune --data reads: formats, separators and encodings, and the run's own columns."""

import csv
import datetime
import gzip
import io
import json
import sys

import pyarrow
import pyarrow.parquet
import pytest

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import save_finetuned
from lora_from_scratch.finetune.formats import KINDS
from lora_from_scratch.finetune.sidecar import RECORD
from tests.conftest import shake

TEXTS = ["lonely so feel", "happy, so", "fond é", ""]
ROWS = [{"text": text, "when": f"{i}|1"} for i, text in enumerate(TEXTS)]


@pytest.fixture
def adapter(classifier, tmp_path):
    shake(classifier.model, size=2.0)
    save_finetuned(classifier, tmp_path / "adapter")
    return tmp_path / "adapter"


def table(separator=","):
    file = io.StringIO()
    csv.writer(file, delimiter=separator).writerows([["text", "when"], *(row.values() for row in ROWS)])
    return file.getvalue()


def labelled(adapter, path, *words):
    """The rows of a file as predict writes them."""
    out = path.parent / "out.jsonl"
    assert main(["predict", str(adapter), "--file", str(path), "--out", str(out), "--overwrite", *words]) == 0
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


LINES = "\n".join(map(json.dumps, ROWS))
TABLES = {
    "m.csv": (table().encode(), ()),
    "M.CSV": (table().encode("utf-8-sig"), ()),
    "m.tsv": (table("\t").encode(), ()),
    "m.csv.gz": (gzip.compress(table().encode()), ()),
    "semicolons.csv": (table(";").encode(), ("--separator", ";")),
    "windows.csv": (table("\t").encode("cp1252"), ("--separator", "tab", "--encoding", "cp1252")),
    "m.jsonl": (LINES.encode(), ()),
    "m.ndjson": (LINES.encode(), ()),
    "m.json": (json.dumps(ROWS).encode(), ()),
    "m.parquet": (None, ()),
}


def write(path, content):
    if content is None:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "content", "words"), [(name, *how) for name, how in TABLES.items()], ids=TABLES)
def test_every_table_that_trains_is_labelled(name, content, words, adapter, tmp_path):
    found = labelled(adapter, write(tmp_path / name, content), *words)
    assert [{"text": row["text"], "when": row["when"]} for row in found] == ROWS
    assert all(row["label"] for row in found[:3]) and found[3]["label"] == ""


def test_no_kind_of_table_is_left_out():
    assert set(KINDS) <= {"." + name.partition(".")[2].removesuffix(".gz").lower() for name in TABLES}


def test_lines_packed_and_in_another_encoding(adapter, tmp_path, monkeypatch):
    expected = [row["label"] for row in labelled(adapter, write(tmp_path / "m.json", json.dumps(ROWS).encode()))]
    lines = "\r\n".join(TEXTS[:3] + [" "])
    packed = write(tmp_path / "m.txt.gz", gzip.compress(lines.encode("cp1252")))
    assert [row["label"] for row in labelled(adapter, packed, "--encoding", "cp1252")] == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode("utf-16"))))
    out = tmp_path / "out.csv"
    assert main(["predict", str(adapter), "--file", "-", "--encoding", "utf-16", "--out", str(out)]) == 0
    assert [row["label"] for row in csv.DictReader(out.open(encoding="utf-8"))] == expected


def test_what_parquet_has_and_json_lacks(adapter, tmp_path, capsys):
    rows = [{"text": "happy", "day": datetime.date(2026, 5, 1)}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "m.parquet")
    assert labelled(adapter, tmp_path / "m.parquet")[0]["day"] == "2026-05-01"
    capsys.readouterr()
    assert main(["predict", str(adapter), "--file", str(tmp_path / "m.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["day"] == "2026-05-01"


def test_a_table_is_read_as_the_run_read_its_own(adapter, tmp_path, capsys):
    reading = {"text": "message", "separator": ";", "encoding": "cp1252", "skip_bad_rows": True}
    (adapter / RECORD).write_text(json.dumps({"reading": reading}))
    same = write(tmp_path / "same.csv", table(";").replace("text", "message").encode("cp1252"))
    expected = [row["label"] for row in labelled(adapter, same)]
    other = write(tmp_path / "other.csv", table().encode())
    words = ("--text-column", "text", "--separator", ",", "--encoding", "utf-8")
    assert [row["label"] for row in labelled(adapter, other, *words)] == expected
    lines = write(tmp_path / "m.txt", "\n".join(TEXTS[:3] + [" "]).encode())  # which are neither columns nor the run's table
    assert [row["label"] for row in labelled(adapter, lines)] == expected and "text" in labelled(adapter, lines)[0]
    capsys.readouterr()
    assert len(labelled(adapter, other, *words[:4])) == 4
    assert "other.csv was read as CP1252, but looks like UTF-8: pass --encoding utf-8" in capsys.readouterr().err
    (adapter / RECORD).write_text(json.dumps({"reading": {"separator": 7}}))
    assert main(["predict", str(adapter), "--file", str(other)]) == 2
    assert "does not say how to read a table" in capsys.readouterr().err


def test_bad_rows_are_refused_or_left_out_and_counted(adapter, tmp_path, capsys):
    path = write(tmp_path / "m.csv", (table() + "a,b,c\n").encode())
    (adapter / RECORD).write_text(json.dumps({"reading": {"skip_bad_rows": True}}))  # of the training rows, that is
    assert main(["predict", str(adapter), "--file", str(path)]) == 2
    assert "m.csv, line 6: more fields than columns" in capsys.readouterr().err
    assert len(labelled(adapter, path, "--skip-bad-rows")) == 4
    assert "skipped 1 row: 1 with too many fields (first in line 6)" in capsys.readouterr().err


def test_a_column_that_is_lost_is_named(adapter, tmp_path, capsys):
    path = write(tmp_path / "m.csv", b"id,text,id,,\n1,happy,2,,\n")
    assert labelled(adapter, path)[0]["id"] == "2"
    told = capsys.readouterr().err
    assert "m.csv has more than one column 'id'; the last is read" in told and told.count("note:") == 1


def test_a_bad_encoding_is_refused_before_the_adapter_is_read(tmp_path, capsys):
    path = write(tmp_path / "m.csv", table().encode())
    assert main(["predict", "nowhere", "--file", str(path), "--encoding", "klingon"]) == 2
    assert "encoding 'klingon' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["m.csv.gz", "m.json", "m.parquet", "m.txt.gz"])
def test_a_damaged_file_is_named(name, adapter, tmp_path, capsys):
    assert main(["predict", str(adapter), "--file", str(write(tmp_path / name, b"\x1f\x8b damaged"))]) == 2
    error = capsys.readouterr().err
    assert name in error and "not readable" in error and error.count("\n") == 1
