"""Sphinx extension: what the theme leaves undone for screen readers.

Two buttons are in templates/: a label that hides their visible text from voice control
is left out there. What is in the body is mended here.
"""

MENDED = {
    # A list's children are items; docutils' role for an entry is deprecated.
    'role="doc-biblioentry"': 'role="listitem"',
    # "Show code cell source" says more than the label that would be read in its place.
    '<summary aria-label="Toggle hidden content">': "<summary>",
    # The empty corner of a table that has headings above and beside.
    '<th class="head"><p></p></th>': '<td class="head"></td>',
}


def mend(app, pagename, templatename, context, doctree):
    for old, new in MENDED.items():
        if context.get("body"):
            context["body"] = context["body"].replace(old, new)


def setup(app):
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
