"""LitServe with batching, as its guide has it: decode one row, score a batch, give each request its own answer.

python litserve_server.py PORT

max_batch_size   as many rows as connections at most
batch_timeout    2 ms: long enough to fill a batch, short beside the 8 ms that scoring one takes
workers          one, and one API server, as every server here has one core
log_level        warning: no line a request, as with ours
"""

import os
import sys
from pathlib import Path

import joblib
import litserve
import pandas as pd


class Scores(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.pipeline = joblib.load(Path(os.environ["PIPELINE"]))

    def decode_request(self, request: dict) -> dict:
        return request["row"]

    def batch(self, inputs: list) -> pd.DataFrame:
        return pd.DataFrame(inputs)

    def predict(self, x: pd.DataFrame) -> list:
        return self.pipeline.predict_proba(x)[:, 1].tolist()

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: float) -> dict:
        return {"probability": output}


if __name__ == "__main__":
    api = Scores(max_batch_size=64, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run("127.0.0.1", int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning")
