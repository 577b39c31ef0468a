"""What ranks run under mpiexec: every case of tests/support/rank_cases.py, in one start of the processes.

Each rank writes FOLDER/RANK.json: by case, a digest of the parameters and the history.
"""

import hashlib
import json
import sys
import warnings
from pathlib import Path

from mpi4py import MPI
from rank_cases import CASES, X, Y, fitted
from ranks import bits

import fastnet as fn

warnings.simplefilter("ignore")  # that several ranks do not pay here
comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
found = {}
for name, case in CASES.items():
    model, history = fitted(comm, case, deterministic=True)
    found[name] = hashlib.sha256(bits(model) + str(history).encode()).hexdigest()
# Rows of its own on the last rank alone: another sum, which is that of all ranks.
model = fn.Sequential(fn.Linear(10, 24), fn.ReLU(), fn.Linear(24, 3), seed=0)
own = slice(None) if rank == size - 1 else slice(0)
trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=1, comm=comm)
trainer.fit(X[own], Y[own], epochs=3, batch_size=32, verbose=0, sharded=True)
found["a rank with all rows"] = hashlib.sha256(bits(model)).hexdigest()
Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(found))
