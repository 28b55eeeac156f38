"""Files that start a Ray cluster: for `ray up` on AWS, Slurm, Kubernetes, and a container image."""
