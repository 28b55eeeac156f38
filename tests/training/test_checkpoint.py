import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rkdsearch.errors import CheckpointError, DiskError, FileError
from rkdsearch.training import checkpoint
from rkdsearch.training.state import _optimizer_tensors, _restore_optimizer
from tests.training.runs import described, train


def test_tensors_and_state_come_back_as_they_were(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "b": torch.tensor(3, dtype=torch.int64),
        "c": torch.tensor([1e-300, 2.0], dtype=torch.float64),
    }
    checkpoint.write(tmp_path / "new" / "x.safetensors", tensors, {"history": [1, None, "text"]})
    found, state = checkpoint.read(tmp_path / "new" / "x.safetensors")
    assert state == {"history": [1, None, "text"]}
    assert {name: (t.dtype, t.tolist()) for name, t in found.items()} == {
        name: (t.dtype, t.tolist()) for name, t in tensors.items()
    }


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, {"a": torch.zeros(1000)}, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        CheckpointError,
        match=r"is not a checkpoint of ours, or is damaged .*; put a whole copy in its place,",
    ):
        checkpoint.read(path)


def test_a_file_that_the_system_does_not_give_is_not_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, {"a": torch.zeros(1)}, {"b": 1})
    opened = Path.open

    def stale(self: Path, *arguments: Any) -> Any:
        if self == path:
            raise OSError(errno.ESTALE, "Stale file handle")
        return opened(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", stale)
        for reads in (checkpoint.read, checkpoint.state_of, checkpoint.put_aside):
            with pytest.raises(
                FileError, match=r"last.safetensors: cannot be read: Stale file handle; mend that"
            ):
                reads(path)
    assert checkpoint.read(path)[1] == {"b": 1}


def test_a_pipe_in_a_checkpoints_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "last.safetensors")
    with pytest.raises(CheckpointError, match="or is damaged \\(no plain file\\); put a whole"):
        checkpoint.read(tmp_path / "last.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: there is no such checkpoint"):
        checkpoint.read(tmp_path / "gone.safetensors")


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of ours"):
        checkpoint.read(path)
    checkpoint.write(path, {"a": torch.zeros(1)}, {"b": 1})
    assert path.read_bytes()[8:9] == b"{"  # safetensors' header: plain JSON
    assert b"\x80\x02" not in path.read_bytes()


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, {"a": torch.tensor([1.0])}, {"epoch": 1})
    write = Path.write_bytes

    def half(self: Path, content: bytes) -> int:
        write(self, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        *((Path, "write_bytes", half) if failing == "write_bytes" else (os, "replace", refuse))
    )
    with pytest.raises(
        DiskError,
        match="could not be written: No space left on device; the previous checkpoint is intact",
    ):
        checkpoint.write(path, {"a": torch.tensor([2.0])}, {"epoch": 2})
    monkeypatch.undo()
    found, state = checkpoint.read(path)
    assert (found["a"].tolist(), state) == ([1.0], {"epoch": 1})
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_told_as_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"file: is a file; name a folder$"):
        checkpoint.write(tmp_path / "file" / "last.safetensors", {}, {})


def test_tied_weights_are_kept_under_both_names(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    tied = {"a.weight": whole, "b.weight": whole, "c.weight": whole[2:4]}
    checkpoint.write(tmp_path / "x.safetensors", tied, {})
    found, _ = checkpoint.read(tmp_path / "x.safetensors")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "a.weight": [0, 1, 2, 3, 4, 5], "b.weight": [0, 1, 2, 3, 4, 5], "c.weight": [2, 3],
    }  # fmt: skip


def test_a_long_epochs_files_are_on_the_disk_before_they_are_named(
    teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(any(tmp_path.glob(".tmp-*"))))
    run = train(described(teachers, training={"epochs": 1}), tmp_path)
    assert synced == []  # the epoch of a test is a short one
    run.history[-1] = replace(run.history[-1], seconds=2.0)
    run._save()
    assert synced == [True, True]  # best and last, each by its temporary name


def test_a_step_count_keeps_its_own_type_beside_a_parameter_of_no_dimension_too() -> None:
    def stepped() -> tuple[torch.nn.Parameter, torch.optim.AdamW]:
        number = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        return number, torch.optim.AdamW([number])

    number, optimizer = stepped()
    number.grad = torch.ones_like(number)
    optimizer.step()
    other, restored = stepped()
    _restore_optimizer(restored, _optimizer_tensors(optimizer))
    values, expected = restored.state[other], optimizer.state[number]
    assert values["step"].dtype == expected["step"].dtype == torch.float32
    assert {k: v.tolist() for k, v in values.items()} == {
        k: v.tolist() for k, v in expected.items()
    }


def test_the_old_file_is_whole_until_the_new_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, {"a": torch.tensor([1.0])}, {})
    rename, seen = os.replace, []

    def look(source: Path, target: Path) -> None:
        seen.append(
            (checkpoint.read(path)[0]["a"].tolist(), checkpoint.read(source)[0]["a"].tolist())
        )
        rename(source, target)

    monkeypatch.setattr(os, "replace", look)
    checkpoint.write(path, {"a": torch.tensor([2.0])}, {})
    assert seen == [([1.0], [2.0])]
    assert checkpoint.read(path)[0]["a"].tolist() == [2.0]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_kept_file_stands_under_both_names_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path, seen = tmp_path / "best.safetensors", []
    checkpoint.write(path, {"a": torch.tensor([1.0])}, {}, keep=True)
    assert not checkpoint.kept(path).exists()
    checkpoint.kept(path).write_bytes(b"left over")

    def looking(change: Any) -> Any:
        def looked(*arguments: Any, **options: Any) -> None:
            for when in ("before", "after"):
                seen.append(checkpoint.read(path)[0]["a"].tolist())
                if when == "before":
                    change(*arguments, **options)

        return looked

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", looking(os.link) if links else refuse)
    monkeypatch.setattr(shutil, "copyfile", looking(shutil.copyfile))
    monkeypatch.setattr(os, "replace", looking(os.replace))
    monkeypatch.setattr(Path, "unlink", looking(Path.unlink))
    checkpoint.write(path, {"a": torch.tensor([2.0])}, {}, keep=True)
    assert seen == [[1.0]] * 5 + [[2.0]]
    assert checkpoint.read(checkpoint.kept(path))[0]["a"].tolist() == [1.0]


