"""Run by itself (`python -I`), without this project: loads models from MLflow, each in turn, and prints their answers.

On stdin: `uri`, `models` (addresses such as models:/NAME/1) and `csv`, the rows as a file of theirs.
"""

import io
import json
import sys

import mlflow
import pandas as pd

asked = json.load(sys.stdin)
mlflow.set_tracking_uri(asked["uri"])
frames = {
    "read_csv": pd.read_csv(io.StringIO(asked["csv"])),
    "nullable": pd.read_csv(io.StringIO(asked["csv"]), dtype_backend="numpy_nullable"),
    "arrow": pd.read_csv(io.StringIO(asked["csv"]), dtype_backend="pyarrow"),
}
frames["objects"] = frames["arrow"].astype(object)
answers = {}
for address in asked["models"]:
    model = mlflow.pyfunc.load_model(address)
    answers[address] = {kind: [float(each) for each in model.predict(frame)] for kind, frame in frames.items()}
ours = sorted(module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "include")
print(json.dumps({"answers": answers, "ours": ours}))
