"""Tables as people have them: other formats, separators and encodings; damaged rows; and what each message names."""

import gzip
import json
import re

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from lora_from_scratch import LoraError
from lora_from_scratch.finetune import load_data

ROWS = [(f"text {i} on {label}, at length", label) for label in ("app", "bill", "café") for i in range(20)]
CSV = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS)
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]
LINES = "\n".join(map(json.dumps, OBJECTS))


def load(tmp_path, name, content, **how):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_data(path, **how)


def columns():
    return {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}


def parquet(tmp_path, table):
    pyarrow.parquet.write_table(table, tmp_path / "made.parquet")
    return (tmp_path / "made.parquet").read_bytes()


WITH = {
    "capitals": ("TABLE.CSV", CSV, {}),
    "lines of Windows": ("table.csv", CSV.replace("\n", "\r\n"), {}),
    "packed": ("table.csv.gz", gzip.compress(CSV.encode()), {}),
    "packed, in capitals": ("TABLE.CSV.GZ", gzip.compress(CSV.encode()), {}),
    "tabs": ("table.tsv", CSV.replace('",', '"\t').replace("text,", "text\t"), {}),
    "tabs by name": ("table.csv", CSV.replace('",', '"\t').replace("text,", "text\t"), {"separator": "tab"}),
    "semicolons": ("table.csv", CSV.replace('",', '";').replace("text,", "text;"), {"separator": ";"}),
    "of Windows": ("table.csv", CSV.encode("cp1252"), {"encoding": "cp1252"}),
    "of Excel": ("table.csv", CSV.encode("utf-16"), {"encoding": "utf-16"}),
    "JSON": ("table.json", json.dumps(OBJECTS), {}),
    "JSON in lines under the other name": ("table.json", LINES, {}),
    "packed JSON": ("table.jsonl.gz", gzip.compress(LINES.encode()), {}),
    "ndjson": ("table.ndjson", LINES, {}),
}


@pytest.mark.parametrize(("name", "content", "how"), WITH.values(), ids=WITH)
def test_every_format_holds_the_same_rows(tmp_path, name, content, how):
    assert load(tmp_path, name, content, **how).fingerprint == load(tmp_path, "plain.csv", CSV).fingerprint


def test_parquet_plain_as_categories_and_with_the_names_of_labels(tmp_path):
    plain = pyarrow.table(columns())
    categories = plain.set_column(1, "label", plain["label"].dictionary_encode())
    names = sorted({label for _, label in ROWS})
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=names))
    numbered = datasets.Dataset.from_dict(columns(), features=features).data.table
    expected = load(tmp_path, "plain.csv", CSV).fingerprint
    for table in (plain, categories, numbered):
        assert load(tmp_path, "table.parquet", parquet(tmp_path, table)).fingerprint == expected
    hidden = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, -1]}, features=features).data.table
    with pytest.raises(LoraError, match=r"row 2: the label is -1, expected 0 to 2 \(-1 means: published without labels\)"):
        load(tmp_path, "table.parquet", parquet(tmp_path, hidden))
    with pytest.raises(LoraError, match="has no column 'review'; it has 'text', 'label'"):
        load(tmp_path, "table.parquet", parquet(tmp_path, plain), text="review")


def test_a_text_read_in_the_wrong_encoding_is_pointed_out(tmp_path):
    with pytest.warns(UserWarning, match="was read as CP1252, but looks like UTF-8: pass --encoding utf-8 if it is"):
        load(tmp_path, "t.csv", CSV, encoding="cp1252")


def test_a_folder_may_mix_formats(tmp_path):
    (tmp_path / "train.CSV").write_text(CSV, encoding="utf-8")
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": "new", "label": "app"}).encode()))
    (tmp_path / "dev.csv").write_text(CSV, encoding="utf-8")
    with pytest.warns(UserWarning, match="not read: dev.csv"), pytest.warns(UserWarning, match="test has no rows of bill, café"):
        assert load_data(tmp_path).test.texts == ["new"]


def test_a_text_may_be_as_long_as_it_likes(tmp_path):
    data = load(tmp_path, "long.csv", CSV + "word " * 100_000 + ",app\n")
    assert max(len(text) for split in (data.train, data.validation, data.test) for text in split.texts) == 500_000


