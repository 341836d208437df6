"""Data of the reader's own: what is read, how it is shared out, and every mistake's message."""

import json
from types import SimpleNamespace

import pytest

from lora_from_scratch import LoraError
from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import data as emotion_data
from lora_from_scratch.finetune import load_data, load_finetuned
from lora_from_scratch.finetune.data import SPLITS

TOPICS = ("billing", "delivery", "app")
ROWS = [(f"text {i} about, {topic}\nindeed", topic) for topic in TOPICS for i in range(20)]


def csv_text(rows, header="text,label"):
    return "\n".join([header, *(f'"{text}",{label}' for text, label in rows)]) + "\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "topics.csv"
    path.write_text(csv_text(ROWS), encoding="utf-8")
    return path


def texts_of(data):
    return [set(getattr(data, split).texts) for split in SPLITS]


def test_one_csv_file_is_shared_out_by_label(table):
    data = load_data(table)
    assert data.label_names == ("app", "billing", "delivery")
    assert sum(len(getattr(data, split)) for split in SPLITS) == 60
    assert all(1 <= getattr(data, split).labels.count(k) <= 5 for split in ("validation", "test") for k in range(3))
    assert set().union(*texts_of(data)) == {text for text, _ in ROWS}
    assert load_data(table).fingerprint == data.fingerprint
    assert not data.is_real and f"3 labels (app, billing, delivery): {len(data.train)} train" in str(data)


def test_jsonl_csv_and_a_marked_file_say_the_same(table, tmp_path):
    jsonl, marked = tmp_path / "topics.jsonl", tmp_path / "marked.csv"
    jsonl.write_text("\n".join(json.dumps({"text": t, "label": k}, ensure_ascii=False) for t, k in ROWS) + "\n\n")
    marked.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert load_data(jsonl).fingerprint == load_data(marked).fingerprint == load_data(table).fingerprint


def test_an_odd_line_end_inside_a_text_is_part_of_it(tmp_path):
    rows = [(f"{text}\u2028and more", label) for text, label in ROWS]
    path = tmp_path / "odd.jsonl"
    path.write_text("\n".join(json.dumps({"text": t, "label": k}, ensure_ascii=False) for t, k in rows))
    data = load_data(path)
    assert sum(len(getattr(data, split)) for split in SPLITS) == 60


