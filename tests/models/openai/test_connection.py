import pytest

from medeval.errors import UsageError
from medeval.models.openai.connection import is_this_machine, normalised_base_url

HOST = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (HOST, f"{HOST}/v1"),
        (f"{HOST}/", f"{HOST}/v1"),
        (f" {HOST}/v1 ", f"{HOST}/v1"),
        (f"{HOST}/v1/", f"{HOST}/v1"),
        (f"{HOST}/v1/chat/completions", f"{HOST}/v1"),
        (f"{HOST}/v1/chat/completions/", f"{HOST}/v1"),
        (f"{HOST}/chat/completions", f"{HOST}/v1"),
        ("127.0.0.1:8000", f"{HOST}/v1"),
        ("localhost:8000/v1", "http://localhost:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("https://example.org/v1beta/openai/", "https://example.org/v1beta/openai"),
        (" unix:/run/me/vllm.socket ", "unix:/run/me/vllm.socket"),
    ],
)
def test_a_base_url_is_taken_in_each_form_people_write(given: str, expected: str) -> None:
    assert normalised_base_url(given) == expected


@pytest.mark.parametrize("given", ["", "ftp://host/v1", "http://", "http://host/v1?key=1"])
def test_what_is_no_address_is_a_usage_error(given: str) -> None:
    with pytest.raises(UsageError, match="the base URL is an http address"):
        normalised_base_url(given)


@pytest.mark.parametrize("given", ["unix:", "unix:vllm.socket", " unix:~/vllm.socket"])
def test_a_socket_without_its_whole_path_is_a_usage_error(given: str) -> None:
    with pytest.raises(UsageError, match="named by its whole path") as caught:
        normalised_base_url(given)
    assert "unix:/run/me/vllm.socket" in str(caught.value.hint)


def test_a_key_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        normalised_base_url("https://user:s3cret@host/v1")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://worker.localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("unix:/run/me/vllm.socket", True),
        ("http://10.0.0.1:8000/v1", False),
        ("https://api.openai.com/v1", False),
        ("https://localhost.example.org/v1", False),
    ],
)
def test_a_loopback_address_and_a_socket_are_on_this_machine(base_url: str, expected: bool) -> None:
    assert is_this_machine(base_url) == expected
