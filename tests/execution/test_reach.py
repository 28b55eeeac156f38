import socket
from collections.abc import Iterator
from threading import Event
from types import SimpleNamespace

import pytest
from ray.exceptions import AuthenticationError, RpcError

from rkdsearch.errors import StudyError
from rkdsearch.execution import reach


@pytest.fixture
def head() -> Iterator[str]:
    """Address of something that listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def pretend(monkeypatch: pytest.MonkeyPatch, *, mode: str, token: bool, refused: bool) -> None:
    """Let Ray have this mode of authentication, a token or none, and a head that refuses it."""

    def client(address: str) -> None:
        if refused:
            raise AuthenticationError("InvalidAuthToken")

    loader = SimpleNamespace(has_token=lambda *, ignore_auth_mode: token)
    fake = SimpleNamespace(
        get_authentication_mode=lambda: mode,
        AuthenticationMode=SimpleNamespace(TOKEN="token"),
        AuthenticationTokenLoader=SimpleNamespace(instance=lambda: loader),
        GcsClient=client,
    )
    monkeypatch.setattr(reach, "_ray", fake)


@pytest.mark.parametrize(
    ("mode", "token", "sentence"),
    [
        ("disabled", False, "asks for its token, and RAY_AUTH_MODE is not set here: set RAY_AUTH_"),
        ("token", True, "asks for its token, and the token here is another one: copy the head's"),
        ("token", False, "RAY_AUTH_MODE is token, and there is no token here: copy the head's"),
    ],
)
def test_a_token_that_is_missing_or_another_is_told_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, head: str, mode: str, token: bool, sentence: str
) -> None:
    pretend(monkeypatch, mode=mode, token=token, refused=True)
    with pytest.raises(StudyError, match=rf"^--address {head}: .*{sentence}"):
        reach.reach(head)


def test_a_head_that_accepts_the_token_is_reached(
    monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    pretend(monkeypatch, mode="token", token=True, refused=False)
    reach.reach(head)


def test_an_address_where_nobody_answers_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    pretend(monkeypatch, mode="disabled", token=False, refused=False)
    nobody = "127.0.0.1:1"
    with pytest.raises(
        StudyError, match=rf"^--address {nobody}: nobody answers at {nobody} \(Connection refused\)"
    ):
        reach.reach(nobody)


@pytest.mark.parametrize("address", ["ray://head:10001", "s3://bucket/x", "http://head:8265"])
def test_a_url_is_no_address(address: str) -> None:
    with pytest.raises(StudyError) as error:
        reach.reach(address)
    assert str(error.value).startswith(f"--address {address}: must be host:port of the head, such")
    assert ("Ray Client is not supported" in str(error.value)) == address.startswith("ray:")


def test_what_listens_and_is_no_head_is_told_after_it_was_said_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    said = list[str]()
    told = Event()

    def notice(sentence: str) -> None:
        said.append(sentence)
        told.set()

    def silent(address: str) -> None:
        assert told.wait(10)
        raise RpcError("Timed out while waiting for GCS to become available.")

    pretend(monkeypatch, mode="disabled", token=False, refused=False)
    monkeypatch.setattr(reach._ray, "GcsClient", silent)
    monkeypatch.setattr(reach, "PATIENCE_SECONDS", 0.01)
    with pytest.raises(
        StudyError, match=rf"^--address {head}: something listens at {head} that does not answer as"
    ):
        reach.reach(head, notice)
    assert said == [f"--address {head}: waiting for the head of a Ray cluster at {head} to answer"]