def test_a_text_that_occurs_twice_stands_in_one_split(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text(csv_text(ROWS * 3))
    data = load_data(path)
    train, validation, test = texts_of(data)
    assert not train & validation and not train & test and not validation & test
    assert len(data.train) + len(data.validation) + len(data.test) == 3 * len(ROWS)


def test_labels_that_are_numbers_keep_their_order(tmp_path):
    path = tmp_path / "stars.csv"
    path.write_text(csv_text([(f"text {k} {i}", k) for k in range(1, 12) for i in range(5)]))
    assert load_data(path).label_names == tuple(str(k) for k in range(1, 12))


def test_a_folder_may_bring_its_own_splits(tmp_path):
    (tmp_path / "train.csv").write_text(csv_text(ROWS))
    (tmp_path / "test.csv").write_text(csv_text([("another text", "app")]))
    with pytest.warns(UserWarning, match="test has no rows of billing, delivery"):
        data = load_data(tmp_path)
    assert len(data.train) + len(data.validation) == 60 and data.validation.labels
    assert data.test.texts == ["another text"]


def test_the_emotion_folder_is_still_emotion(folder):
    assert load_data(folder).label_names[0] == "sadness"
    assert load_data(folder).source == "folder"


def test_a_dataset_of_the_hub(monkeypatch):
    import datasets

    features = SimpleNamespace(names=["good", "bad"])
    rows = {"review": [f"text {i}" for i in range(40)], "stars": [i % 2 for i in range(40)]}

    class Rows(dict):
        column_names = ["review", "stars"]  # noqa: RUF012
        features = {"stars": SimpleNamespace(names=["good", "bad"])}  # noqa: RUF012

    monkeypatch.setattr(datasets, "load_dataset", lambda name, configuration: {"train": Rows(rows)})
    monkeypatch.setattr(emotion_data, "hub_answers", lambda: True)
    data = load_data("someone/reviews", "review", "stars")
    assert data.label_names == ("bad", "good") and features.names[data.train.labels[0]] != ""
    first = data.train.texts[0]
    assert data.label_names[data.train.labels[0]] == features.names[rows["stars"][rows["review"].index(first)]]
    with pytest.raises(LoraError, match=r"someone/reviews has no column 'label' and no 'text'; it has review, stars"):
        load_data("someone/reviews")


TABLES = {
    "no such column": ("a,b\nx,y\n", r"has no column 'label' and no 'text'; it has 'a', 'b'"),
    "empty file": ("", r"has no column 'label' and no 'text'; it has none"),
    "other separator": ("text;label\nx;y\n", r"it has 'text;label'"),
    "comma without quotes": ("text,label\na, b,app\n", r"line 2: more fields than columns; a text with a comma"),
    "label missing": ("text,label\nwords\n", r"line 2: the label is None, expected a word"),
    "text empty": ("text,label\n  ,app\n", r"line 2: the text is '  ', expected words"),
    "quote left open": ('text,label\n"words,app\n', r"after line 1: not CSV \(unexpected end of data\)"),
    "one label": ("text,label\na,app\nb,app\nc,app\n", r"train has 1 label \(app\), expected at least two"),
    "case": (csv_text([*ROWS, ("more", "App")]), r"labels differ only in upper and lower case: 'App', 'app'"),
    "too few": (csv_text([*ROWS, ("a", "rare"), ("b", "rare")]), r"label 'rare' has 2 texts, too few to take validation and test"),
}


@pytest.mark.parametrize(("content", "message"), TABLES.values(), ids=TABLES)
def test_a_faulty_table_is_named(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(LoraError, match=message):
        load_data(path)


def test_faulty_sources_are_named(tmp_path, table):
    with pytest.raises(LoraError, match=r"gone.csv is not there: expected a .csv or .jsonl file, a folder, owner/name"):
        load_data(tmp_path / "gone.csv")
    (tmp_path / "a.xlsx").write_text("?")
    with pytest.raises(LoraError, match=r"a.xlsx: expected a .csv or a .jsonl file"):
        load_data(tmp_path / "a.xlsx")
    with pytest.raises(LoraError, match=r"lacks train.csv or train.jsonl"):
        load_data(tmp_path)
    with pytest.raises(LoraError, match=r"columns 'review' and 'label' are for data of your own"):
        load_data("built-in", "review")
    (tmp_path / "train.csv").write_text(csv_text(ROWS))
    (tmp_path / "validation.csv").write_text(csv_text([("x", "unheard of")]))
    with pytest.raises(LoraError, match=r"validation has labels that train does not have: unheard of"):
        load_data(tmp_path)
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(LoraError, match=r"has train.csv and train.jsonl: expected only one of them"):
        load_data(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"text": "words", "label": 1.5}\n')
    with pytest.raises(LoraError, match=r"bad.jsonl, line 1: the label is 1.5, expected a word or a whole number"):
        load_data(tmp_path / "bad.jsonl")


def test_from_a_csv_to_a_prediction(tiny_backbone, tmp_path, capsys, data_folder):
    table, out = tmp_path / "topics.csv", tmp_path / "out"
    words = {"lonely": "app", "happy": "billing", "scared": "delivery"}
    table.write_text(csv_text([(f"{word} {word} {'so ' * i}", topic) for word, topic in words.items() for i in range(20)]))
    recipe = ["--lr", "1e-2", "--head-lr", "2e-2", "--batch-size", "8", "--epochs", "5", "--model", tiny_backbone]
    assert main(["finetune", "--out", str(out), "--data", str(table), *recipe]) == 0
    assert load_finetuned(out).label_names == ("app", "billing", "delivery")
    capsys.readouterr()
    assert main(["predict", "--json", str(out), "scared scared so"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["label"] == "delivery"
    assert main(["evaluate", str(out), "--data", str(data_folder)]) == 2
    assert "the classifier has the labels app, billing, delivery; the data has sadness" in capsys.readouterr().err
