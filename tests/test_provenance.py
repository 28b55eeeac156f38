import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rkdsearch import provenance

ROOT = Path(__file__).parents[1]


def test_versions_name_python_and_the_packages_that_touch_a_number() -> None:
    found = provenance.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "numpy", "scipy", "pyautoattack", "optuna", "ray"} <= found.keys()


def test_the_command_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/rkdsearch/__main__.py", "tune", "my space.yaml"])
    assert provenance.command() == "rkdsearch tune 'my space.yaml'"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/rkdsearch", "evaluate", "s", "--trials", "3"])
    assert provenance.command() == "rkdsearch evaluate s --trials 3"


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def of_copy(package: Path) -> tuple[str | None, str | None]:
    """Commit and fingerprint of the changes, as a copy of the module says them."""
    code = (
        "from rkdsearch import provenance as p; print(p.git_commit()); print(p.git_diff_sha256())"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=package.parent, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    commit, changes = (None if line == "None" else line for line in done.stdout.splitlines())
    return commit, changes


def copied(package: Path) -> Path:
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(provenance.__file__, package)
    return package


def test_a_checkout_of_ours_has_its_commit_and_the_fingerprint_of_its_changes(
    tmp_path: Path,
) -> None:
    package = copied(tmp_path / "rkdsearch")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "rkdsearch"\n')
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert of_copy(package) == (commit, None)
    (package / "__init__.py").write_text("x = 1\n")
    dirty, changed = of_copy(package)
    (package / "new.py").write_text("x = 1\n")
    again, more = of_copy(package)
    assert dirty == again == f"{commit}-dirty"
    assert changed is not None
    assert more not in (None, changed)
    # an editor's lock is no file, and has no content
    (package / ".#new.py").symlink_to("me@machine.42")
    assert of_copy(package) == (again, more)
    (package / "größe.py").write_text("x = 1\n")
    assert of_copy(package)[1] not in (None, changed, more)


@pytest.mark.parametrize("place", [".venv/lib/rkdsearch", "rkdsearch", "vendored/rkdsearch"])
def test_inside_another_projects_repository_there_is_no_commit_of_ours(
    tmp_path: Path, place: str
) -> None:
    package = copied(tmp_path / place)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    (tmp_path / ".gitignore").write_text(".venv\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    assert of_copy(package) == (None, None)
