"""Where the model registry is, by the environment."""

from include.kernel.environment import read_setting
from include.registry.mlflow_registry import MlflowRegistry


def open_registry(model: str, uri: str | None = None) -> MlflowRegistry:
    """The registry at `uri`, or at MLFLOW_TRACKING_URI."""
    return MlflowRegistry(model, (uri or read_setting("MLFLOW_TRACKING_URI")).rstrip("/"))
