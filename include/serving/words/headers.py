"""The headers between clients, proxy and slots. Names in lower case, as HTTP/2 and ASGI have them."""

from typing import Final

VERSION: Final = "x-evergreen-version"  # of an answer: which model gave it
SLOT: Final = "x-evergreen-slot"
REQUEST_ID: Final = "x-request-id"
COPY: Final = "x-evergreen-copy"  # of a request that nobody waits for; the proxy removes a client's own
TIMEOUT_MS: Final = "x-evergreen-timeout-ms"  # how long the caller will wait
GENERATION: Final = "x-evergreen-generation"  # the proxy's word about the route an answer came by
