"""A first net: train it, see where it is wrong, keep it. Each `# %%` begins a cell."""

# %% The data: images of 8 × 8 grey values from 0 to 1, and the digit that each shows.
import numpy as np

import fastnet as fn

(X, y), (X_test, y_test) = fn.datasets.digits()
print(X.shape, y.shape)  # (1437, 64) (1437,)
print(len(X_test))  # 360

# %% The net: 64 inputs, 32 units that are 0 below 0, an output for each digit.
model = fn.Sequential(fn.Linear(64, 32), fn.ReLU(), fn.Linear(32, 10), seed=0)
print(sum(p.size for p in model.parameters()))  # 2410

# %% Before any training it knows nothing: its loss is about ln 10, and a tenth of its answers are right.
trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(3e-3), seed=0)
before = trainer.evaluate(X_test, y_test)
print(abs(before["loss"] - np.log(10)) < 0.2, before["accuracy"] < 0.3)  # True True

# %% Train: twenty times through the rows, with a tenth of the rows held back to look at.
history = trainer.fit(X, y, epochs=20, batch_size=32, validation_split=0.1, verbose=0)
print(len(history))  # 20
print(history.records[-1]["val_accuracy"] > 0.9)  # True

# %% What is it worth on images that it has not seen?
print(trainer.evaluate(X_test, y_test)["accuracy"])  # 0.96
wrong = np.flatnonzero(model.predict(X_test).argmax(axis=1) != y_test)
print(len(wrong) < 30)  # True

# %% How sure is it where it is wrong? Less than where it is right.
sure = model.predict_proba(X_test).max(axis=1)
print(sure[wrong].mean() < np.delete(sure, wrong).mean())  # True

# %% Keep it. The file has architecture and parameters, and says the same when it is loaded.
model.save("first.safetensors")
again = fn.load("first.safetensors")
print(np.array_equal(again.predict(X_test), model.predict(X_test)))  # True
