"""House words: a short, hard list of words that this book doesn't use, each with the one to use instead.

Held against prose, captions, alt texts, comments, docstrings and messages. Identifiers and keys aren't words:
a string counts if it has a space in it.
"""

import ast
import io
import re
import tokenize

from tools.gate.source import plain_python, prose

INSTEAD = {
    "yardsticks?": "baseline",
    "whoever": "you, or anyone who",
    r"numbers\s+trained|trained\s+numbers": "trained parameters",
    "linears": "linear layers",
    "hearsay": "a claim without evidence",
    "mend(?:s|ed|ing)?": "fix",
    "dear(?:er|est|ly)?": "expensive, more expensive",
}
PATTERNS = {re.compile(rf"(?<![\w/.-])(?:{word})(?![\w/]|-\w|\.\w)", re.I): use for word, use in INSTEAD.items()}
MARKDOWN = ("*.md", "book/*.md")
PYTHON = ("lora_from_scratch/**/*.py", "book/**/*.py", "tools/**/*.py")
SENTENCES = {"lora_from_scratch/finetune/corpus.py", "book/study/neutral.py"}  # their strings are data, not messages


def page_words(page):
    """In a notebook: what its Markdown says, and what its code says to readers."""
    for cell in page.nb.cells:
        meta = cell.metadata.get("mystnb", {})
        texts = [meta.get("image", {}).get("alt", ""), meta.get("figure", {}).get("caption", "")]
        texts += spoken(cell.source) if cell.cell_type == "code" else [prose(cell.source), *re.findall(r"^:alt: (.*)$", cell.source, re.M)]
        for message in house_words(texts):
            yield cell.id, message


def file_words(book):
    for path in (p for pattern in MARKDOWN + PYTHON for p in sorted(book.root.glob(pattern))):
        name, text = str(path.relative_to(book.root)), path.read_text(encoding="utf-8")
        texts = [prose(text)] if path.suffix == ".md" else spoken(text, strings=name not in SENTENCES)
        for message in house_words(texts):
            yield name, message


def house_words(texts):
    for text in texts:
        for pattern, use in PATTERNS.items():
            for match in pattern.finditer(text):
                start = max(0, match.start() - 25)
                yield f"house word {match[0]!r} in {' '.join(text[start : match.end() + 25].split())!r}: write {use}"


def spoken(source, strings=True):
    """What a piece of Python says in words: comments, docstrings and, if asked for, messages."""
    source = plain_python(source)
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return  # another rule says so
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield _without_code(token.string)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text = _text(node) if id(node) not in inner else ""
        if id(node) in docstrings or strings and re.search(r"\w\s+\w", text):
            yield _without_code(text)


def _text(node):
    """A string's text; of an f-string what stands in the source, with … for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join("…" if isinstance(part, ast.FormattedValue) else _text(part) for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _without_code(text):
    return re.sub(r"(`+)[^`]+\1", " ", text)
