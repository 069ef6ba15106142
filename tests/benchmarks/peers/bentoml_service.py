"""BentoML with adaptive batching, as its guide has it: one service, one batchable API.

bentoml serve bentoml_service:Scores

list[dict]       the batch as BentoML concatenates it; a pd.DataFrame argument failed every request in 1.4.39
max_batch_size   as many rows as connections at most: a larger bound would never be met
max_latency_ms   above what an answer takes with 64 waiting, so nothing is shed; its default, a minute, also
                 sets how long the dispatcher dares to wait while it learns, and left one client seconds a request
workers, threads one each, as every server here has one core
access log       off, as ours is; metrics stay on, as ours do
"""

import os
from pathlib import Path

import bentoml
import joblib
import pandas as pd


@bentoml.service(workers=1, threads=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Scores:
    def __init__(self) -> None:
        self.pipeline = joblib.load(Path(os.environ["PIPELINE"]))

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, rows: list[dict]) -> list[float]:
        return self.pipeline.predict_proba(pd.DataFrame(rows))[:, 1].tolist()
