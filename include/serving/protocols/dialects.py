"""Which dialect the clients of a path speak, and so in what shape they read a refusal."""

from __future__ import annotations

from include.serving.protocols import Dialect, mlflow_scoring, native, open_inference


def dialect_of(path: str) -> Dialect:
    if path == "/v2" or path.startswith("/v2/"):
        return open_inference
    return mlflow_scoring if path in ("/invocations", "/ping", "/version") else native
