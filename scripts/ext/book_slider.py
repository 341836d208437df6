"""Sphinx extension: the rank slider's scripts, on the page that holds a slider and on no other."""


def add_scripts(app, pagename, templatename, context, doctree):
    if 'class="rank-slider"' in (context.get("body") or ""):
        for name in ("rank-slider-data.js", "rank-slider.js"):  # in this order
            app.add_js_file(name, loading_method="defer")


def setup(app):
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
