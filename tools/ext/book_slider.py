"""Sphinx extension: the scripts of an interactive picture, only on the page that has the picture."""

SCRIPTS = {  # class of the picture's box -> its scripts, in this order
    "rank-slider": ("page-parts.js", "rank-slider-data.js", "rank-slider.js"),
    "rank-scale": ("page-parts.js", "rank-scale.js"),
    "lora-trainer": ("page-parts.js", "lora-trainer-math.js", "lora-trainer.js"),
}


def add_scripts(app, pagename, templatename, context, doctree):
    body = context.get("body") or ""
    for kind, names in SCRIPTS.items():
        if f'class="{kind}"' in body:
            for name in names:
                app.add_js_file(name, loading_method="defer")


def setup(app):
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
