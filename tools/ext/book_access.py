"""Sphinx extension: what the theme leaves undone for screen readers.

templates/ has two buttons without the label that would hide their visible text from voice control. What is
wrong in the body of a page is fixed here.
"""

FIXES = {
    # A list's children are items; docutils' role for an entry is deprecated.
    'role="doc-biblioentry"': 'role="listitem"',
    # "Show code cell source" says more than the label that would be read instead.
    '<summary aria-label="Toggle hidden content">': "<summary>",
    # The empty corner of a table that has headings at the top and at the side.
    '<th class="head"><p></p></th>': '<td class="head"></td>',
    # Every exercise's content has the same id, and every solution's.
    '<section id="exercise-content">': "<section>",
    '<section id="solution-content">': "<section>",
    # A wide formula scrolls on a phone. Formulas themselves are out of the tab order (_config.yml).
    '<div class="math notranslate nohighlight"': '<div class="math notranslate nohighlight" tabindex="0"',
}


def fix(app, pagename, templatename, context, doctree):
    for old, new in FIXES.items():
        if context.get("body"):
            context["body"] = context["body"].replace(old, new)


def setup(app):
    app.connect("html-page-context", fix)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
