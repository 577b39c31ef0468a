"""The C backend: the native extension runs whole programs and chunks of training steps in one call."""

from fastnet.backends.c.backend import CBackend

__all__ = ["CBackend"]
