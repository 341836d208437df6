"""What the book draws with: ``style`` for every chapter, and one module for each chapter's long figures."""
