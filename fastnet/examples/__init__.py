"""Runnable examples: `python -m fastnet.examples.digits`, `python -m fastnet.examples.mnist`."""
