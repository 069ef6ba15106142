"""The secrets and keys of one embedded stack, made once and kept beside its state.

They survive `down` and `up`: a new signing key would log everybody out, a new Fernet key would make stored connections
unreadable. The file is readable by its owner alone, and so is supervisord.conf, which repeats them.

The key that signs blessings lies in a file of its own. Take it away, and the next start makes another; the trusted
keys only ever grow, so what the old one signed can still be rolled back to until a person removes it there.
"""

import base64
import os
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from include.model.blessing import blessing


def _generate_fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _generate_signing_key() -> str:
    return secrets.token_hex(64)


class Credentials(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    jwt_secret: str = Field(default_factory=_generate_signing_key, min_length=64)
    api_secret: str = Field(default_factory=_generate_signing_key, min_length=64)
    fernet_key: str = Field(default_factory=_generate_fernet_key)
    supervisor_user: str = "evergreen"
    supervisor_password: str = Field(default_factory=lambda: secrets.token_hex(16))
    serving_token: str = Field(default_factory=lambda: secrets.token_hex(16))
    log_key: str = Field(default_factory=lambda: secrets.token_hex(32), min_length=16)


def load_credentials(home: Path) -> Credentials:
    """Those of this home; what there is none of is made now, once."""
    path = home / "secrets.json"
    known = Credentials.model_validate_json(path.read_text()) if path.exists() else Credentials()
    if known.model_fields_set != set(Credentials.model_fields):
        write_private(path, known.model_dump_json(indent=2))
    return known


def ensure_keys(signing: Path, trusted: Path) -> None:
    """A signing key, made now if there is none, and its public half among the trusted keys. Raises `KeyInvalid`."""
    if not signing.exists():
        write_private(signing, blessing.render_private_pem(blessing.generate_key()))
    own = blessing.parse_private_key(signing.read_text())
    known = trusted.read_text() if trusted.exists() else ""
    if not known.strip() or blessing.compute_key_id(own.public_key()) not in blessing.parse_public_keys(known):
        write_private(trusted, known + blessing.render_public_pem(own))


def write_private(path: Path, text: str) -> None:
    """Write for the owner's eyes, by atomic rename: a half-written secret would lock the owner out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
