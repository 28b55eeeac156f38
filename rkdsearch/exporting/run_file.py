"""The run of an exported network as a YAML file for `rkdsearch train`."""

import json
import shlex

from rkdsearch import config as run
from rkdsearch.exporting.exported_network import ExportedNetwork, join_then, own_packages
from rkdsearch.methods import name_of
from rkdsearch.training.teacher import with_present_files

RUN = "run.yaml"


def run_yaml(d: ExportedNetwork) -> str:
    """The config as YAML; comments at its top give the command that repeats the run elsewhere.

    Teachers are named by their present paths on this machine, in the study's folder where it has
    them.
    """
    config = with_present_files(d.config, d.home)
    asked = {role: config.teachers.of(role) for role in config.teacher_roles}
    images = config.data.model_dump(mode="json", exclude_defaults=True)
    where: dict[str, object] = {
        name: "WHERE" for name in ("root", "extra", "cache") if name in images
    }
    # Another data set discards some fields of the section, so the command repeats them.
    if config.data.path:
        where = {**images, **where, "name": f"{config.data.kind}:WHERE"}
    given = [
        shlex.quote(
            f"data.{name}="
            + (value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))
        )
        for name, value in where.items()
    ]
    given += [
        f"teachers.{role}.path=WHERE" for role, teacher in asked.items() if teacher.path is not None
    ]
    own = own_packages(
        config.student.name,
        name_of(config.method),
        *(teacher.network.name for teacher in asked.values()),
    )
    command = " ".join(
        ["rkdsearch train", RUN, *given, *(f"--allow-import {package}" for package in own)]
    )
    elsewhere = ", with the path of your file for WHERE" if given else ""
    lines = [f"# Trial {d.trial['trial_id']} of {d.study}. `{command}` repeats it{elsewhere}."]
    lines += [
        f"# teachers.{role}.path must have the sha256 {teacher.sha256}."
        for role, teacher in asked.items()
        if teacher.sha256
    ]
    if own:
        lines.append(f"# The folder of {', '.join(own)} must be on PYTHONPATH.")
    if d.on_rungs:
        lines.append(
            "# Its search validated at rungs too: another epoch may be chosen as the best."
        )
    if len(d.training_attack_steps) > 1:
        lines.append("# Not exactly: its search began with fewer steps of the training attack.")
    if any(n > 1 for n in d.processes):
        lines.append(
            f"# It was trained by {join_then(d.processes)} processes together; another number adds"
            " in another order, and rounds otherwise."
        )
    return "\n".join(lines) + "\n" + run.written(config)
