"""Watch a net learn, and find its numbers. Each `# %%` begins a cell."""

# %% Rows to train on, and rows to choose by; the test rows wait for the end.
import fastnet as fn

(X, y), (X_test, y_test) = fn.datasets.digits()
X_fit, X_held, y_fit, y_held = fn.train_test_split(X, y, test_size=0.2, stratify=y, seed=0)


def net(width=64, seed=0):
    """64-width-width-10 with ReLU."""
    layers = fn.Linear(64, width), fn.ReLU(), fn.Linear(width, width), fn.ReLU()
    return fn.Sequential(*layers, fn.Linear(width, 10), seed=seed)


# %% Checks before a long training: the loss begins where it should, and a few rows are learned by heart.
loss = fn.CrossEntropyLoss()
print(fn.check.initial_loss(net(), loss, X_fit, y_fit).expected)  # 2.302…
print(fn.check.overfit(net(), loss, X_fit, y_fit).ok)  # True

# %% A learning rate: the test grows it from step to step and undoes the training.
trainer = fn.Trainer(net(), loss, fn.SGD(0.1, momentum=0.9), seed=0)
found = trainer.find_lr(X_fit, y_fit, min_lr=1e-4, max_lr=10.0)
print(found.suggestion < found.lowest)  # True

# %% Train with it, with a record of what happens inside, until the rows held back say stop.
trainer = fn.Trainer(net(), loss, fn.SGD(found.suggestion, momentum=0.9), seed=0)
record = fn.Record(every=5)
stop = fn.EarlyStopping(patience=10, restore_best_weights=True)
held = X_held, y_held
trainer.fit(X_fit, y_fit, epochs=100, validation_data=held, callbacks=[record, stop], verbose=0)
print(trainer.evaluate(*held)["accuracy"] > 0.9)  # True

# %% Inside: few units of the first layer are 0 for all rows, and its gradient has become small.
first, last = record.history[0], record.history[-1]
print(last["activations"]["1"]["dead"] < 0.2)  # True
print(last["gradients"]["0.weight"] < first["gradients"]["0.weight"])  # True

# %% Many rates and widths at once, each net to the bits of a fit of its own.
cases = [(width, rate) for width in (16, 64) for rate in (1e-3, 1e-2, 1e-1)]
models = [net(width) for width, _ in cases]
histories = fn.fit_many(
    models,
    X_fit,
    y_fit,
    losses=loss,
    optimizers=[fn.Adam(rate) for _, rate in cases],
    seeds=[0] * len(cases),
    validation=held,
    epochs=15,
)
scores = [history.history["val_accuracy"][-1] for history in histories]
best = max(range(len(cases)), key=scores.__getitem__)
print(len(scores), scores[best] > 0.93)  # 6 True

# %% Only now the test rows.
print((models[best].predict(X_test).argmax(axis=1) == y_test).mean())  # 0.95
