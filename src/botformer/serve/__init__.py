"""Trained networks behind HTTP: a page to try them in the browser, and an API for programs."""
