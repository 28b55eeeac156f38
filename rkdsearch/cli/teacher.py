"""`rkdsearch teacher`: a teacher is trained, checked against its publisher's claims, or made safe to load."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from rkdsearch.cli.options import AllowImport

if TYPE_CHECKING:
    from rkdsearch.config import TrainConfig
    from rkdsearch.teacher import Role
    from rkdsearch.training.epoch import EpochResult
    from rkdsearch.training.teacher import TeacherAccuracy

app = App(name="teacher", help="Train, verify or convert a teacher.", help_format="plaintext")

CACHE = Path("teachers")


@app.command
def train(
    config: Path,
    *overrides: str,
    role: Literal["robust", "natural"] = "robust",
    cache: Path = CACHE,
    allow_import: AllowImport = (),
) -> None:
    """Train a teacher from its recipe, once: the same recipe on the same data is found in the cache. Interrupted, it goes on.

    Parameters
    ----------
    config
        A YAML file of a run's fields, with teachers.<role>.recipe.
    overrides
        section.field=value, such as teachers.robust.recipe.training.epochs=60.
    role
        Which teacher.
    cache
        The folder of trained teachers, one folder each, named by the fingerprint of everything that made it.
    """
    from rkdsearch.cli.progress import epoch_line, said, seconds_left
    from rkdsearch.errors import TeacherError
    from rkdsearch.training import teacher as teachers
    from rkdsearch.training.accelerator import accelerator_for
    from rkdsearch.training.run import is_first_process, leave_group, train_teacher

    described = _read(config, overrides, allow_import)
    made_by = teachers.recipe_run(described, role)
    if made_by is None:
        raise TeacherError(
            f"{config}: teachers.{role} has no recipe to train by; give it one, or verify its file"
            " with `rkdsearch teacher verify`"
        )
    home = teachers.folder_of(made_by, cache)
    if teachers.is_trained(made_by, home):
        accelerator_for(made_by)  # the launcher's processes meet where they would have trained
        if is_first_process():
            said(f"{home}: is trained already, {made_by.training.epochs} epochs")
    else:
        done: list[EpochResult] = []
        for epoch in train_teacher(made_by, home):
            done.append(epoch)
            if is_first_process():
                said(epoch_line(epoch, seconds_left(done)))
    # The first one has written the file, and measures it alone.
    others = not is_first_process()
    leave_group()
    if others:
        return
    measured = _judged(described, role, home)
    said(
        f"in a search space: teachers.{role}.path: {home / 'best.safetensors'},"
        f" teachers.{role}.sha256: {measured.sha256}"
    )


@app.command
def verify(
    config: Path, *overrides: str, cache: Path = CACHE, allow_import: AllowImport = ()
) -> None:
    """Measure a run's teachers on your validation images, by the run's exam, and compare with what their publishers claim.

    A claim (teachers.<role>.clean_accuracy, .robust_accuracy) above the measured 99 % interval,
    give or take a point, is refuted: exit 2.

    Parameters
    ----------
    config
        A YAML file of a run's fields, with teachers.<role>.path (or a recipe that `rkdsearch teacher train` has followed).
    overrides
        section.field=value, such as teachers.robust.path=wrn.pt validation.images=1000.
    cache
        Where `rkdsearch teacher train` keeps what it trained; runs/<name of the file>/teachers, where `rkdsearch train` does, is looked at too.
    """
    from rkdsearch.cli.progress import said
    from rkdsearch.errors import TeacherError
    from rkdsearch.teacher import ROLES
    from rkdsearch.training import teacher as teachers

    described = _read(config, overrides, allow_import)
    given = [role for role in ROLES if described.teachers.get(role) is not None]
    if not given:
        raise TeacherError(
            f"{config}: names no teacher; set teachers.robust.path, on the command line if you like"
        )
    exam = described.validation.attack
    said(
        f"exam: {exam.norm}, eps {exam.eps:.4g} of [0, 1], PGD-{exam.steps}, restarts"
        f" {exam.restarts}; images of {described.data.name}"
    )
    # and where `rkdsearch train` keeps its own
    caches = cache, Path("runs") / config.stem / "teachers"
    measured = {}
    for role in given:
        made_by = teachers.recipe_run(described, role)
        home = None if made_by is None else teachers.folder_of(made_by, *caches)
        if made_by is not None and home is not None and not teachers.is_trained(made_by, home):
            raise TeacherError(
                f"{config}: teachers.{role} is a recipe and not trained yet, neither in {caches[0]}"
                f" nor in {caches[1]}; `rkdsearch teacher train {config} --role {role}` does it"
            )
        measured[role] = _judged(described, role, home)
    # All are shown before one refuted claim ends it.
    for role, found in measured.items():
        teachers.check_claims(described.teachers.of(role), found, f"{config}: teachers.{role}")


@app.command
def convert(file: Path, out: Path) -> None:
    """Rewrite a foreign checkpoint as safetensors, which runs no code when loaded. Tensors keep their names and their bits.

    Parameters
    ----------
    file
        A torch or safetensors file, of any suffix; anything but weights in it is refused, not run.
    out
        The new file, OUT.safetensors.
    """
    from rkdsearch.cli.progress import said
    from rkdsearch.export.trial import convert as rewritten
    from rkdsearch.teacher import fingerprint

    tensors = rewritten(file, out)
    said(
        f"{out}: {len(tensors)} tensors, {sum(t.numel() for t in tensors.values()):,} numbers,"
        f" sha256 {fingerprint(out)}"
    )


def _read(config: Path, overrides: tuple[str, ...], allow_import: tuple[str, ...]) -> "TrainConfig":
    from rkdsearch import config as run
    from rkdsearch import plugins
    from rkdsearch.cli.options import parsed
    from rkdsearch.cli.progress import hear_pace

    hear_pace()
    plugins.allow_import(*allow_import)
    return run.load(config, parsed(overrides))


def _judged(config: "TrainConfig", role: "Role", home: Path | None) -> "TeacherAccuracy":
    """Measure, print with n and 95 % intervals, and return."""
    from rkdsearch.cli.progress import said
    from rkdsearch.results.intervals import accuracy
    from rkdsearch.training import teacher as teachers

    teacher = config.teachers.of(role)
    named = teacher if home is None else teachers.from_folder(teacher, home)
    found = teachers.measure(named, config)
    said(f"{role} teacher {named.path}  sha256 {found.sha256}")
    for name, value in (("clean", found.clean_accuracy), ("robust", found.robust_accuracy)):
        right, claimed = round(value * found.images), getattr(teacher, f"{name}_accuracy")
        interval = accuracy(right, found.images)
        claim = "" if claimed is None else f"  claimed {claimed:.3f}"
        if claimed is not None and claimed < interval.low:
            claim += ", and better here"
        said(
            f"  {name:6} {right}/{found.images} = {value:.3f}  95 % [{interval.low:.3f},"
            f" {interval.high:.3f}]{claim}"
        )
    said(f"  on {found.measured_on}")
    return found
