"""What ranks run under mpiexec: a fit that goes well, or in which rank `WHO` fails as `HOW` says."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
from mpi4py import MPI

import fastnet as fn

HOW, WHO, EPOCHS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
warnings.simplefilter("ignore")  # that several ranks do not pay here
comm = MPI.COMM_WORLD
rank = comm.Get_rank()
PROCESSES = [str(one) for one in comm.allgather(os.getpid())]
PROCESSES.insert(0, PROCESSES.pop(WHO))
# A launcher at its fastest: it kills the first, and all others as soon as that one is dead.
LAUNCHER = [
    sys.executable,
    "-S",
    "-c",
    """
import os, select, sys
first, *others = map(int, sys.argv[1:])
ended = select.poll()
ended.register(os.pidfd_open(first))
os.kill(first, 9)
ended.poll()
for other in others:
    os.kill(other, 9)
""",
]
rng = np.random.default_rng(0)
X, y = rng.normal(size=(250, 10)).astype(np.float32), rng.integers(0, 3, 250)
model = fn.Sequential(fn.Linear(10, 32), fn.ReLU(), fn.Dropout(0.2), fn.Linear(32, 3), seed=0)


class Fails(fn.Callback):
    """In the middle of the third epoch."""

    def on_epoch_end(self, epoch, logs):
        if rank == WHO and epoch == 2:
            if HOW == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if HOW == "all":
                subprocess.Popen(LAUNCHER + PROCESSES, start_new_session=True)
                time.sleep(60)
            if HOW == "soon":
                signal.signal(signal.SIGALRM, signal.SIG_DFL)  # it ends the process without Python
                signal.setitimer(signal.ITIMER_REAL, float(os.environ["AFTER"]))
            if HOW == "raise":
                raise ValueError("a callback of its own")
            if HOW == "exit":
                sys.exit(3)
            if HOW == "nan":
                model.bind().segments["params"][:4] = 255  # NaN, on this rank alone


trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=1, comm=comm, deterministic=HOW == "bits")
try:
    trainer.fit(X, y, epochs=EPOCHS, batch_size=32, verbose=0, callbacks=[Fails()])
except Exception as error:
    sys.stderr.write(f"rank {rank}: {type(error).__name__}: {error}\n")
    sys.exit(1)
values = b"".join(value.tobytes() for value in model.state_dict().values())
sys.stdout.write(f"bits {hashlib.sha256(values).hexdigest()}\n")
