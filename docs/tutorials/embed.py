"""Put a net into another program: small, as C. Each `# %%` begins a cell."""

# %% A net whose scaling is its first layer, so that raw data go in wherever it runs.
from pathlib import Path

import fastnet as fn

(X, y), (X_test, y_test) = fn.datasets.digits()
scaler = fn.preprocess.MinMaxScaler().fit(X)
model = fn.Sequential(scaler, fn.Linear(64, 32), fn.ReLU(), fn.Linear(32, 10), seed=0)
trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(3e-3), seed=0)
trainer.fit(X, y, epochs=15, batch_size=32, verbose=0)
print(trainer.evaluate(X_test, y_test)["accuracy"])  # 0.95

# %% As C: a file and its header, which need no library but libm. The rows are for its self-test.
model.export_c("digits.c", name="digits", rows=X_test[:8])
header = Path("digits.h").read_text("utf-8")
print("digits_predict" in header, "digits_selftest" in header)  # True True

# %% Of 8-bit integers: a quarter as large, without floating point, and nearly as good.
small = fn.quantize(model, X[:500])
report = small.report(X_test, y_test, model=model)
print(report.model_score - report.score < 0.01)  # True
small.export_c("small.c")
print(Path("small.c").stat().st_size < Path("digits.c").stat().st_size)  # True
