"""`rkdsearch cluster`: print the files that start a Ray cluster on AWS, Slurm and Kubernetes."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from rkdsearch.cli.options import no_url

if TYPE_CHECKING:
    from rkdsearch.cluster import render

Space = Annotated[
    str,
    Parameter(
        help="YAML file of a search space as the nodes see it; in KubeRay's pods"
        " /home/ray/rkdsearch/search_spaces/NAME.",
        validator=no_url,
    ),
]
Trials = Annotated[int, Parameter(help="Number of configurations.")]
Study = Annotated[
    str,
    Parameter(
        help="Folder of the results, which all nodes share; in KubeRay's pods below /data.",
        validator=no_url,
    ),
]
Nodes = Annotated[
    int, Parameter(help="Most workers at a time; on AWS each is rented while trials wait for it.")
]
Cpus = Annotated[int, Parameter(help="CPUs of each worker.")]
Gpus = Annotated[int, Parameter(help="GPUs of each worker; 0 for machines without.")]

app = App(name="cluster", help="Print files that start a Ray cluster.", help_format="plaintext")


@app.command
def ray(
    *,
    nodes: Nodes = 8,
    cpus: Cpus = 4,
    gpus: Gpus = 1,
    machine: str = "g5.xlarge",
    region: str | None = None,
    image: str | None = None,
    security_group: str | None = None,
    file_system: str | None = None,
    torch_index: str | None = None,
) -> None:
    """Print cluster.yaml for `ray up` on AWS; what is not named here is marked CHANGE.

    Parameters
    ----------
    machine
        EC2 type of the workers.
    region
        AWS region.
    image
        Machine image: Ubuntu 22.04 with an NVIDIA driver.
    security_group
        Group that admits SSH from you, and everything from itself.
    file_system
        Host of an NFS 4.1 file system, such as an EFS mount target.
    torch_index
        Package index of a torch for CPUs, which the head gets; default: that of the workers.
    """
    from rkdsearch.cluster import render

    print(
        render.ray_up(
            render.Workers(nodes=nodes, cpus=cpus, gpus=gpus),
            machine=machine,
            region=region,
            image=image,
            security_group=security_group,
            file_system=file_system,
            torch_index=torch_index,
        ),
        end="",
    )


@app.command
def slurm(
    space: Space,
    *,
    trials: Trials,
    study: Study,
    nodes: int = 2,
    cpus: Cpus = 8,
    gpus: Gpus = 0,
    hours: int = 24,
) -> None:
    """Print a script for sbatch that starts Ray and a search, and continues it job after job.

    Parameters
    ----------
    nodes
        Nodes of the job.
    hours
        Time limit of one job.
    """
    from rkdsearch.cluster import render

    workers = render.Workers(nodes=nodes, cpus=cpus, gpus=gpus)
    search = _search(space, trials, study)
    print(render.slurm(workers, search, hours=hours), end="")


@app.command
def kuberay(
    space: Space,
    *,
    trials: Trials,
    study: Study,
    image: str,
    claim: str,
    nodes: Nodes = 8,
    cpus: Cpus = 4,
    gpus: Gpus = 1,
    job: bool = True,
) -> None:
    """Print a RayJob for KubeRay that searches; with --no-job a RayCluster to work on.

    Parameters
    ----------
    image
        Image that `rkdsearch cluster dockerfile` describes.
    claim
        Name of a ReadWriteMany volume claim; every pod mounts it at /data.
    job
        A RayJob, which ends with the search; else a RayCluster.
    """
    from rkdsearch.cluster import render

    workers = render.Workers(nodes=nodes, cpus=cpus, gpus=gpus)
    search = _search(space, trials, study)
    print(render.kuberay(workers, search, image=image, claim=claim, job=job), end="")


@app.command
def dockerfile() -> None:
    """Print a Dockerfile of the head and the workers."""
    from rkdsearch.cluster import render

    print(render.dockerfile(), end="")


def _search(space: str, trials: int, study: str) -> "render.SearchCommand":
    """Command line of the search. Raises SpaceError for an unknown `rkdsearch:NAME`."""
    from rkdsearch.cluster.render import SearchCommand
    from rkdsearch.space.shipped import located

    located(space)
    return SearchCommand(space=space, trials=trials, study=study)
