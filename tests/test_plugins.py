import subprocess
import sys
from pathlib import Path

import pytest

from rkdsearch import plugins
from rkdsearch.errors import ConfigError


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package on the path, not yet allowed, whose import is noticed."""
    (tmp_path / "their_lab").mkdir()
    (tmp_path / "their_lab" / "__init__.py").write_text("")
    (tmp_path / "their_lab" / "nets.py").write_text("value = 3")
    (tmp_path / "their_lab" / "broken.py").write_text("import a_package_that_is_not_installed")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_allowed", set())
    for name in [name for name in sys.modules if name.startswith("their_lab")]:
        monkeypatch.delitem(sys.modules, name)
    return "their_lab"


def test_a_module_is_imported_only_below_an_allowed_prefix(lab: str) -> None:
    for allowed in ((), ("their",), ("their_lab.nets.deeper",)):
        plugins.allow_import(*allowed)
        with pytest.raises(
            ConfigError,
            match=(
                r"method.name: 'their_lab.nets' would import code; allow it with --allow-import"
                r" their_lab"
            ),
        ):
            plugins.load_module("their_lab.nets", place="method.name")
        assert "their_lab" not in sys.modules
    plugins.allow_import(lab)
    assert vars(plugins.load_module("their_lab.nets", place="method.name"))["value"] == 3
    assert "their_lab" in plugins.allowed_imports()


def test_a_module_needs_no_package_around_it(lab: str) -> None:
    with pytest.raises(
        ConfigError,
        match=(
            r"network name: 'their_lab' would import code; allow it with --allow-import their_lab"
        ),
    ):
        plugins.load_module("their_lab", place="network name")
    plugins.allow_import(lab)
    assert plugins.load_module("their_lab", place="network name").__name__ == "their_lab"


@pytest.mark.parametrize(
    "prefix", ["", "optimizer.lr=0.05", "their-lab", "their_lab/nets.py", "their_lab their_nets"]
)
def test_what_names_no_package_is_not_allowed(lab: str, prefix: str) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^--allow-import must name a package, such as my_lab or my_lab.nets, got '",
    ):
        plugins.allow_import(lab, prefix)
    assert "their_lab" not in plugins.allowed_imports()


def test_a_missing_module_is_told_from_one_that_misses_something(lab: str) -> None:
    plugins.allow_import(lab)
    with pytest.raises(
        ConfigError,
        match=r"method.name: no module 'their_lab.absent' .looked for 'their_lab.absent'",
    ):
        plugins.load_module("their_lab.absent", place="method.name")
    with pytest.raises(
        ConfigError,
        match=r"^method.name must be the name of a module: write their_lab.nets, without '.value'",
    ):
        plugins.load_module("their_lab.nets.value", place="method.name")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_installed"):
        plugins.load_module("their_lab.broken", place="method.name")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "their_lab.",
        ".nets",
        "their lab.nets",
        "their_lab/nets",
        "their_lab..nets",
        "os.system()",
    ],
)
def test_what_is_no_dotted_path_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="network name must be a dotted path of Python names"):
        plugins.load_module(name, place="network name")


def test_an_imported_package_is_known_by_the_hash_of_its_files_and_its_commit(
    lab: str, tmp_path: Path
) -> None:
    plugins.allow_import(lab)
    plugins._state_of.cache_clear()
    assert lab not in plugins.imported_packages()
    plugins.load_module(f"{lab}.nets", place="method.name")
    before = plugins.imported_packages()[lab]
    assert before["git_commit"] is None
    (tmp_path / lab / "nets.py").write_text("value = 4")
    plugins._state_of.cache_clear()
    after = plugins.imported_packages()[lab]["sha256"]
    assert after != before["sha256"]
    (said,) = plugins.changed_packages({lab: before, "forgotten": before})
    assert (
        f"the package their_lab has changed: its sha256 was {str(before['sha256'])[:12]}," in said
    )
    assert plugins.changed_packages({}) == plugins.changed_packages(None) == []
    # an editor's lock: a link that leads nowhere
    (tmp_path / lab / ".#nets.py").symlink_to("me@machine.42")
    plugins._state_of.cache_clear()
    assert plugins.imported_packages()[lab]["sha256"] == after


def git(folder: Path, *command: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *names, *command], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_commit_is_of_the_checkout_that_tracks_the_file_and_of_no_other(tmp_path: Path) -> None:
    git(tmp_path, "init")
    tracked, installed = tmp_path / "ours.py", tmp_path / ".venv" / "lib" / "theirs.py"
    installed.parent.mkdir(parents=True)
    for file in (tracked, installed):
        file.write_text("value = 1")
    git(tmp_path, "add", "ours.py")
    git(tmp_path, "commit", "-m", "one")
    assert plugins.commit_of(tracked) == git(tmp_path, "rev-parse", "HEAD")[:12]
    assert plugins.commit_of(installed) is None
    tracked.write_text("value = 2")
    plugins.commit_of.cache_clear()
    assert plugins.commit_of(tracked) == git(tmp_path, "rev-parse", "HEAD")[:12] + "-dirty"


def test_a_package_has_its_commit_beside_files_that_git_does_not_track(tmp_path: Path) -> None:
    git(tmp_path, "init")
    package = tmp_path / "lab"
    package.mkdir()
    (package / "__init__.py").touch()
    git(tmp_path, "add", "lab")
    git(tmp_path, "commit", "-m", "one")
    (package / "_version.py").write_text("made = 1")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "plan.txt").touch()
    git(tmp_path, "add", "notes")
    git(tmp_path, "commit", "-m", "two")
    (tmp_path / "notes" / "code.py").touch()
    assert plugins.commit_of(package) == git(tmp_path, "rev-parse", "HEAD")[:12]
    assert plugins.commit_of(tmp_path / "notes") is None