def test_a_new_file_that_cannot_take_its_name_leaves_the_kept_one_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename = tmp_path / "best.safetensors", os.replace
    checkpoint.write(path, {"a": torch.tensor([1.0])}, {})

    def refuse_the_new_one(source: Path, target: Path) -> None:
        if target == path:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse_the_new_one)
    with pytest.raises(
        DiskError,
        match="could not be written: Input/output error; the previous checkpoint is intact",
    ):
        checkpoint.write(path, {"a": torch.tensor([2.0])}, {}, keep=True)
    assert checkpoint.read(path)[0]["a"].tolist() == [1.0]


def test_a_run_goes_on_on_another_device(teachers: Path, tmp_path: Path) -> None:
    train(described(teachers, training={"device": "auto"}), tmp_path, epochs=1)
    assert len(train(described(teachers, training={"device": "cpu"}), tmp_path).history) == 2


def test_a_checkpoint_that_does_not_say_its_values_is_refused_without_a_field(
    teachers: Path, tmp_path: Path
) -> None:
    train(described(teachers), tmp_path, epochs=1)
    tensors, state = checkpoint.read(tmp_path / "last.safetensors")
    del state["run"]
    checkpoint.write(tmp_path / "last.safetensors", tensors, state)
    with pytest.raises(
        CheckpointError, match="belongs to a run with another config; give this run its own folder"
    ):
        train(described(teachers, optimizer={"lr": 0.06}), tmp_path)
    train(described(teachers), tmp_path)  # its fingerprint is enough to go on


def test_a_teachers_claim_is_no_part_of_the_run(teachers: Path, tmp_path: Path) -> None:
    claimed = {"robust": {"robust_accuracy": 0.9, "clean_accuracy": 0.95}}
    train(described(teachers, teachers=claimed), tmp_path, epochs=1)
    tensors, state = checkpoint.read(tmp_path / "last.safetensors")
    # as an earlier version wrote it
    state["run"]["teachers"]["robust"]["robust_accuracy"] = 0.9
    state["fingerprint"] = "of a run with that claim"
    checkpoint.write(tmp_path / "last.safetensors", tensors, state)
    corrected = {"robust": {"robust_accuracy": 0.5, "trained_on": "train"}}
    assert len(train(described(teachers, teachers=corrected), tmp_path).history) == 2
    assert described(teachers, teachers=claimed).fingerprint() == described(teachers).fingerprint()


def test_a_checkpoint_of_another_run_is_refused_and_not_overwritten(
    teachers: Path, tmp_path: Path
) -> None:
    train(described(teachers), tmp_path, epochs=1)
    before = (tmp_path / "last.safetensors").read_bytes()
    text = (
        r'another config: method\.name was "rslad", is "trades"; give this run its own folder, or'
        r" delete that file"
    )
    with pytest.raises(CheckpointError, match=text):
        train(described(teachers, "trades"), tmp_path)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_a_file_of_somebody_elses_is_refused_in_one_sentence(
    teachers: Path, tmp_path: Path
) -> None:
    train(described(teachers), tmp_path, epochs=1)
    (tmp_path / "last.safetensors").write_bytes((tmp_path / "best.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="belongs to a run with another config"):
        train(described(teachers), tmp_path)


def test_what_a_killed_writer_left_behind_is_swept_away_when_its_run_goes_on(
    teachers: Path, tmp_path: Path
) -> None:
    train(described(teachers), tmp_path, epochs=1)
    (tmp_path / ".part-last.safetensors-0123").write_bytes(b"half")
    train(described(teachers), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"last.safetensors", "best.safetensors"}


def test_a_run_from_before_the_margin_attack_resumes_with_the_attack_that_it_had(
    teachers: Path, tmp_path: Path
) -> None:
    papers = {"attack": {"objective": "cross_entropy", "eps": 0.1, "steps": 1}, "images": 30}
    train(described(teachers, validation=papers), tmp_path, epochs=1)
    tensors, state = checkpoint.read(tmp_path / "last.safetensors")
    del state["run"]["validation"]["attack"]["objective"]  # the field did not exist
    state["fingerprint"] = "of a run without that field"
    checkpoint.write(tmp_path / "last.safetensors", tensors, state)
    text = 'another config: validation.attack.objective was "cross_entropy", is "margin"'
    with pytest.raises(CheckpointError, match=text):
        train(described(teachers), tmp_path)
    assert len(train(described(teachers, validation=papers), tmp_path).history) == 2


def test_two_damaged_checkpoints_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    for content, name in ((b"one", "last.safetensors.damaged"), (b"two", f"{path.name}.damaged-2")):
        path.write_bytes(content)
        said = f"{path} was damaged and is put aside as {tmp_path / name}"
        assert checkpoint.put_aside(path) in (said, said.replace(str(tmp_path / name), name))
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert kept == {"last.safetensors.damaged": b"one", "last.safetensors.damaged-2": b"two"}
