"""What a model server is told by its environment; everything else it reads from its slot file."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.kernel.words.colours import Colour


class Settings(BaseSettings):
    """Read from EVERGREEN_SLOT, EVERGREEN_SERVING_DIR, EVERGREEN_PORT and so on."""

    model_config = SettingsConfigDict(env_prefix="EVERGREEN_", frozen=True)

    slot: Colour
    serving_dir: Path = Field(description="holds slots/<slot>.json and artifacts/<digest>/")
    port: int = Field(ge=0, le=65535)
    manifest: Path | None = Field(default=None, description="its section `serving` is how the server behaves")
    log_key: SecretStr | None = Field(default=None, description="secret of serving.log.hash, 16 bytes or more")
    trusted_keys_file: Path | None = Field(default=None, description="public keys whose blessings count, in PEM")
    trusted_keys: str = Field(default="", description="the same in place, where no file can be mounted")
    unblessed: Literal["refuse", "allow"] = Field(
        default="refuse", description="what becomes of models without a blessing, as long as no key is trusted"
    )
    model: str | None = Field(default=None, description="the one model served here; needed where teams share a key")
    serving_token: SecretStr | None = Field(default=None, min_length=16, description="opens /admin, and all the rest")
    admin_from: Literal["loopback", "anywhere"] = Field(default="loopback", description="whom /admin answers")
    api_tokens: SecretStr | None = Field(default=None, description="name:token, several; with any, clients need one")
    api_tokens_file: Path | None = Field(default=None, description="the same, one a line; name:sha256:hash is enough")
    bind: str = Field(default="127.0.0.1", description="only the proxy talks to a slot; a container sets 0.0.0.0")
    max_rows: int = Field(default=1000, ge=1, description="rows in one request; a thousand take about 10 ms")
    max_body_bytes: int = Field(default=1 << 20, ge=1, description="a thousand rows of the example take 0.2 MB")
    grace_s: int = Field(default=6, ge=0, description="seconds open requests have once the port is closed")
