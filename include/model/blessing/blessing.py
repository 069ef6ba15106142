"""The blessing: one signed document without which nothing is deployed.

It names what was judged (model, data, code, manifest, policy, each by its hash), what was found (every check) and who
said yes. It is signed with Ed25519 in a DSSE envelope, as in-toto and sigstore do: the signature covers the very bytes
that are stored, so nobody ever has to agree on how JSON is written. The key that signs is known to the step that
blesses; those who deploy hold public keys alone, several while a key is being changed.

The envelope is a tag of the version, and a tag has an end: a list that would not fit, of days or of checks, stands in
the document by its length and sha256. The list itself lies beside it, in `card/blessing.json` of the run.

What a signature cannot do: it says that the gate let this artifact pass, not that the gate was right. And a machine
whose every process may read the private key is as strong as its weakest process; that is for the place the key is
kept in to solve.

DSSE: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md. Ed25519: RFC 8032.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.kernel.errors import KeyInvalid, NotBlessed
from include.kernel.job import Intent
from include.model.blessing.approval import Approval

if TYPE_CHECKING:  # where it is used it is imported: every DAG file would pay for it at every parse
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.evergreen.blessing+json"
RETRAIN_ADVICE = "train again, and the new version gets one"
LONGEST_ENVELOPE = 100_000  # characters, what MLflow's tag of a version holds
LONGEST_PROSE = 2_000  # characters of a sentence in it; in base64 each may take sixteen
PEM_BLOCK = re.compile(r"-----BEGIN [A-Z ]+-----(.*?)-----END [A-Z ]+-----", re.DOTALL)
TrustedKeys: TypeAlias = "Mapping[str, Ed25519PublicKey]"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Document):
    """One check of the gate's report, without its prose; a number that is none (NaN, infinite) is None."""

    name: str
    verdict: Literal["passed", "refused", "inconclusive"]
    value: float | None
    low: float | None
    high: float | None
    threshold: float | None
    blocks: bool = True


class DigestedList(_Document):
    """A list that was too long: how many it has, and `compute_list_digest` of it."""

    count: int = Field(ge=1)
    sha256: str


class Blessing(_Document):
    """Hashes are sha256, hex. `report` is that of the gate's whole report, with every reason, as
    `compute_report_digest`.
    """

    format: Literal[2, 3] = Field(2, description="1 was not signed; in 3 a list that is too long is digested")
    model: str = Field(description="name of the registered model")
    version: str
    digest: str = Field(description="of the serving artifact")
    run_id: str
    run_key: str
    intent: Intent
    as_of: date
    manifest: str
    code: str
    policy: str | None = None
    data: tuple[str, ...] | DigestedList = Field(description="ids of the snapshots, each the hash of its rows")
    report: str
    verdict: Literal["passed", "inconclusive"] = Field(description="of the gate; a refused model has no blessing")
    checks: Annotated[tuple[Finding, ...], Field(min_length=1)] | DigestedList
    gate: str = Field(description="the gate's sentence")
    approval: Approval | None = None


class _Signature(_Document):
    keyid: str
    sig: str


class Envelope(_Document):
    """DSSE: the document's bytes and who signed them, all in base64."""

    payload: str
    payloadType: str
    signatures: tuple[_Signature, ...]


# --- making one ----------------------------------------------------------------------------------------------------


def compute_report_digest(report: Mapping[str, Any]) -> str:
    """sha256 over the report's JSON with sorted keys: to compare a blessing with a `gate.json` beside it."""
    return hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()


def list_findings(report: Mapping[str, Any]) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            name=check["name"],
            verdict=check["verdict"],
            **{part: _convert_number(check.get(part)) for part in ("value", "low", "high", "threshold")},
            blocks=check.get("blocks", True),
        )
        for check in report["checks"]
    )


def _convert_number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def check_blessable(report: Mapping[str, Any], intent: Intent, approval: Approval | None) -> None:
    """Raises `NotBlessed` unless the gate passed the model, or could not tell and a person said yes."""
    verdict = report.get("verdict")
    if intent is not Intent.LIVE:
        raise NotBlessed(f"A {intent.value} training is never blessed; run it again as a live one.")
    if not report.get("checks"):
        raise NotBlessed("The gate's report holds no check, so there is nothing to bless; evaluate the model again.")
    if verdict == "inconclusive" and approval is None:
        raise NotBlessed("The gate was inconclusive and nobody approved; wait for more rows, or ask for an approval.")
    if verdict not in ("passed", "inconclusive"):
        raise NotBlessed(f"The gate's verdict is {verdict}, and nobody's approval replaces a pass; train a better one.")


def sign(blessing: Blessing, key: Ed25519PrivateKey) -> str:
    """The envelope as JSON. The same blessing and key give the same envelope, byte by byte."""
    check_blessable({"verdict": blessing.verdict, "checks": blessing.checks}, blessing.intent, blessing.approval)
    envelope = _seal(blessing, key)
    for name in sorted(
        ("data", "checks"), key=lambda name: len(blessing.model_dump_json(include={name})), reverse=True
    ):
        items = blessing.model_dump(mode="json")[name]
        if len(envelope) > LONGEST_ENVELOPE and isinstance(items, list):
            digested = DigestedList(count=len(items), sha256=compute_list_digest(items))
            blessing = blessing.model_copy(update={"format": 3, name: digested})
            envelope = _seal(blessing, key)
    return envelope


def _seal(blessing: Blessing, key: Ed25519PrivateKey) -> str:
    payload = _render_json(blessing.model_dump(mode="json"))
    signature = _Signature(
        keyid=compute_key_id(key.public_key()), sig=_encode_base64(key.sign(_encode_signed_bytes(payload)))
    )
    return Envelope(
        payload=_encode_base64(payload), payloadType=PAYLOAD_TYPE, signatures=(signature,)
    ).model_dump_json()


