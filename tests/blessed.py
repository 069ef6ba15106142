"""Blessings of every kind, signed by keys of the tests' own; the envelope is built here from the DSSE text, by hand."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KIND = "application/vnd.evergreen.blessing+json"
KEY, OTHER_KEY = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
CHECK = {
    "name": "auc",
    "verdict": "passed",
    "value": 0.8,
    "low": 0.75,
    "high": 0.85,
    "threshold": 0.65,
    "blocks": True,
    "family": "floors",
    "reason": "AUC 0.8 [0.75, 0.85], at least 0.65",
}
REPORT: dict[str, Any] = {"verdict": "passed", "rows": 404, "sentence": "passed: it is better", "checks": [CHECK]}


def document(**changes: Any) -> dict[str, Any]:
    """The content of a good blessing of version 7, with changes."""
    return {
        "format": 2,
        "model": "credit-risk",
        "version": "7",
        "digest": "7" * 64,
        "run_id": "r1",
        "run_key": "k",
        "intent": "live",
        "as_of": "2026-08-01",
        "manifest": "a" * 64,
        "code": "b" * 64,
        "policy": None,
        "data": ["c" * 64],
        "report": "d" * 64,
        "verdict": "passed",
        "checks": [{name: CHECK[name] for name in ("name", "verdict", "value", "low", "high", "threshold", "blocks")}],
        "gate": "passed: it is better",
        "approval": None,
        **changes,
    }


def envelope(content: dict[str, Any], key: Ed25519PrivateKey = KEY, kind: str = KIND) -> str:
    body = json.dumps(content).encode()
    covered = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(body)).encode(), body])
    signature = {"keyid": keyid(key), "sig": _text(key.sign(covered))}
    return json.dumps({"payload": _text(body), "payloadType": kind, "signatures": [signature]})


def keyid(key: Ed25519PrivateKey) -> str:
    return hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
