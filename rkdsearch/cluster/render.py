"""Text of the files, from a few values; the templates lie beside this module.

Each is complete: what only the user can know is an argument, or a line marked CHANGE.
"""

import json
import re
import shlex
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from typing import Any

import jinja2

from rkdsearch.errors import RkdError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
# a name in Kubernetes, as in RFC 1123
_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The nodes that train: at most `nodes`, each with these CPUs and GPUs."""

    nodes: int
    cpus: int
    gpus: int

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("cpus", 1), ("gpus", 0)):
            value = getattr(self, name)
            if value < least:
                raise RkdError(f"--{name} must be >= {least}, got {value}")


@dataclass(frozen=True, kw_only=True)
class SearchCommand:
    """The words of the search that a scheduler starts."""

    space: str
    trials: int
    study: str

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise RkdError(f"--trials must be >= 1, got {self.trials}")
        for name, value in (("the search space", self.space), ("--study", self.study)):
            # refused now, not after hours in a queue
            if not value or value[0] in "-~" or "://" in value:
                raise RkdError(
                    f"{name} must be a path that every node has, not empty and no URL, and must not"
                    f" begin with - or ~, got {value!r}; write it out: /shared/..."
                )

    @property
    def shell(self) -> str:
        """`rkdsearch tune ...` for a shell, without the cluster's address."""
        words = [self.space, "--trials", str(self.trials), "--study", self.study, "--resume"]
        return shlex.join(["rkdsearch", "tune", *words])


def ray_up(
    workers: Workers,
    *,
    machine: str,
    region: str | None,
    image: str | None,
    security_group: str | None,
    file_system: str | None,
    torch_index: str | None = None,
) -> str:
    """`cluster.yaml` for `ray up` on AWS. Values that are None are placeholders marked CHANGE."""
    return _rendered(
        "aws.yaml.j2",
        workers=workers,
        machine=_name("--machine", machine),
        region=region and _name("--region", region),
        image=image and _name("--image", image),
        group=security_group and _name("--security-group", security_group),
        file_system=file_system and _name("--file-system", file_system),
        torch_index=torch_index and _name("--torch-index", torch_index),
    )


def slurm(workers: Workers, search: SearchCommand, *, hours: int) -> str:
    """A script for `sbatch`: Ray's head and the search on the first node, workers on all."""
    if hours < 1:
        raise RkdError(f"--hours must be >= 1, got {hours}")
    return _rendered("slurm.sh.j2", workers=workers, search=search, hours=hours)


def kuberay(workers: Workers, search: SearchCommand, *, image: str, claim: str, job: bool) -> str:
    """A `RayJob` that searches and ends its cluster; with `job` False, a `RayCluster` that stays.

    `claim` is a ReadWriteMany volume claim, mounted at /data in every pod.
    """
    if not _CLAIM.fullmatch(claim):
        raise RkdError(
            "--claim must be a name of small letters, digits, - and ., with a letter or digit at"
            f" both ends, got {claim!r}"
        )
    if not search.study.startswith("/data/"):
        raise RkdError(
            f"--study must be below /data, where every pod has the claim, got {search.study!r}"
        )
    return _rendered(
        "kuberay.yaml.j2",
        workers=workers,
        search=search,
        image=_name("--image", image),
        claim=claim,
        job=job,
        ray=version("ray"),
    )


def dockerfile() -> str:
    """A Dockerfile for the head and the workers, to be built in the checkout."""
    return _rendered("Dockerfile.j2")


def _name(option: str, value: str) -> str:
    """The value, which becomes a part of a file: refused where it could be more than a name."""
    if not _NAME.fullmatch(value):
        raise RkdError(f"{option} must be a name without spaces and quotes, got {value!r}")
    return value


def _rendered(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - YAML and shell; values are checked or quoted
    )
    environment.filters["quoted"] = json.dumps  # a JSON text is a YAML text
    text = (resources.files("rkdsearch.cluster") / template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)
