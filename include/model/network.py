"""The neural candidate: a multilayer perceptron in torch behind scikit-learn's interface (skorch).

Imported only when such a candidate is trained: torch costs more to import than to train on a few thousand rows. Built
from linear layers and ReLU alone, because that is what the compiled form is written from (see compiling).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier
from torch import nn


class Perceptron(nn.Module):
    """(n, features) of float32 to log-odds (n,): `hidden` layers of `units` each; the first finds its width."""

    def __init__(self, hidden: int = 2, units: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(hidden):
            parts += [nn.LazyLinear(units), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*parts, nn.LazyLinear(1))

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        log_odds: torch.Tensor = self.layers(matrix.float()).reshape(-1)
        return log_odds


class SeededClassifier(NeuralNetBinaryClassifier):  # type: ignore[misc]  # skorch ships no types
    """Draws its weights and batches from `seed`, so that two processes train the same network."""

    def __init__(self, module: Any = Perceptron, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(module, *args, **kwargs)
        self.seed = seed

    def fit(self, X: Any, y: Any, **more: Any) -> SeededClassifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            torch.set_num_threads(1)  # sums in one order
            super().fit(_build_matrix(X), np.asarray(y, dtype=np.float32), **more)
        return self

    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(_build_matrix(X))


def _build_matrix(X: Any) -> np.ndarray[Any, Any]:
    """What a network reads: dense, in the precision it calculates in."""
    return np.asarray(X.astype(np.float32).toarray() if hasattr(X, "toarray") else X, dtype=np.float32)


def build_classifier(params: Mapping[str, Any], seed: int) -> SeededClassifier:
    """An unfitted network. `params`: hidden, units, dropout, max_epochs, lr, weight_decay, batch_size."""
    shape = {f"module__{name}": params[name] for name in ("hidden", "units", "dropout") if name in params}
    rest = {name: value for name, value in params.items() if f"module__{name}" not in shape}
    decay = {"optimizer__weight_decay": rest.pop("weight_decay", 1e-3)}
    defaults = {"max_epochs": 30, "lr": 0.005, "batch_size": 128}
    return SeededClassifier(
        seed=seed,
        optimizer=torch.optim.Adam,
        train_split=None,
        verbose=0,
        iterator_train__shuffle=True,
        **{**defaults, **decay, **shape, **rest},
    )


def read_layers(model: SeededClassifier) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Weights (in, out) and biases (out,) of the linear layers, first to last; between any two stands a ReLU."""
    linear = [part for part in model.module_.layers if isinstance(part, nn.Linear)]
    return [(part.weight.detach().numpy().T.copy(), part.bias.detach().numpy().copy()) for part in linear]
