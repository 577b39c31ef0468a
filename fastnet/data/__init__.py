"""Data sets: users' arrays and their checks, the rows that steps read, their order and minibatches."""
