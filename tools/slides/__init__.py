"""A deck of slides for each chapter, made from its notebook; `python -m tools.slides` writes them."""
