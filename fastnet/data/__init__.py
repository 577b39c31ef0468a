"""Data sets: users' arrays and their checks, what steps read, order and minibatches."""
