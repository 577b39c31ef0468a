"""Formulas: their language, functions with the same bits everywhere, and their writers for Python and C."""
