"""Optimizers: each file has one family, with rules and hyper-parameters; `optimizer` has their base."""

from fastnet.optim.adagrad import Adadelta, Adagrad
from fastnet.optim.adam import Adam, Adamax, AdamW
from fastnet.optim.averaging import EMA, SWA
from fastnet.optim.gradients import clip_grad_norm_, clip_grad_value_
from fastnet.optim.learned import LearnedOptimizer
from fastnet.optim.lion import Lion
from fastnet.optim.muon import Muon
from fastnet.optim.nadam import NAdam, RAdam
from fastnet.optim.optimizer import Optimizer
from fastnet.optim.rmsprop import RMSprop
from fastnet.optim.rprop import Rprop
from fastnet.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from fastnet.optim.sgd import SGD

__all__ = [
    "EMA",
    "SGD",
    "SWA",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LearnedOptimizer",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "clip_grad_norm_",
    "clip_grad_value_",
]
