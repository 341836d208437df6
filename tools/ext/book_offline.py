"""Sphinx extension: no page loads anything from a third party."""


def drop_thebe(app, pagename, templatename, context, doctree):
    """The theme adds Thebe's loader, which names another host, even where Thebe is off."""

    def is_thebe(js):
        text = f"{getattr(js, 'filename', '') or ''} {getattr(js, 'attributes', {}).get('body', '')}"
        return "thebe" in text.lower()

    context["script_files"] = [js for js in context.get("script_files", []) if not is_thebe(js)]


def share_html_visitors(app):
    """sphinx-exercise registers visitors for `singlehtml`, which hides those for `html` from it (the PDF needs both)."""
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = {**handlers.get("html", {}), **handlers.get("singlehtml", {})}


def setup(app):
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("builder-inited", share_html_visitors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
