"""`rkdsearch cluster`: print the files that start a Ray cluster on AWS, Slurm and Kubernetes."""

from cyclopts import App

app = App(name="cluster", help="Print files that start a Ray cluster.", help_format="plaintext")


@app.command
def ray(
    *,
    nodes: int = 8,
    cpus: int = 4,
    gpus: int = 1,
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
    nodes
        Most workers at a time; each is rented while trials wait for it.
    cpus
        CPUs of a worker.
    gpus
        GPUs of a worker; 0 for machines without.
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
    space: str,
    *,
    trials: int,
    study: str,
    nodes: int = 2,
    cpus: int = 8,
    gpus: int = 0,
    hours: int = 24,
) -> None:
    """Print a script for sbatch that starts Ray and a search, and continues it job after job.

    Parameters
    ----------
    space
        YAML file of a search space, as the nodes see it.
    trials
        Number of configurations.
    study
        Folder of the results, on a file system that all nodes share.
    nodes
        Nodes of the job.
    cpus
        CPUs of each node.
    gpus
        GPUs of each node.
    hours
        Time limit of one job.
    """
    from rkdsearch.cluster import render

    workers = render.Workers(nodes=nodes, cpus=cpus, gpus=gpus)
    search = render.SearchCommand(space=space, trials=trials, study=study)
    print(render.slurm(workers, search, hours=hours), end="")


@app.command
def kuberay(
    space: str,
    *,
    trials: int,
    study: str,
    image: str,
    claim: str,
    nodes: int = 8,
    cpus: int = 4,
    gpus: int = 1,
    job: bool = True,
) -> None:
    """Print a RayJob for KubeRay that searches; with --no-job a RayCluster to work on.

    Parameters
    ----------
    space
        YAML file of a search space, as the pods see it: /home/ray/rkdsearch/search_spaces/NAME.
    trials
        Number of configurations.
    study
        Folder of the results, below /data.
    image
        Image that `rkdsearch cluster dockerfile` describes.
    claim
        Name of a ReadWriteMany volume claim; every pod mounts it at /data.
    nodes
        Most workers at a time.
    cpus
        CPUs of a worker.
    gpus
        GPUs of a worker.
    job
        A RayJob, which ends with the search; else a RayCluster.
    """
    from rkdsearch.cluster import render

    workers = render.Workers(nodes=nodes, cpus=cpus, gpus=gpus)
    search = render.SearchCommand(space=space, trials=trials, study=study)
    print(render.kuberay(workers, search, image=image, claim=claim, job=job), end="")


@app.command
def dockerfile() -> None:
    """Print a Dockerfile of the head and the workers."""
    from rkdsearch.cluster import render

    print(render.dockerfile(), end="")
