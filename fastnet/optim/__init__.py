"""Optimizers: each file has one family, with rules and hyper-parameters; `optimizer` has their base."""

from typing import TYPE_CHECKING

from fastnet.late import late_names

if TYPE_CHECKING:
    from fastnet.optim.adagrad import Adadelta, Adagrad
    from fastnet.optim.adam import Adam, Adamax, AdamW
    from fastnet.optim.averaging import EMA, SWA
    from fastnet.optim.gradients import clip_grad_norm_, clip_grad_value_
    from fastnet.optim.hypergradient import SGDHD, AdamHD
    from fastnet.optim.lion import Lion
    from fastnet.optim.muon import Muon
    from fastnet.optim.nadam import NAdam, RAdam
    from fastnet.optim.optimizer import Optimizer
    from fastnet.optim.rmsprop import RMSprop
    from fastnet.optim.rprop import Rprop
    from fastnet.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
    from fastnet.optim.sgd import SGD
    from fastnet.optim.yellowfin import YellowFin

__all__ = [
    "EMA",
    "SGD",
    "SGDHD",
    "SWA",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamHD",
    "AdamW",
    "Adamax",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "YellowFin",
    "clip_grad_norm_",
    "clip_grad_value_",
]

__getattr__, __dir__ = late_names(__name__, __all__)
