"""Tables and figures of the pages, made from records."""
