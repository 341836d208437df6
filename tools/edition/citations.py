"""Citations as author and year with a link, and the references that a notebook cites."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pybtex.database import Entry, parse_file
from pybtex.plugin import find_plugin
from pybtex.richtext import Text


def bibliography(path: Path) -> Mapping[str, Entry]:
    return parse_file(str(path)).entries


def parenthetical(sources: Iterable[Entry]) -> str:
    """([Hu et al., 2022](…); [Zhu et al., 2024](…))"""
    return "(" + "; ".join(f"[{_authors(s)}, {s.fields['year']}]({_address(s)})" for s in sources) + ")"


def textual(sources: Iterable[Entry]) -> str:
    """[Hu et al. (2022)](…) and [Zhu et al. (2024)](…)"""
    return " and ".join(f"[{_authors(s)} ({s.fields['year']})]({_address(s)})" for s in sources)


def references(sources: Iterable[Entry]) -> str:
    """A list of what was cited, by the first author's name."""
    style, markdown = find_plugin("pybtex.style.formatting", "unsrt")(), find_plugin("pybtex.backends", "markdown")()
    items = []
    for formatted in style.format_entries(sorted(sources, key=lambda s: (_authors(s).lower(), s.fields["year"], s.key))):
        text = " ".join(formatted.text.render(markdown).split())
        # The backend escapes every sign that could ever mean something; these can't in the middle of a line.
        text = re.sub(r"\\([-.()+!{}#])", r"\1", text)
        items.append(f"- {anchor(formatted.key)}{text}")
    return "\n".join(items)


def anchor(name: str) -> str:
    """A place to link to: Colab goes by the name, others by the id."""
    return f'<a name="{name}" id="{name}"></a>'


def _authors(source: Entry) -> str:
    names = [str(Text.join(" ", [*person.rich_prelast_names, *person.rich_last_names])) for person in source.persons["author"]]
    return names[0] + (" et al." if len(names) > 2 else f" and {names[1]}" if len(names) == 2 else "")


def _address(source: Entry) -> str:
    """Where the source can be read; without an address, where the notebook lists it."""
    fields = source.fields
    return fields.get("url") or ("https://doi.org/" + fields["doi"] if "doi" in fields else f"#{source.key}")
