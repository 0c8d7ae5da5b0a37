"""A server's base URL in one form."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from medeval.errors import UsageError

# Begins the address of a server that listens on a Unix socket: "unix:/folder/socket".
UNIX = "unix:"


def normalised_base_url(base_url: str) -> str:
    """The address that `/chat/completions` is appended to; it ends in `/v1` unless it has a path.

    The address of a Unix socket stays as it is. Raises UsageError for anything but an http address
    or the absolute path of a socket, and for an address that carries a key.

    >>> normalised_base_url("127.0.0.1:8000")
    'http://127.0.0.1:8000/v1'
    >>> normalised_base_url("https://example.org/api/v1/chat/completions/")
    'https://example.org/api/v1'
    """
    given = base_url.strip()
    if given.startswith(f"{UNIX}/"):
        return given
    if given.startswith(UNIX):
        raise UsageError(
            f"a server's socket is named by its whole path, not {base_url!r}",
            hint="write it like 'unix:/run/me/vllm.socket'",
        )
    parts = urlsplit(given if "://" in given else f"http://{given}")
    if "@" in parts.netloc:
        raise UsageError(
            "the base URL carries a user name or a key",
            hint="leave it out; the key is read from the environment",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(
            f"the base URL is an http address like 'http://127.0.0.1:8000/v1', not {base_url!r}"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def http_url(base_url: str) -> str:
    """The URL in the requests to a server; a socket's address holds no host, so localhost stands.

    >>> http_url("unix:/run/user/1000/vllm.socket")
    'http://localhost/v1'
    """
    return "http://localhost/v1" if base_url.startswith(UNIX) else base_url


def root_url(base_url: str) -> str:
    """The URL that a server's other paths, like /health and /version, are appended to."""
    return http_url(base_url).removesuffix("/v1")


def is_this_machine(base_url: str) -> bool:
    """Whether a server runs on this machine, so that no proxy stands before it."""
    host = urlsplit(http_url(base_url)).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
