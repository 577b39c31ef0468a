"""Backends: they run plans. `registry` tells which there are."""
