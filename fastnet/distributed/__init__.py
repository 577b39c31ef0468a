"""Several processes that train one model: what they exchange, what they agree on, and who is gone."""

from fastnet.distributed.group import Group

__all__ = ["Group"]
