"""Files for the three schedulers, checked without any of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from rkdsearch.cluster.render import (
    SearchCommand,
    Workers,
    dockerfile,
    kuberay,
    ray_up,
    slurm,
)
from rkdsearch.errors import RkdError
from tests.test_cluster_yaml import own_complaints, ray_complaints

ROOT = Path(__file__).parents[2]
SEARCH = SearchCommand(space="my spaces/a.yaml", trials=20, study="/data/studies/a")
SIZES = [Workers(nodes=1, cpus=2, gpus=0), Workers(nodes=64, cpus=48, gpus=8)]
NAMED = {
    "machine": "p4d.24xlarge",
    "region": "eu-central-1",
    "image": "ami-1",
    "security_group": "sg-1",
    "file_system": "fs-1.efs.eu-central-1.amazonaws.com",
}
# Fields of KubeRay 1.7's CRD of RayJob and RayCluster, at the places that are rendered.
FIELDS = {
    "RayJob": {
        "entrypoint",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
        "submissionMode",
        "suspend",
        "activeDeadlineSeconds",
    },
    "RayCluster": {
        "rayVersion",
        "authOptions",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "headGroupSpec": {"rayStartParams", "template", "serviceType"},
    "workerGroupSpec": {
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "rayStartParams",
        "template",
    },
    "pod": {"containers", "securityContext", "volumes"},
    "container": {"name", "image", "workingDir", "env", "resources", "volumeMounts"},
}


def unknown_fields(resource: dict[str, Any]) -> set[str]:
    """Names in a RayJob or RayCluster that the CRD does not have at their place."""
    spec = resource["spec"]
    found = set(spec) - FIELDS[resource["kind"]]
    cluster = spec.get("rayClusterSpec", spec)
    found |= set(cluster) - FIELDS["RayCluster"]
    groups = [(cluster["headGroupSpec"], FIELDS["headGroupSpec"])]
    groups += [(group, FIELDS["workerGroupSpec"]) for group in cluster["workerGroupSpecs"]]
    for group, fields in groups:
        pod = group["template"]["spec"]
        found |= (set(group) - fields) | (set(pod) - FIELDS["pod"])
        found |= {name for c in pod["containers"] for name in set(c) - FIELDS["container"]}
    return found


def test_the_file_of_the_checkout_is_what_the_command_prints() -> None:
    nothing = dict.fromkeys(NAMED) | {"machine": "g5.xlarge"}
    printed = ray_up(Workers(nodes=8, cpus=4, gpus=1), **nothing)  # type: ignore[arg-type]  # names
    assert printed == (ROOT / "cluster.yaml").read_text(), (
        "run: rkdsearch cluster ray > cluster.yaml"
    )


@pytest.mark.parametrize("workers", SIZES, ids=["one", "many"])
def test_ray_accepts_the_file_of_any_size(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a token")
    machine = "p4d.24xlarge" if workers.gpus else "c7i.large"
    text = ray_up(workers, **{**NAMED, "machine": machine})
    config = yaml.safe_load(text)
    assert ray_complaints(config) == []
    assert own_complaints(config, root=ROOT, home=tmp_path) == []
    assert "CHANGE:" not in text
    assert config["max_workers"] == workers.nodes
    worker = config["available_node_types"]["worker"]
    assert worker["resources"] == {"CPU": workers.cpus} | (
        {"GPU": workers.gpus} if workers.gpus else {}
    )
    assert (config["provider"]["region"], worker["node_config"]["ImageId"]) == (
        "eu-central-1",
        "ami-1",
    )


def test_a_head_may_have_a_torch_of_another_index(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a token")
    index = "https://index.example/cpu"
    config = yaml.safe_load(ray_up(SIZES[1], **NAMED, torch_index=index))
    assert ray_complaints(config) == []
    head, worker = config["head_setup_commands"], config["worker_setup_commands"]
    assert any(index in command.split() for command in head)
    assert not any(index in command for command in worker)
    assert any("--requirement ~/rkdsearch/requirements.lock" in command for command in worker)
    assert not any("requirements.lock boto3" in command for command in config["setup_commands"])
    assert head[-1] == worker[-1]


@pytest.mark.parametrize(
    "value", ["no", "null", "0x10", "1:30", "1_000", "2026-01-01", "12345", "a:"]
)
def test_a_name_stays_text_whatever_yaml_would_read(value: str) -> None:
    names = dict.fromkeys(("machine", "region", "image", "security_group"), value)
    config = yaml.safe_load(ray_up(SIZES[0], **names, file_system="fs-1"))
    node = config["available_node_types"]["worker"]["node_config"]
    assert config["provider"]["region"] == value
    assert (node["InstanceType"], node["ImageId"], node["SecurityGroupIds"]) == (
        value,
        value,
        [value],
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 0}, "--trials must be >= 1, got 0"),
        ({"study": ""}, "--study must be a path that every node has"),
        ({"study": "-x"}, "--study must be a path that every node has"),
        ({"study": "~/x"}, "must not begin with - or ~, got '~/x'"),
        ({"study": "s3://bucket/x"}, "no URL, .* got 's3://bucket/x'"),
        ({"space": "gs://a/b.yaml"}, "the search space must be a path that every node has"),
    ],
)
def test_what_the_search_would_refuse_is_refused_before_the_queue(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RkdError, match=said):
        SearchCommand(**{"space": "a.yaml", "trials": 2, "study": "/data/a", **changes})


@pytest.mark.parametrize("claim", ["UPPER_case", "-x", "a/b", "a" * 254, ""])
def test_a_claim_has_a_name_that_kubernetes_takes(claim: str) -> None:
    with pytest.raises(RkdError, match="--claim must be a name of small letters"):
        kuberay(SIZES[0], SEARCH, image="i", claim=claim, job=True)


def test_a_study_in_pods_lies_on_the_claim() -> None:
    search = SearchCommand(space="a.yaml", trials=2, study="/shared/a")
    with pytest.raises(RkdError, match=r"--study must be below /data, .* got '/shared/a'"):
        kuberay(SIZES[0], search, image="i", claim="c", job=True)


@pytest.mark.parametrize("workers", SIZES, ids=["one", "many"])
def test_the_script_for_slurm_is_clean_shell_and_asks_what_it_needs(
    workers: Workers, tmp_path: Path
) -> None:
    text = slurm(workers, SEARCH, hours=12)
    file = tmp_path / "job.sh"
    file.write_text(text)
    assert subprocess.run(["bash", "-n", file], check=False).returncode == 0
    asked = {line for line in text.splitlines() if line.startswith("#SBATCH")}
    assert asked >= {
        f"#SBATCH --nodes={workers.nodes}",
        f"#SBATCH --cpus-per-task={workers.cpus}",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:TERM@300",
    }
    assert ("--gpus-per-node" in text) == (workers.gpus > 0)
    (step,) = (part for part in text.split("\n\n") if "\nsrun " in part)
    assert f"--cpus-per-task={workers.cpus}" in step  # srun does not inherit it
    assert "--num-cpus=0 --num-gpus=0" in text  # the head
    assert "rkdsearch tune 'my spaces/a.yaml' --trials 20 --study /data/studies/a --resume" in text


def test_a_slurm_node_whose_name_nobody_knows_is_at_the_first_address_that_it_has() -> None:
    lines = [
        line
        for line in slurm(SIZES[0], SEARCH, hours=12).splitlines()
        if line.startswith(("set ", "address=", '[ -n "$address"'))
    ]
    assert len(lines) == 3
    unknown = "getent() { return 2; }; hostname() { echo 10.0.0.7 10.1.0.7; }"
    script = "\n".join([*lines[:1], unknown, *lines[1:], 'echo "$address"'])
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "10.0.0.7\n")


@pytest.mark.parametrize("workers", SIZES, ids=["one", "many"])
def test_shellcheck_finds_nothing_in_the_script_for_slurm(workers: Workers, tmp_path: Path) -> None:
    file = tmp_path / "job.sh"
    file.write_text(slurm(workers, SEARCH, hours=12))
    program = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run([program, file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("workers", SIZES, ids=["one", "many"])
@pytest.mark.parametrize("job", [True, False], ids=["RayJob", "RayCluster"])
def test_kuberay_is_given_fields_that_its_crds_have(workers: Workers, job: bool) -> None:
    found = yaml.safe_load(
        kuberay(workers, SEARCH, image="registry/rkdsearch:1", claim="data", job=job)
    )
    assert found["apiVersion"] == "ray.io/v1"
    assert found["kind"] == ("RayJob" if job else "RayCluster")
    assert unknown_fields(found) == set()
    cluster = found["spec"]["rayClusterSpec"] if job else found["spec"]
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert group["maxReplicas"] == workers.nodes
    assert container["resources"]["limits"].get("nvidia.com/gpu") == (
        str(workers.gpus) if workers.gpus else None
    )
    for pod in (cluster["headGroupSpec"], group):
        spec = pod["template"]["spec"]
        assert spec["securityContext"]["fsGroup"] == 1000  # the uid of the image's user
        assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "data"}
        assert spec["containers"][0]["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    if job:
        assert found["spec"]["entrypoint"] == f"{SEARCH.shell} --address auto"


def test_a_field_that_kuberay_does_not_know_is_noticed() -> None:
    found = yaml.safe_load(kuberay(SIZES[0], SEARCH, image="i", claim="c", job=True))
    found["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    found["spec"]["entryPoint"] = "x"
    assert unknown_fields(found) == {"maxReplica", "entryPoint"}


def test_the_image_names_no_index_of_its_own() -> None:
    text = dockerfile()
    assert "\nARG TORCH_INDEX\n" in text
    assert "://" not in text
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY")]
    assert all((ROOT / name).exists() for names in copied for name in names)


@pytest.mark.parametrize(
    ("bad", "law"),
    [
        ({"image": "a b"}, "--image must be a name without spaces and quotes, got 'a b'"),
        ({"claim": "x}\nkind: Pod"}, "--claim must be a name"),
    ],
)
def test_a_value_cannot_become_another_part_of_the_file(bad: dict[str, str], law: str) -> None:
    values = {"image": "i", "claim": "c", **bad}
    with pytest.raises(RkdError, match=law):
        kuberay(SIZES[0], SEARCH, **values, job=True)


def test_sizes_that_no_cluster_has_are_refused() -> None:
    with pytest.raises(RkdError, match="--nodes must be >= 1, got 0"):
        Workers(nodes=0, cpus=1, gpus=0)
    with pytest.raises(RkdError, match="--hours must be >= 1, got 0"):
        slurm(SIZES[0], SEARCH, hours=0)
