"""The text of `--help`."""

from collections.abc import Iterator

from cyclopts import App

from rkdsearch.cli import app


def parameters(commands: App, path: str = "") -> Iterator[tuple[str, str]]:
    """Each parameter of each command, such as `space check --allow-import`, and its help."""
    if commands.default_command:
        yield from (
            (f"{path}{a.name}", a.parameter.help or "")
            for a in commands.assemble_argument_collection(parse_docstring=True)
        )
    for name in commands:
        if not name.startswith("-"):  # --help and --version are commands too
            yield from parameters(commands[name], f"{path}{name} ")


def test_every_parameter_of_every_command_is_explained() -> None:
    found = dict(parameters(app))
    assert {
        "space check FILES",
        "space sample --seed",
        "tune --trials",
        "teacher verify --config",
    } <= set(found)
    assert [name for name, text in found.items() if not text] == []
