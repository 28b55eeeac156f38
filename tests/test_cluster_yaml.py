"""cluster.yaml, checked without a cloud.

By Ray's own schema, and by the laws below for faults that Ray notices after machines are rented.

The second half breaks a copy of the file in one place at a time: a check that lets a broken copy
pass is no check.
"""

import copy
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
Config = dict[str, Any]

PROVIDER_KEYS = {
    "type",
    "region",
    "availability_zone",
    "cache_stopped_nodes",
    "use_internal_ips",
    "security_group",
    "aws_credentials",
    "cloudwatch",
}
NODE_KEYS = {
    "BlockDeviceMappings",
    "IamInstanceProfile",
    "ImageId",
    "InstanceMarketOptions",
    "InstanceType",
    "KeyName",
    "NetworkInterfaces",
    "Placement",
    "SecurityGroupIds",
    "SubnetIds",
    "TagSpecifications",
    "UserData",
}
INSTANCE = re.compile(
    r"[a-z][a-z0-9-]*\.(nano|micro|small|medium|large|(\d+)?xlarge|metal(-\d+xl)?)"
)
RAY_RESOURCES = {"CPU", "GPU", "memory", "object_store_memory"}
PRIVATE = {".git", ".venv", ".env", ".ssh", ".aws", "studies"}


def load() -> Config:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert isinstance(config, dict)
    return config


