"""Figures that take longer than a test: trainings over seeds, comparisons of recipes, redraws of a guarantee.

Each table is measured in named steps. A finished step is kept in `results/raw/TABLE.json` at once, so that a run that
was stopped goes on where it was, and the page can be written again from what is stored.
"""
