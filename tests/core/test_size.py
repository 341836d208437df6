"""The core is read in one sitting: its lines of code are counted, without docstrings, comments and blank lines."""

import ast
import io
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "lora_from_scratch"
MOST = 1000
# Names, the command line, and other libraries' formats.
NOT_COUNTED = {"__init__.py", "__main__.py", "peft_format.py", "peft_names.py", "sealed.py"}
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


def lines_of_code(text):
    """How many lines hold anything but docstrings and comments."""
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None:
            code -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(code)


def test_what_counts_as_a_line_of_code():
    text = '"""Not\n\nthis."""\n\n# nor this\nx = [\n    1,  # but these three\n]\n\n\ndef f():\n    """No."""\n    return """yes,\n    both"""\n'
    assert lines_of_code(text) == 6


def test_the_core_stays_small():
    files = [path for path in PACKAGE.glob("*.py") if path.name not in NOT_COUNTED]
    counts = {path.name: lines_of_code(path.read_text(encoding="utf-8")) for path in files}
    assert sum(counts.values()) <= MOST, counts


def test_the_core_never_imports_its_extras():
    for path in PACKAGE.glob("*.py"):
        if path.name not in ("__init__.py", "__main__.py"):
            assert "lora_from_scratch.extras" not in path.read_text(encoding="utf-8"), path.name


def test_the_plain_layer_comes_first_and_the_fields_before_their_checks():
    first = next(n for n in ast.parse((PACKAGE / "layers.py").read_text(encoding="utf-8")).body if isinstance(n, ast.ClassDef))
    assert first.name == "LoRALinear"
    config = ast.parse((PACKAGE / "config.py").read_text(encoding="utf-8")).body
    assert next(n for n in config if isinstance(n, ast.ClassDef | ast.FunctionDef)).name == "LoraConfig"