def ray_complaints(config: Config) -> list[str]:
    """What `ray up` itself would say before it starts anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:  # noqa: BLE001 - Ray raises schema errors, ValueErrors and KeyErrors alike
        return [f"{type(error).__name__}: {error}"]
    return []


def node_complaints(name: str, node: Config) -> Iterator[str]:
    resources, machine = node["resources"], node["node_config"]
    for resource in resources:
        canonical = {known.lower(): known for known in RAY_RESOURCES}.get(
            resource.lower(), resource
        )
        if canonical != resource:
            yield (
                f"{name}: Ray would take resource '{resource}' for one of your own; write"
                f" {canonical}"
            )
    yield from (
        f"{name}: '{key}' is not an EC2 launch option that this file is known to need"
        for key in sorted(set(machine) - NODE_KEYS)
    )
    if not INSTANCE.fullmatch(machine.get("InstanceType", "")):
        yield f"{name}: InstanceType '{machine.get('InstanceType')}' is not of the form family.size"
    elif machine["InstanceType"][0] in "gp" and "GPU" not in resources:
        yield f"{name}: a {machine['InstanceType']} has GPUs, and its resources name none"
    if "ImageId" not in machine:
        yield f"{name}: without ImageId Ray starts an Ubuntu 18.04 image"
    if not machine.get("SecurityGroupIds"):
        yield f"{name}: without SecurityGroupIds Ray opens port 22 to the world"


def mount_complaints(mounts: dict[str, str], root: Path, home: Path) -> Iterator[str]:
    for remote, local in mounts.items():
        base, name = (home, local[2:]) if local.startswith("~/") else (root, local)
        place = base / name
        within = Path(os.path.relpath(place, base)).parts
        if not within or PRIVATE & set(within):
            yield (
                f"file_mounts: {local} would carry secrets or studies; name the parts that a node"
                " needs"
            )
        elif not place.exists():
            yield f"file_mounts: {local} does not exist; Ray notices after the head is rented"
        if not remote.startswith("/"):
            yield f"file_mounts: {remote} must be absolute"
    if not any(remote.endswith("/.ray/auth_token") for remote in mounts):
        yield "file_mounts: the token is missing; nodes could not authenticate to each other"


def start_complaints(head: list[str], workers: list[str]) -> Iterator[str]:
    starts = [c for c in head + workers if "ray start" in c]
    yield from (
        f"start command without RAY_AUTH_MODE=token: {c}"
        for c in starts
        if "RAY_AUTH_MODE=token ray start" not in c
    )
    port = re.search(r"--head .*--port=(\d+)", " ".join(head))
    if port is None or "--autoscaling-config=~/ray_bootstrap_config.yaml" not in " ".join(head):
        yield "head_start_ray_commands must start a head with a port and the autoscaler's config"
    elif f"--address=$RAY_HEAD_IP:{port[1]}" not in " ".join(workers).split():
        yield f"worker_start_ray_commands must join the head: --address=$RAY_HEAD_IP:{port[1]}"
    if "--dashboard-host=127.0.0.1" not in " ".join(head):
        yield "the dashboard must stay on the head's loopback: --dashboard-host=127.0.0.1"


def own_complaints(config: Config, *, root: Path, home: Path) -> list[str]:
    """What Ray does not check, or checks when it is too late. `home` is where ~ leads."""
    nodes = config.get("available_node_types", {})
    setup = " ".join(config.get("initialization_commands", []) + config.get("setup_commands", []))
    found = [
        f"provider: unknown key '{key}'" for key in sorted(set(config["provider"]) - PROVIDER_KEYS)
    ]
    if not config.get("cluster_name"):
        found.append(
            "cluster_name is missing: Ray would call it 'default' and adopt any other cluster of"
            " that name"
        )
    for name, node in nodes.items():
        found += node_complaints(name, node)
    if nodes.get(config.get("head_node_type"), {}).get("resources", {}).get("CPU") != 0:
        found.append("the head must offer CPU: 0, or trials run on it")
    found += mount_complaints(config.get("file_mounts", {}), root, home)
    found += start_complaints(
        config.get("head_start_ray_commands", []), config.get("worker_start_ray_commands", [])
    )
    if "0.0.0.0" in yaml.safe_dump(config):
        found.append("0.0.0.0 opens the cluster to everyone")
    if "mount -t nfs4" not in setup:
        found.append("no shared file system is mounted: Ray Tune refuses several nodes without one")
    if "requirements.lock" not in setup or "$HOME/rkdsearch" not in setup:
        found.append("setup_commands do not install rkdsearch from its lock")
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a token")
    return tmp_path


def test_ray_accepts_the_file() -> None:
    assert ray_complaints(load()) == []


def test_we_accept_the_file(home: Path) -> None:
    assert own_complaints(load(), root=ROOT, home=home) == []


def test_every_command_is_valid_shell() -> None:
    config = load()
    for key in (
        "initialization_commands",
        "setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
    ):
        for command in config[key]:
            assert (
                subprocess.run(
                    ["bash", "-n", "-c", command], capture_output=True, check=False
                ).returncode
                == 0
            ), command


def test_the_lock_installs_the_ray_that_checked_this_file_and_the_same_uv_as_the_makefile() -> None:
    import ray

    assert f"\nray=={ray.__version__}\n" in (ROOT / "requirements.lock").read_text()
    version = re.search(r"^UV := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert any(command.endswith(f"uv=={version[1]}") for command in load()["setup_commands"])


def test_four_places_are_marked_for_change() -> None:
    assert (ROOT / "cluster.yaml").read_text().count("CHANGE:") == 4


GPU, HEAD = ("available_node_types", "worker"), ("available_node_types", "head")


def at(config: Config, *keys: str) -> Config:
    for key in keys:
        config = config[key]
    return config


def rename(config: Config, *path: str, to: str) -> None:
    *parents, key = path
    at(config, *parents)[to] = at(config, *parents).pop(key)


def replace(key: str, old: str, new: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        assert old in " ".join(config[key])
        config[key] = [command.replace(old, new) for command in config[key]]

    return change


def update(*path: str, **values: object) -> Callable[[Config], None]:
    return lambda config: at(config, *path).update(values)


RAY_CATCHES: dict[str, Callable[[Config], None]] = {
    "a typo at the top": lambda c: rename(c, "max_workers", to="max_worker"),
    "a typo in a node type": lambda c: rename(c, *GPU, "min_workers", to="min_worker"),
    "a number in quotes": update(max_workers="8"),
    "a head type that is not there": update(head_node_type="nope"),
    "more workers than allowed": lambda c: (
        c.update(max_workers=2),
        at(c, *GPU).update(min_workers=5),
    )[0],
    "an unknown provider": update("provider", type="awz"),
}
WE_CATCH: dict[str, Callable[[Config], None]] = {
    "a typo in provider": lambda c: rename(c, "provider", "region", to="regoin"),
    "no cluster name": lambda c: c.pop("cluster_name"),
    "gpu in lower case": lambda c: rename(c, *GPU, "resources", "GPU", to="gpu"),
    "a GPU machine without GPU": lambda c: at(c, *GPU, "resources").pop("GPU"),
    "a typo in the machine's name": update(*GPU, "node_config", InstanceType="g5.12xlrage"),
    "a typo in a launch option": lambda c: rename(
        c, *GPU, "node_config", "InstanceMarketOptions", to="InstanceMarketOption"
    ),
    "Ray's own old image": lambda c: at(c, *GPU, "node_config").pop("ImageId"),
    "Ray's own open group": lambda c: at(c, *HEAD, "node_config").pop("SecurityGroupIds"),
    "trials on the head": update(*HEAD, resources={"CPU": 4}),
    "a mount that is not there": update("file_mounts", **{"/home/ubuntu/x": "no/such/file"}),
    "the whole folder": update("file_mounts", **{"/home/ubuntu/x": "."}),
    "the whole home": update("file_mounts", **{"/home/ubuntu/x": "~/"}),
    "git's folder": update("file_mounts", **{"/home/ubuntu/x": "tests/../.git"}),
    "no token": lambda c: c["file_mounts"].pop("/home/ubuntu/.ray/auth_token"),
    "a worker without its head": replace(
        "worker_start_ray_commands", "--address=$RAY_HEAD_IP:6379", ""
    ),
    "a worker at another port": replace("worker_start_ray_commands", ":6379", ":6380"),
    "a head without the autoscaler": replace(
        "head_start_ray_commands", "--autoscaling-config=~/ray_bootstrap_config.yaml", ""
    ),
    "a head without a token": replace("head_start_ray_commands", "RAY_AUTH_MODE=token ", ""),
    "a dashboard for everyone": replace("head_start_ray_commands", "127.0.0.1", "0.0.0.0"),
    "no shared file system": replace("initialization_commands", "mount -t nfs4", "true"),
    "nothing installed": update(setup_commands=[]),
}


@pytest.mark.parametrize("broken", RAY_CATCHES.values(), ids=RAY_CATCHES)
def test_ray_notices(broken: Callable[[Config], None]) -> None:
    config = load()
    broken(config)
    assert len(ray_complaints(config)) == 1


@pytest.mark.parametrize("broken", WE_CATCH.values(), ids=WE_CATCH)
def test_we_notice(broken: Callable[[Config], None], home: Path) -> None:
    config = load()
    broken(config)
    assert own_complaints(config, root=ROOT, home=home) != []


def test_what_we_catch_is_what_ray_lets_pass() -> None:
    passed = []
    for name, broken in WE_CATCH.items():
        config = load()
        broken(config)
        if ray_complaints(config) == []:
            passed.append(name)
    assert passed == list(WE_CATCH)  # the day Ray notices one itself, our law can go