def compute_list_digest(items: Sequence[Any]) -> str:
    """sha256 over the list's JSON, keys sorted, no spaces: to compare `card/blessing.json` with what was signed."""
    return hashlib.sha256(_render_json(items)).hexdigest()


def _render_json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def compute_envelope_digest(envelope: str) -> str:
    """sha256 over the signed document's bytes: a short name for one blessing."""
    return hashlib.sha256(base64.b64decode(Envelope.model_validate_json(envelope).payload)).hexdigest()


def _encode_signed_bytes(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """DSSE's pre-authentication encoding: lengths keep type and body from running into each other."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def _encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- believing one -------------------------------------------------------------------------------------------------


def verify(
    envelope: str, trusted_keys: TrustedKeys, model: str | None, version: str, digest: str | None = None
) -> Blessing:
    """The blessing inside, if it is signed by a trusted key and is a live one of this version (and artifact).

    `model` is None for a caller who learns its name from the artifact and compares then. Raises `NotBlessed` with the
    one reason why not. Nothing of the document is looked at before its signature holds.
    """
    subject = f"Version {version} of {model or 'the model'}"
    blessing = _parse_blessing(_verify_signature(_parse_envelope(envelope, subject), trusted_keys, subject), subject)
    if (blessing.model, blessing.version) != (model or blessing.model, version):
        named = f"version {blessing.version} of {blessing.model}"
        raise NotBlessed(
            f"{subject} carries the blessing of {named}; a blessing is of one version alone: {RETRAIN_ADVICE}."
        )
    if digest is not None and blessing.digest != digest:
        raise NotBlessed(
            f"{subject} has the artifact {digest[:12]}, but its blessing is of "
            f"{blessing.digest[:12]}; {RETRAIN_ADVICE}."
        )
    if blessing.intent is not Intent.LIVE:
        raise NotBlessed(f"{subject} comes from a {blessing.intent.value} training and is never deployed.")
    check_blessable({"verdict": blessing.verdict, "checks": blessing.checks}, blessing.intent, blessing.approval)
    return blessing


def _parse_envelope(text: str, subject: str) -> Envelope:
    try:
        return Envelope.model_validate_json(text)
    except ValidationError:
        if '"digest"' in text and '"run_key"' in text:
            raise NotBlessed(
                f"{subject} carries a blessing of an earlier kind, without a signature; {RETRAIN_ADVICE}."
            ) from None
        raise NotBlessed(f"{subject} carries something that is no signed blessing; {RETRAIN_ADVICE}.") from None


def _verify_signature(envelope: Envelope, trusted_keys: TrustedKeys, subject: str) -> bytes:
    """The payload's bytes, once a trusted key's signature over them holds."""
    if envelope.payloadType != PAYLOAD_TYPE or not envelope.signatures:
        raise NotBlessed(f"{subject} carries a document without a signature as a blessing has it; {RETRAIN_ADVICE}.")
    known = [signature for signature in envelope.signatures if signature.keyid in trusted_keys]
    if not known:
        signers = ", ".join(signature.keyid for signature in envelope.signatures)
        raise NotBlessed(
            f"{subject} is blessed by key {signers}, and trusted is "
            f"{', '.join(trusted_keys) or 'none'}; if that key is yours, "
            "add its public half to the trusted keys."
        )
    payload = _decode_base64(envelope.payload)
    if not any(
        _is_signed_by(trusted_keys[signature.keyid], _decode_base64(signature.sig), payload) for signature in known
    ):
        raise NotBlessed(
            f"{subject} has a blessing whose signature does not fit its text: it was altered; {RETRAIN_ADVICE}."
        )
    return payload


def _is_signed_by(key: Ed25519PublicKey, signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, _encode_signed_bytes(payload))
    except InvalidSignature:
        return False
    return True


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _parse_blessing(payload: bytes, subject: str) -> Blessing:
    try:
        return Blessing.model_validate_json(payload)
    except ValidationError as error:
        location = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"]) or "the document"
        raise NotBlessed(
            f"{subject} has a signed blessing that is not valid at {location}; {RETRAIN_ADVICE}."
        ) from None


# --- keys ----------------------------------------------------------------------------------------------------------


def compute_key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the sha256 over the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def parse_private_key(text: str) -> Ed25519PrivateKey:
    """From PEM (PKCS #8), or from the one line of base64 within it. Raises `KeyInvalid`, never with the key's text."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    blocks = _split_pem_blocks(text)
    try:
        key = load_der_private_key(base64.b64decode(blocks[0]), None) if len(blocks) == 1 else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyInvalid("The signing key is no Ed25519 private key; make one: openssl genpkey -algorithm ed25519.")
    return key


def parse_public_keys(text: str) -> dict[str, Ed25519PublicKey]:
    """Key id -> key, from any number of PEM blocks, or of their base64 lines. Raises `KeyInvalid`."""
    keys = [_parse_public_key(block) for block in _split_pem_blocks(text)]
    if not keys:
        raise KeyInvalid("There is no trusted key; put the public half of the signing key there, in PEM.")
    return {compute_key_id(key): key for key in keys}


def _parse_public_key(block: str) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(base64.b64decode(block))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyInvalid("One of the trusted keys is no Ed25519 public key; print it: openssl pkey -pubout.")
    return key


def _split_pem_blocks(text: str) -> Sequence[str]:
    """The base64 of each PEM block; of text without any, each word."""
    return ["".join(block.split()) for block in PEM_BLOCK.findall(text)] or text.split()


def generate_key() -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def render_private_pem(key: Ed25519PrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def render_public_pem(key: Ed25519PrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
