"""Sphinx extension: a chapter's number is the one in its file's name, A1 for a1_tiny_adapters.

Sphinx counts along the table of contents, so an appendix would be chapter 18, and every chapter would change
its number whenever one before it came or went. Section numbers are corrected right after Sphinx assigns them;
figures, equations and exercises take theirs from these.
"""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.environment.collectors.toctree import TocTreeCollector

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.pages import chapter_number  # noqa: E402  # Sphinx puts this folder alone on the path


def renumber(env):
    for docname, sections in env.toc_secnumbers.items():
        number = chapter_number(docname.rpartition("/")[2])
        if number is None:
            continue
        env.toc_secnumbers[docname] = {
            anchor: (number, *old[1:]) if old else old for anchor, old in sections.items()
        }
        for node in [env.titles[docname], *env.tocs[docname].findall(nodes.reference)]:
            if node.get("secnumber"):
                node["secnumber"] = (number, *node["secnumber"][1:])


def setup(app):
    # Figures are numbered in the same step, right after sections, so no event lies between.
    collector = next(
        kind for kind in (*TocTreeCollector.__subclasses__(), TocTreeCollector)
        if "assign_section_numbers" in vars(kind)
    )  # fmt: skip
    assign = collector.assign_section_numbers

    def assign_and_renumber(self, env):
        changed = assign(self, env)
        renumber(env)
        return changed

    collector.assign_section_numbers = assign_and_renumber
    return {"parallel_read_safe": True, "parallel_write_safe": True}
