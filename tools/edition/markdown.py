"""From MyST to plain Markdown: what Colab, previews of a repository and any other reader of notebooks show.

Blocks are found by MyST's own parser, so that a fence of code that looks like a directive stays code. What isn't
known here is refused by name, because it would stand raw in the edition.
"""

import re
import sys

from tools.edition import citations
from tools.edition.book import Book
from tools.edition.citations import anchor
from tools.edition.tex import expand
from tools.gate.source import DIRECTIVE
from tools.notebook import colab_address

MATHS = r"\$\$.+?\$\$|(?<![\\$])\$[^$]+\$"
# In this order: a role's text and a code span are left alone by what comes after them.
INLINE = re.compile(
    r"\{(?P<role>[\w:]+)\}`(?P<said>[^`]+)`|(?P<code>(?P<ticks>`+).+?(?P=ticks))"
    rf"|(?P<maths>{MATHS})"
    r"|!\[(?P<alt>[^\]]*)\]\((?P<picture>_static/[^)\s]+)\)|\]\((?P<target>[^)\s]+)",
    re.S,
)
ADMONITIONS = {"admonition", "important", "note", "tip", "warning"}


class Page:
    """One notebook's text. Remembers what it cites."""

    def __init__(self, book: Book, name: str):
        self.book, self.name = book, name
        self.cited: set[str] = set()

    # Blocks.

    def text(self, source: str) -> str:
        lines, parts, done = source.splitlines(), [], 0
        for token in self.book.parser.parse(source):
            if token.level or token.type not in ("fence", "colon_fence", "math_block", "math_block_label"):
                continue
            first, last = token.map
            parts.append(self.inline("\n".join(lines[done:first])))
            if token.type == "math_block_label":
                tex = expand(token.content.strip("\n"), self.book.macros)
                parts.append(f"{anchor(token.info)}\n\n$$\n{tex}\n\\tag{{{self.book.labels[token.info].name.strip('()')}}}\n$$")
            elif token.type != "math_block" and (found := DIRECTIVE.fullmatch(token.info.strip())):
                parts.append(self._directive(found["name"], found["title"].strip(), token.content))
            else:
                block = "\n".join(lines[first:last])
                parts.append(expand(block, self.book.macros) if token.type == "math_block" else block)
            done = last
        parts.append(self.inline("\n".join(lines[done:])))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).strip()

    def _directive(self, name: str, title: str, content: str) -> str:
        head = re.match(r"(?:[ \t]*:[\w-]+:.*(?:\n|$))*", content)[0]
        options = dict(re.findall(r"^[ \t]*:([\w-]+):[ \t]*(.*)$", head, flags=re.M))
        body = content[len(head) :].strip("\n")
        if name in ADMONITIONS:
            return self._admonition(title or name.capitalize(), options.get("class", ""), body)
        if name == "exercise":
            label = options["label"]
            return f"{anchor(label)}\n\n### {self.book.labels[label].name}: {self.inline(title)}\n\n{self.text(body)}"
        if name == "solution-start":
            exercise = self.book.labels[title]
            return f"{anchor(options['label'])}\n\n### Solution to {exercise.name[0].lower()}{exercise.name[1:]}: {self.inline(exercise.title)}"
        if name == "solution-end":
            return ""
        if name == "image":
            return self.book.pictures.tag(title, options["alt"], options.get("width", ""))
        if name == "grid":
            return self.text(body)
        if name == "grid-item-card":
            return f"- [{self.inline(title)}]({colab_address(self.book.repo, options['link'] + '.ipynb')}) {' '.join(self.text(body).split())}"
        if name == "card-footer":
            return f"*{body.strip()}*"
        sys.exit(f"{self.name}: the reader's edition doesn't know the directive {{{name}}}: see tools/edition/markdown.py")

    def _admonition(self, title: str, kind: str, body: str) -> str:
        body = self.text(body)
        if "dropdown" in kind:
            return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
        # A line break in a formula would bring the next line's mark into it: readers take formulas out first.
        body = re.sub(MATHS, lambda maths: maths[0].replace("\n", " "), body, flags=re.S)
        return "\n".join(f"> {line}".rstrip() for line in (f"**{title}**", "", *body.splitlines()))

    # What stands within a line.

    def inline(self, text: str) -> str:
        return INLINE.sub(self._inline, text)

    def _inline(self, found: re.Match) -> str:
        if found["role"]:
            return self._role(found["role"], " ".join(found["said"].split()))
        if found["maths"]:
            return expand(found["maths"], self.book.macros)
        if found["picture"]:
            return self.book.pictures.tag(found["picture"], " ".join(found["alt"].split()))
        if found["target"]:
            return f"]({self._target(found['target'])}"
        return found[0]

    def _role(self, role: str, said: str) -> str:
        if role in ("cite", "cite:t"):
            keys = [key.strip() for key in said.split(",")]
            self.cited |= set(keys)
            return (citations.parenthetical if role == "cite" else citations.textual)(self.book.sources[key] for key in keys)
        if role in ("numref", "eq"):
            return f"[{self.book.labels[said].name}](#{said})"
        if role == "term":
            words, _, term = said.rstrip(">").partition("<")
            term = self.book.terms[(term or words).strip().lower()]
            return f"[{words.strip()}]({self.book.repo.site}/book/glossary.html#term-{re.sub(r'[^A-Za-z0-9.]+', '-', term)})"
        sys.exit(f"{self.name}: the reader's edition doesn't know the role {{{role}}}: see tools/edition/markdown.py")

    def _target(self, target: str) -> str:
        """A link's address that works from a notebook alone: other notebooks on Colab, pages on the site."""
        path, _, place = target.partition("#")
        if re.match(r"https?:", target):
            return target
        if path in self.book.notebooks and (not place or (path, place) in self.book.sections):
            return colab_address(self.book.repo, path) + (f"#scrollTo={self.book.sections[path, place]}" if place else "")
        if path.endswith(".md"):
            return f"{self.book.repo.site}/book/{path.removesuffix('.md')}.html" + (f"#{place}" if place else "")
        sys.exit(f"{self.name}: the link to {target} leads nowhere from the reader's edition")
