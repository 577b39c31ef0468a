"""The C backend: a native extension runs a whole program or a chunk of training steps in one call."""

from fastnet.backends.c.backend import CBackend

__all__ = ["CBackend"]
