"""Backends: they run plans. `registry` lists them."""
