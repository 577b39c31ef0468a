"""The native engine in other builds: for aarch64 under an emulator, and under sanitizers."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bits import Recording, same_bits, train
from onecall import Call, calls
from recorded import Job, one_kernel
from test_agreement import sizes_of
from test_contract import SIZES

import fastnet as fn
from fastnet.backends import registry
from fastnet.op import KERNELS, Array
