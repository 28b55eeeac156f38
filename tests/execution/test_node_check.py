import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rkdsearch import data, plugins
from rkdsearch.data.config import DataConfig
from rkdsearch.execution.node_check import NodeCheck, check_node, versions

DIGITS = DataConfig(name="digits")


@pytest.fixture(autouse=True)
def no_package_stays_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_allowed", set(plugins._allowed))


def seen(**changes: Any) -> tuple[str, ...]:
    """Complaints about an order with nothing in it but these."""
    nothing = NodeCheck(versions(), None, "", None, {}, {}, (), gpu=False)
    return check_node(pickle.dumps(replace(nothing, **changes))).complaints


def test_a_node_that_sees_what_the_search_sees_has_no_complaint(tmp_path: Path) -> None:
    (tmp_path / ".doctor-1").write_text("a secret")
    teacher = tmp_path / "teacher.pt"
    teacher.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (
        seen(
            folder=tmp_path,
            probe=".doctor-1",
            images=DIGITS,
            hashes=data.load_training(DIGITS).hashes,
            teachers={str(teacher): empty},
            packages=("tests.search",),
        )
        == ()
    )


def test_versions_are_compared_by_name() -> None:
    (complaint,) = seen(versions={**versions(), "torch": "1.0.0"})
    assert complaint == (
        f"torch is {versions()['torch']}, and 1.0.0 where the search runs: install one lock on all"
        " nodes"
    )


def test_a_folder_that_is_another_disks_is_not_the_studys(tmp_path: Path) -> None:
    (complaint,) = seen(folder=tmp_path, probe=".doctor-1")
    assert complaint.startswith(
        f"does not see {tmp_path} as the search does (No such file or directory): mount the shared"
    )


def test_other_images_and_teachers_are_told_by_their_hashes(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.pt"
    teacher.write_bytes(b"other")
    images, other, gone = seen(
        images=DIGITS,
        hashes={**data.load_training(DIGITS).hashes, "pixels_sha256": "0" * 64},
        teachers={str(teacher): "1" * 64, str(tmp_path / "gone.pt"): "2" * 64},
    )
    assert images.startswith("has other images of digits: pixels_sha256 is ")
    assert other.startswith(f"has another teacher at {teacher}: sha256 is d9298a10d1b0735837dc")
    assert gone.startswith(f"cannot read a teacher: {tmp_path / 'gone.pt'}: cannot be read")


def test_a_package_that_is_not_installed_there_is_named() -> None:
    (complaint,) = seen(packages=("no_such_lab",))
    assert complaint.startswith("no_such_lab cannot be imported: ")
    assert complaint.endswith("; install it on every node")


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="needs a machine without GPU")
def test_a_gpu_that_torch_cannot_use_is_a_complaint() -> None:
    (complaint,) = seen(gpu=True)
    assert complaint.startswith("has a GPU by Ray's count that torch cannot use: ")