REFUSED = {
    "semicolons": ("t.csv", "text;label\nx;y\n", {}, "it has 'text;label'. Its columns have semicolons between them: pass --separator ';'"),
    "tabs": ("t.csv", "text\tlabel\nx\ty\n", {}, r"it has 'text\tlabel'. Its columns have tabs between them: pass --separator tab"),
    "commas in .tsv": ("t.tsv", "text,label\nx,y\n", {}, "Its columns have commas between them: pass --separator ','"),
    "a bar in quotes": ("t.csv", '"text"|"label"\nx|y\n', {}, "Its columns have vertical bars between them: pass --separator '|'"),
    "neither": ("t.csv", "a;b\nx;y\n", {}, "has no column 'label' and no 'text'; it has 'a;b'"),
    "cp1252": ("t.csv", CSV.encode("cp1252"), {}, "is not readable as UTF-8 text: byte 0xe9 in line 42; try --encoding cp1252"),
    "utf-16": ("t.csv", CSV.encode("utf-16"), {}, "is not readable as UTF-8 text: byte 0xff in line 1; try --encoding utf-16"),
    "not utf-16": ("t.csv", b"abc", {"encoding": "utf-16"}, "is not readable as UTF-16 text: byte 0x63 in line 1; try --encoding utf-8"),
    "no such encoding": ("t.csv", CSV, {"encoding": "klingon"}, "encoding 'klingon' is unknown; utf-8, utf-16 and cp1252"),
    "no text encoding": ("t.csv", CSV, {"encoding": "hex"}, "encoding 'hex' is unknown"),
    "two characters": ("t.csv", CSV, {"separator": "::"}, "separator is '::', expected a single character, or tab"),
    "not packed": ("t.csv.gz", CSV, {}, "is not readable: Not a gzipped file"),
    "packed by half": ("t.csv.gz", gzip.compress(CSV.encode())[:60], {}, "is not readable: Compressed file ended before"),
    "no Parquet": ("t.parquet", "text", {}, "is not readable as Parquet: "),
    "half a JSON array": ("t.json", '[{"text": "a"', {}, "t.json: not JSON (Expecting"),
    "JSON by column": ("t.json", '{"text": ["a"], "label": ["b"]}', {}, "t.json, row 1: the text is ['a'], expected words"),
    "deep JSON": ("t.json", "[" * 100_000, {}, "t.json: not JSON (maximum recursion depth exceeded"),
    "deep lines": ("t.jsonl", "[" * 100_000, {}, "line 1: not JSON (maximum recursion depth exceeded"),
    "no table": ("t.docx", "text", {}, "t.docx: expected a .csv or a .jsonl file (or .tsv, .json or .parquet; .gz after it if it is packed)"),
    "an escape in a label": ("t.csv", CSV + "a,\x1b[31mred\n", {}, r"line 62: the label is '\x1b[31mred', which has characters that cannot be printed"),
    "a line end in a label": ("t.csv", CSV + 'a,"x\ny"\n', {}, r"line 62: the label is 'x\ny', which has"),
    "half a character": ("t.jsonl", '{"text": "\\ud83d", "label": "a"}', {}, r"line 1: the text has '\ud83d' in it, which is half a character"),
    "an accent of two characters": ("t.csv", CSV + "a,cafe\u0301\n", {}, "labels differ only in spaces, invisible characters or how a character is encoded: 'cafe\u0301', 'café'"),
    "a space without a width": ("t.csv", CSV + "a,app\u200b\n", {}, "invisible characters or how a character is encoded: 'app', 'app\\u200b'"),
    "an open quotation mark": ("t.csv", CSV + '"a,app\nb,app\n', {}, "after line 61: not CSV (unexpected end of data); is a quotation mark missing?"),
    "one bad row": ("t.csv", CSV + ",app\n", {}, "line 62: the text is '', expected words; --skip-bad-rows skips such rows"),
    "three bad rows": ("t.csv", CSV + "a\n\n,app\nb,\n", {}, "line 62: the label is None, expected a word or a whole number; --skip-bad-rows skips this row and 2 more"),
    "nothing else": ("t.csv", "text,label\na,\n,b\n", {"skip_bad_rows": True}, "line 2: the label is '', expected a word or a whole number; no row is without a fault"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "how", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_named(tmp_path, name, content, how, message):
    with pytest.raises(LoraError, match=re.escape(message)):
        load(tmp_path, name, content, **how)


def test_bad_rows_are_skipped_and_counted_by_kind(tmp_path):
    bad = CSV + ',app\nwords,\n"two\nlines",app\n , \na,app,more\nb,\x07\n'
    expected = ("skipped 5 rows: 2 without a text (first in line 62), 1 without a label (first in line 63), "
                "1 with too many fields (first in line 67), 1 with an unprintable label (first in line 68)")  # fmt: skip
    with pytest.warns(UserWarning, match=re.escape(expected)):
        data = load(tmp_path, "bad.csv", bad, skip_bad_rows=True)
    assert len(data.train) + len(data.validation) + len(data.test) == 61
    mixed = LINES + '\n{"text"\n{"text": "a"}\n{"text": null, "label": "app"}\n'
    with pytest.warns(UserWarning, match=r"skipped 3 rows: 1 that are not JSON \(first in line 61\), 1 with no label"):
        load(tmp_path, "bad.jsonl", mixed, skip_bad_rows=True)


MERGED = {
    "label last": 'text,label\n{rows}"the first,app\nthe second,bill\nthe third",café\n',
    "two rows": 'text,label\n{rows}"the first,app\nthe second",bill\n',
    "with a column between": 'text,who,label\n{rows}"the first,me,app\nthe second",you,bill\n',
}


@pytest.mark.parametrize("content", MERGED.values(), ids=MERGED)
def test_rows_that_a_quotation_mark_merges_are_pointed_out(tmp_path, content):
    between = ",them" if "who" in content else ""
    rows = "".join(f'"{text}"{between},{label}\n' for text, label in ROWS)
    with pytest.warns(UserWarning, match="line 62: the text looks like several rows in one; is a quotation mark missing?"):
        load(tmp_path, "merged.csv", content.format(rows=rows))


@pytest.mark.filterwarnings("error")
def test_a_text_of_several_lines_is_no_merged_row(tmp_path):
    load(tmp_path, "lines.csv", CSV + '"one, two\napp, or so\nthree",app\n"a list:\na,b,c",bill\n')


def test_rows_merged_where_the_label_comes_first(tmp_path):
    rows = "".join(f'{label},"{text}"\n' for text, label in ROWS)
    with pytest.warns(UserWarning, match=r"line 62: the text looks like several rows .* \(2 rows like this\)"):
        load(tmp_path, "m.csv", f'label,text\n{rows}app,"first\nbill,second"\nbill,"third\napp,fourth"\n')
