"""The experiments of a course on neural nets: `python -m fastnet.examples.course` (needs matplotlib).

Each module of `experiments` has one, called EXPERIMENT. It trains with fixed seeds, gives a table of its
figures beside the published ones, and draws a picture. `main` runs them and writes an index page.
"""
