"""Schedules: learning rates, momenta and decays as pure functions of the step."""

from fastnet.schedules.base import Schedule

__all__ = ["Schedule"]
