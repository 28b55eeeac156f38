"""A quick try to reach a Ray cluster, and the reason where it cannot be joined.

`ray.init` tries for minutes where nobody answers or a token is missing, and then says neither.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray._private.services import canonicalize_bootstrap_address

from rkdsearch.errors import StudyError

ANSWER_SECONDS = 10.0

_REMEDY = (
    "copy the head's ~/.ray/auth_token to this machine's ~/.ray/auth_token (chmod 600), or set"
    " RAY_AUTH_TOKEN_PATH to it"
)


_ray: Any = _raylet  # compiled, without types


def reach(address: str) -> None:
    """Raise StudyError where no cluster answers at the address, or it asks for another token."""
    try:
        place = canonicalize_bootstrap_address(address) if "://" not in address else None
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
    try:
        with _silent():
            _ray.GcsClient(address=place)
    except ray.exceptions.AuthenticationError:
        remedy = _REMEDY if asks_token else f"set RAY_AUTH_MODE=token, and {_REMEDY}"
        found = "the token here is another one" if asks_token else "RAY_AUTH_MODE is not set here"
        raise StudyError(
            f"--address {address}: the cluster asks for its token, and {found}: {remedy}"
        ) from None


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
