"""A quick try to reach a Ray cluster, and the reason where it cannot be joined.

`ray.init` tries for minutes where nobody answers or a token is missing, and then says neither.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray._private.services import canonicalize_bootstrap_address

from rkdsearch.errors import StudyError

ANSWER_SECONDS = 10.0
PATIENCE_SECONDS = 3.0  # then the user is told what is waited for

_REMEDY = (
    "copy the head's ~/.ray/auth_token to this machine's ~/.ray/auth_token (chmod 600), or set"
    " RAY_AUTH_TOKEN_PATH to it"
)


_ray: Any = _raylet  # compiled, without types


def reach(address: str, notice: Callable[[str], None] = lambda _: None) -> None:
    """Raise StudyError where no cluster answers at the address, or it asks for another token.

    `notice` is told of an answer that takes long.
    """
    if "://" in address:
        client = " (Ray Client is not supported)" if address.startswith("ray://") else ""
        raise StudyError(
            f"--address {address}: must be host:port of the head, such as 10.0.0.1:6379, or auto,"
            f" and no URL{client}"
        )
    try:
        place = canonicalize_bootstrap_address(address)
    except ValueError:
        place = None
    if (
        place is None
    ):  # `auto` without a trace of a cluster, or no address: `ray.init` knows at once
        return
    asks_token = _ray.get_authentication_mode() == _ray.AuthenticationMode.TOKEN
    # Without a token Ray would end this process.
    if asks_token and not _ray.AuthenticationTokenLoader.instance().has_token(
        ignore_auth_mode=True
    ):
        raise StudyError(
            f"--address {address}: RAY_AUTH_MODE is token, and there is no token here: {_REMEDY}"
        )
    # Ray puts this machine's address in place of a loopback's; a head may listen on either.
    place = _answering(address, [place] if address == "auto" else [address, place])
    late = f"--address {address}: waiting for the head of a Ray cluster at {place} to answer"
    timer = threading.Timer(PATIENCE_SECONDS, notice, [late])
    timer.daemon = True
    timer.start()
    try:
        with _silent():
            _ray.GcsClient(address=place)
    except ray.exceptions.RpcError:
        raise StudyError(
            f"--address {address}: something listens at {place} that does not answer as the head of"
            " a Ray cluster: give the port of `ray start --head` (6379), not the dashboard's (8265)"
            " or Ray Client's (10001), and look whether the head is well (`ray status` there)"
        ) from None
    except ray.exceptions.AuthenticationError:
        remedy = _REMEDY if asks_token else f"set RAY_AUTH_MODE=token, and {_REMEDY}"
        found = "the token here is another one" if asks_token else "RAY_AUTH_MODE is not set here"
        raise StudyError(
            f"--address {address}: the cluster asks for its token, and {found}: {remedy}"
        ) from None
    finally:
        timer.cancel()


def _answering(address: str, places: Sequence[str]) -> str:
    """The first of these places, each host:port, at which something listens."""
    reason = ""
    for place in places:
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
        except OSError as error:
            reason = reason or f"{place} ({error.strerror or error})"
        else:
            return place
    raise StudyError(
        f"--address {address}: nobody answers at {reason}: does the head run (`ray status` there),"
        " and does the firewall let this machine reach it?"
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Hide what Ray's C++ writes to standard error; it has no other switch."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
