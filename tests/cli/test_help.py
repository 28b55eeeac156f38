"""The text of `--help`."""

from collections.abc import Iterator

from cyclopts import App, Argument

from rkdsearch.cli import app


def arguments(commands: App, path: str = "") -> Iterator[tuple[str, Argument]]:
    """Each parameter of each command, by its name, such as `space check --allow-import`."""
    if commands.default_command:
        yield from (
            (f"{path}{a.name}", a)
            for a in commands.assemble_argument_collection(parse_docstring=True)
        )
    for name in commands:
        if not name.startswith("-"):  # --help and --version are commands too
            yield from arguments(commands[name], f"{path}{name} ")


def test_every_parameter_of_every_command_is_explained() -> None:
    found = {name: a.parameter.help or "" for name, a in arguments(app)}
    assert {
        "space check FILES",
        "space sample --seed",
        "tune --trials",
        "teacher verify --config",
    } <= set(found)
    assert [name for name, text in found.items() if not text] == []
