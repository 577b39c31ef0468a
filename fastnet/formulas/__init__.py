"""Formulas: their language, functions with the same bits on all machines, and Python and C writers."""
