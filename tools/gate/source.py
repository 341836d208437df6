"""Reading what authors write: the prose in Markdown, the syntax tree of a code cell."""

import ast
import re

CODE_DIRECTIVES = {"code", "code-block", "code-cell", "math", "literalinclude", "raw", "mermaid"}
FENCE = re.compile(r"\s*(?P<mark>`{3,}|~{3,}|:{3,})\s*(?P<info>.*)")
DIRECTIVE = re.compile(r"\{(?P<name>[\w:-]+)\}\s*(?P<title>.*)")


def prose(text):
    """Markdown without code, maths, addresses and directive options; line breaks are kept."""
    text = "\n".join(_outside_code(text.splitlines()))
    # A role such as {cite}`hu2022lora` leaves its name; then a plain code span is code.
    text = re.sub(r"(\{[\w:-]+\})`[^`]*`", r"\1", text)
    text = re.sub(r"(`+)[^`]+\1", " ", text)
    text = re.sub(r"\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", " ", text, flags=re.S)
    text = re.sub(r"(?<!\\)\$[^$]+\$", " ", text)
    return re.sub(r"\]\([^)]*\)|<[^>\n]*>|https?://\S+", " ", text)


def _outside_code(lines):
    open_fences = []  # (mark, holds code)
    for line in lines:
        fence = FENCE.fullmatch(line)
        in_code = bool(open_fences) and open_fences[-1][1]
        if fence:
            mark, info = fence["mark"], fence["info"]
            if open_fences and not info and mark.startswith(open_fences[-1][0]):
                open_fences.pop()
            elif not in_code:
                directive = DIRECTIVE.fullmatch(info)
                name = directive and directive["name"]
                holds_code = mark[0] != ":" and (not name or name in CODE_DIRECTIVES)
                open_fences.append((mark, holds_code))
                yield directive["title"] if directive and not holds_code else ""
        elif not in_code:
            is_option = open_fences and re.match(r"\s*:[\w-]+:(\s|$)", line)
            yield "" if is_option else line


def directives(text, name):
    """(argument, options, body) of each directive of that name."""
    found = []
    pattern = rf"^(?P<mark>`{{3,}}|:{{3,}})\{{{re.escape(name)}\}}[ ]*(?P<argument>.*)$"
    for match in re.finditer(pattern, text, flags=re.M):
        body = re.split(rf"^{match['mark']}\s*$", text[match.end() :], maxsplit=1, flags=re.M)[0]
        options = dict(re.findall(r"^:([\w-]+):[ ]*(.*)$", body, flags=re.M))
        found.append((match["argument"].strip(), options, body))
    return found


def plain_python(source):
    """A cell's source with IPython's own lines replaced by pass."""
    return re.sub(r"^([ \t]*)[%!].*$", r"\1pass", source, flags=re.M)


def parse(source):
    """The syntax tree of a cell, or None if it isn't valid Python."""
    try:
        return ast.parse(plain_python(source))
    except SyntaxError:
        return None


def definitions(tree):
    """Top-level classes and functions as {name: syntax tree, as text}.

    Left out are docstrings, and annotations that only declare an attribute to the type checker.
    """
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name: _what_runs(node) for node in tree.body if isinstance(node, kinds)}


def _what_runs(node):
    node = ast.parse(ast.unparse(node))  # a copy
    for inner in ast.walk(node):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef):
            body = inner.body[1:] if ast.get_docstring(inner) else inner.body
            if isinstance(inner, ast.ClassDef) and not inner.decorator_list:  # of a dataclass they are the fields
                body = [line for line in body if not isinstance(line, ast.AnnAssign) or line.value]
            inner.body = body or [ast.Pass()]
    return ast.dump(node)


def has_assert(tree):
    """Whether the cell asserts anything, by statement or by a function such as assert_close."""
    return any(
        isinstance(node, ast.Assert)
        or isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2].startswith("assert")
        for node in ast.walk(tree)
    )
