"""Where a server is: its base URL in one form, the way there, and the proxy on it."""

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from medeval.errors import UsageError

# A server on a socket of this machine's file system: "unix:/folder/socket".
UNIX = "unix:"


def normalised_base_url(base_url: str) -> str:
    """The address that `/chat/completions` is put after, ending in `/v1` unless a path is given.

    That of a server on a Unix socket stays as it is. Raises UsageError where it is no http
    address and no whole path of a socket, or carries a key.

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
    """The URL that a request to a server names: a socket's own says nothing of HTTP.

    >>> http_url("unix:/run/user/1000/vllm.socket")
    'http://localhost/v1'
    """
    return "http://localhost/v1" if base_url.startswith(UNIX) else base_url


def root_url(base_url: str) -> str:
    """What a server's other paths, like /health and /version, are put after."""
    return http_url(base_url).removesuffix("/v1")


def connector_to(base_url: str, **settings: Any) -> aiohttp.BaseConnector:
    """What opens connections to a server; the settings are aiohttp's."""
    if base_url.startswith(UNIX):
        return aiohttp.UnixConnector(base_url.removeprefix(UNIX), **settings)
    return aiohttp.TCPConnector(**settings)


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
