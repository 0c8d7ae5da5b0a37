"""Where a server is: its base URL in one form, and the proxy on the way to it."""

from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from medeval.errors import UsageError


def normalised_base_url(base_url: str) -> str:
    """The address that `/chat/completions` is put after, ending in `/v1` unless a path is given.

    Raises UsageError where it is no http address, or carries a key.

    >>> normalised_base_url("127.0.0.1:8000")
    'http://127.0.0.1:8000/v1'
    >>> normalised_base_url("https://example.org/api/v1/chat/completions/")
    'https://example.org/api/v1'
    """
    given = base_url.strip()
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


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for an address; never one for this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_this_machine(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def _is_this_machine(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
