"""`rkdsearch teacher`: train a teacher, check its publisher's claims, or make it safe to load."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from rkdsearch.cli.options import AllowImport, LocalPath

if TYPE_CHECKING:
    from rkdsearch.config import TrainConfig
    from rkdsearch.results.rows import Checks
    from rkdsearch.teacher import Role
    from rkdsearch.training.epoch import EpochResult
    from rkdsearch.training.teacher import TeacherAccuracy

app = App(name="teacher", help="Train, verify or convert a teacher.", help_format="plaintext")

CACHE = Path("teachers")


@app.command
def train(
    config: LocalPath,
    *overrides: str,
    role: Literal["robust", "natural"] = "robust",
    cache: LocalPath = CACHE,
    allow_import: AllowImport = (),
) -> None:
    """Train a teacher from its recipe, once. After an interruption, repeat the command to continue.

    Parameters
    ----------
    config
        YAML file of a run, with teachers.<role>.recipe.
    overrides
        Values laid over the file, such as teachers.robust.recipe.training.epochs=60.
    role
        Role of the teacher.
    cache
        Folder of trained teachers: one folder each, named by a fingerprint of its recipe and data.
    """
    from rkdsearch import data
    from rkdsearch.cli.console import say
    from rkdsearch.cli.progress import epoch_line, flagged_line, seconds_left
    from rkdsearch.errors import TeacherError
    from rkdsearch.training import teacher as teachers
    from rkdsearch.training.accelerator import accelerator_for
    from rkdsearch.training.run import is_first_process, leave_group, train_teacher

    described = _read(config, overrides, allow_import)
    recipe = teachers.recipe_run(described, role)
    if recipe is None:
        raise TeacherError(
            f"{config}: teachers.{role} has no recipe to train by; give it one, or verify its file"
            " with `rkdsearch teacher verify`"
        )
    home = teachers.folder_of(recipe, cache)
    accelerator_for(recipe)  # the launcher's processes wait for each other here
    if teachers.is_trained(recipe, home):
        if is_first_process():
            say(f"{home}: is trained already, {recipe.training.epochs} epochs")
    else:
        _say_cost(recipe, len(teachers.history_of(home)))
        done: list[EpochResult] = []
        if (notice := data.check_test(recipe.data)) and is_first_process():
            say(notice)
        for epoch in train_teacher(recipe, home):
            done.append(epoch)
            if is_first_process():
                say(epoch_line(epoch, seconds_left(done)))
    # The first process has written the file, and measures it alone.
    others = not is_first_process()
    leave_group()
    if others:
        return
    measured = _print_accuracy(described, role, home)
    if (warning := flagged_line(role, measured)) is not None:
        say(warning)
    say(
        f"in a search space: teachers.{role}.path: {home / 'best.safetensors'},"
        f" teachers.{role}.sha256: {measured.sha256}"
    )


@app.command
def verify(
    config: LocalPath, *overrides: str, cache: LocalPath = CACHE, allow_import: AllowImport = ()
) -> None:
    """Measure a run's teachers on your validation images, and compare with the published claims.

    A claim (teachers.<role>.clean_accuracy, .robust_accuracy) that exceeds the measured 99 %
    interval by more than a point is refuted: exit code 2. So does a teacher end on which the attack
    fails (hidden gradients): every check is printed, with the number of images.

    Parameters
    ----------
    config
        YAML file of a run, with teachers.<role>.path, or a recipe that is trained already.
    overrides
        Values laid over the file, such as teachers.robust.path=wrn.pt.
    cache
        Folder of trained teachers; runs/<name of the file>/teachers is searched too.
    """
    from rkdsearch.cli.console import say
    from rkdsearch.errors import TeacherError
    from rkdsearch.teacher import ROLES
    from rkdsearch.training import teacher as teachers

    described = _read(config, overrides, allow_import)
    given = [role for role in ROLES if described.teachers.get(role) is not None]
    if not given:
        raise TeacherError(
            f"{config}: names no teacher; set teachers.robust.path, there or on the command line"
        )
    attack = described.validation.attack
    say(
        f"validation attack: {attack.norm}, eps {attack.eps:.4g} of [0, 1], {attack.title},"
        f" restarts {attack.restarts}; images of {described.data.name}"
    )
    # the second is that of `rkdsearch train`
    caches = cache, Path("runs") / config.stem / "teachers"
    measured = {}
    for role in given:
        recipe = teachers.recipe_run(described, role)
        home = None if recipe is None else teachers.folder_of(recipe, *caches)
        if recipe is not None and home is not None and not teachers.is_trained(recipe, home):
            raise TeacherError(
                f"{config}: teachers.{role} is a recipe and not trained yet, neither in {caches[0]}"
                f" nor in {caches[1]}; `rkdsearch teacher train {config} --role {role}` does it"
            )
        measured[role] = _print_accuracy(described, role, home)
        _print_checks(measured[role].checks)
    # only after all teachers are printed, because the first refuted claim ends the command
    for role, found in measured.items():
        teachers.refuse_flagged(found, f"{config}: teachers.{role}")
        teachers.check_claims(described.teachers.of(role), found, f"{config}: teachers.{role}")


@app.command
def convert(file: LocalPath, out: LocalPath, *, key: str | None = None) -> None:
    """Rewrite a checkpoint as safetensors, which runs no code when loaded. Tensors keep all bits.

    Parameters
    ----------
    file
        torch or safetensors file of any suffix; content other than weights is refused, not run.
    out
        New file, OUT.safetensors.
    key
        Entry of the file that holds the weights, such as state_dict_ema; default: the usual one.
    """
    from rkdsearch.cli.console import say
    from rkdsearch.exporting.weights import convert as rewritten
    from rkdsearch.teacher import fingerprint

    contents = rewritten(file, out, key)
    tensors = contents.tensors
    if contents.described:
        say(f"{file}: {contents.described}")
    say(
        f"{out}: {len(tensors)} tensors, {sum(t.numel() for t in tensors.values()):,} numbers,"
        f" sha256 {fingerprint(out)}"
    )


def _read(config: Path, overrides: tuple[str, ...], allow_import: tuple[str, ...]) -> "TrainConfig":
    from rkdsearch import config as run
    from rkdsearch import plugins
    from rkdsearch.cli.console import show_pace
    from rkdsearch.cli.options import parsed

    show_pace()
    plugins.allow_import(*allow_import)
    return run.load(config, parsed(overrides))


def _print_checks(found: "Checks | None") -> None:
    """Print what was looked at for signs that the validation attack fails, and what was seen."""
    from rkdsearch.cli.console import say
    from rkdsearch.results import flags

    assert found is not None, "a measured teacher is checked"
    raised = flags.raised(found)
    say(f"  signs of a failed attack, on {found.images} images:")
    for flag in flags.Flag:
        name = flags.COUNTS.get(flag)
        count = None if name is None else getattr(found, name)
        seen = flags.NOT_CHECKED if count is None else f"{count} images"
        say(f"    {'FLAG' if flag in raised else '':5}{flag:21} {seen}")


def _say_cost(recipe: "TrainConfig", known: int) -> None:
    """Say how long the epochs after the `known` ones will take."""
    from rkdsearch.cli.console import say
    from rkdsearch.pace import duration
    from rkdsearch.training.timing import expected_seconds

    epochs, seconds = recipe.training.epochs, expected_seconds(recipe)
    if seconds is not None:  # several processes are not timed
        left = epochs - known
        say(
            f"{left} epochs to train, about {duration(seconds * left / epochs)} on this machine"
            " (from a short timing)"
        )


def _print_accuracy(config: "TrainConfig", role: "Role", home: Path | None) -> "TeacherAccuracy":
    """Measure a teacher; print its accuracies with n and 95 % intervals."""
    from rkdsearch import data
    from rkdsearch.cli.console import say
    from rkdsearch.cli.progress import teacher_at_chance_line
    from rkdsearch.results.intervals import wilson
    from rkdsearch.training import teacher as teachers

    teacher = config.teachers.of(role)
    named = teacher if home is None else teachers.from_folder(teacher, home)
    found = teachers.measure(named, config)
    say(f"{role} teacher {named.path}  sha256 {found.sha256}")
    for name, value in (("clean", found.clean_accuracy), ("robust", found.robust_accuracy)):
        right, claimed = round(value * found.images), getattr(teacher, f"{name}_accuracy")
        interval = wilson(right, found.images)
        claim = "" if claimed is None else f"  claimed {claimed:.3f}"
        if claimed is not None and claimed < interval.low:
            claim += ", and better here"
        say(
            f"  {name:6} {right}/{found.images} = {value:.3f}  95 % [{interval.low:.3f},"
            f" {interval.high:.3f}]{claim}"
        )
    say(f"  on {found.measured_on}")
    if found.contents:
        say(f"  {found.contents}")

    warning = teacher_at_chance_line(role, found, data.load_training(config.data).chance)
    if warning is not None:
        say(warning)
    return found
