"""Failures on the device, each as one sentence with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastnet.errors import DeviceError, DeviceMemoryError, FastnetError


def no_memory(error: Exception) -> bool:
    """Whether an error says that the device has too little memory."""
    text = str(error)
    return (
        isinstance(error, MemoryError) or "OUT_OF_MEMORY" in text or "out of memory" in text.lower()
    )


def failed(what: str, error: Exception) -> FastnetError:
    """The error to raise when the driver or a kernel failed during `what`."""
    text = " ".join(str(error).split()) or type(error).__name__
    if no_memory(error):
        return DeviceMemoryError(
            f"the device has too little free memory for {what}; smaller minibatches, fewer rows at once "
            f'or model.to("c") need less ({text})'
        )
    if "forking" in text or "NOT_INITIALIZED" in text:
        return DeviceError(
            f"{what} failed: this process was forked from one that had used CUDA, which does not survive "
            f'it; start processes by multiprocessing.get_context("spawn") ({text})'
        )
    return DeviceError(
        f"{what} failed on the device: {text}. Where this is reported late, CUDA_LAUNCH_BLOCKING=1 "
        "in the environment of a new process shows the kernel that fails"
    )


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Report an exception in this block as a failure of `what`."""
    try:
        yield
    except FastnetError:
        raise
    except Exception as error:
        raise failed(what, error) from error
