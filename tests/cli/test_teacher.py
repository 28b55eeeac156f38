"""`rkdsearch teacher`: train once, measure with n and intervals, check claims, convert files."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typing_extensions import override

from rkdsearch import config as run
from rkdsearch.cli.teacher import convert, train, verify
from rkdsearch.cli.train import train as train_run
from rkdsearch.errors import ConfigError, TeacherError
from rkdsearch.results.flags import Flag
from rkdsearch.results.store import Store
from rkdsearch.teacher import fingerprint

CONFIG = """
method: {name: rslad}
data: {name: digits, validation_fraction: 0.3}
student: {name: small_cnn, width: 4}
validation:
  attack: {objective: cross_entropy, eps: 0.05, steps: 2, relative_step_size: 0.5}
  images: 200
training: {epochs: 1, device: cpu}
teachers:
  robust:
    network: {name: mlp, width: 16}
    recipe:
      method: {name: natural}
      optimizer: {lr: 0.1}
      training: {epochs: 3, device: cpu}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the recipe's teacher."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "run.yaml").write_text(CONFIG, encoding="utf-8")
    train(folder / "run.yaml", cache=folder / "cache")
    return folder / "cache"


def weights_of(cache: Path) -> Path:
    (file,) = cache.glob("*/best.safetensors")
    return file


def test_a_recipe_is_followed_once(
    config: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = weights_of(trained).stat().st_mtime_ns
    train(config, cache=trained)
    out = capsys.readouterr().out
    assert "is trained already, 3 epochs" in out
    assert f"teachers.robust.sha256: {fingerprint(weights_of(trained))}" in out
    assert weights_of(trained).stat().st_mtime_ns == before


def test_of_several_processes_that_find_a_trained_teacher_one_measures_it_and_speaks(
    config: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rkdsearch.training.run.is_first_process", lambda: False)
    train(config, cache=trained)
    assert capsys.readouterr().out == ""


def test_train_and_teacher_train_know_each_others_teachers(
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    train(config)
    train_run(config)
    assert not (tmp_path / "runs" / "run" / "teachers").exists()
    (row,) = Store(tmp_path / "runs" / "run").trials().to_dict("records")
    assert row["config.teachers.robust.path"] == str(weights_of(tmp_path / "teachers"))
    shutil.move("teachers", tmp_path / "runs" / "run")
    capsys.readouterr()
    verify(config)
    assert str(Path("runs", "run", "teachers")) in capsys.readouterr().out
    train_run(config, folder=Path("elsewhere"))
    # neither its own nor in ./teachers: trained anew
    assert (tmp_path / "elsewhere" / "teachers").is_dir()


def test_another_recipe_is_another_teacher(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for epochs in (1, 2):
        train(config, f"teachers.robust.recipe.training.epochs={epochs}", cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*/best.safetensors"))) == 2
    assert "epoch   2 of 2" in capsys.readouterr().out


def test_a_role_without_a_recipe_cannot_be_trained(config: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TeacherError, match=r"run.yaml: teachers.natural has no recipe to train by; give it one"
    ):
        train(config, role="natural", cache=tmp_path / "cache")
    with pytest.raises(TeacherError, match=r"teachers.robust has no recipe to train by"):
        train(config, "teachers.robust.path=somewhere.pt", cache=tmp_path / "cache")


def test_verify_prints_n_and_the_interval_of_both_accuracies(
    config: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(config, cache=trained)
    out = capsys.readouterr().out.splitlines()
    assert (
        out[0] == "validation attack: linf, eps 0.05 of [0, 1], PGD-2, restarts 1; images of digits"
    )
    assert fingerprint(weights_of(trained)) in out[1]
    assert out[4:6] == [
        "  on validation images, held out from its training",
        "  signs of a failed attack, on 200 images:",
    ]
    signs = {line.split()[0]: line.split(maxsplit=1)[1] for line in out[6:]}
    assert list(signs) == [flag.value for flag in Flag]
    assert signs["random"] == "0 images"
    assert signs["autoattack_below"] == "not checked"
    clean, robust = (line.split() for line in out[2:4])
    assert (clean[0], robust[0]) == ("clean", "robust")
    for line in (clean, robust):
        right, images = map(int, line[1].split("/"))
        assert images == 200
        assert float(line[3]) == pytest.approx(right / 200, abs=0.0006)
        low, high = (float(end.strip("[],")) for end in line[-2:])
        assert low < right / 200 < high
    assert int(clean[1].split("/")[0]) > int(robust[1].split("/")[0])


def test_a_teacher_that_hides_its_gradient_is_an_error_although_its_claim_holds(
    config: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = "teachers.robust.network.name=tests.training.networks.RoundedMLP"
    with pytest.raises(
        TeacherError,
        match=r"teachers.robust: its robust accuracy is not to be .*zero_gradients: the ",
    ):
        verify(
            config,
            f"teachers.robust.path={weights_of(trained)}",
            hidden,
            "teachers.robust.network.width=null",
            "teachers.robust.robust_accuracy=0.5",
            allow_import=("tests",),
        )
    assert re.search(r"FLAG zero_gradients +[1-9]\d+ images", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["clean_accuracy", "robust_accuracy"])
def test_a_claim_that_the_images_refute_is_an_error(
    name: str, config: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        TeacherError,
        match=rf"teachers.robust: {name} is claimed to be 0.990 and was measured as 0\.\d+ on 200",
    ):
        verify(config, f"teachers.robust.{name}=0.99", cache=trained)
    assert "claimed 0.990" in capsys.readouterr().out


def test_a_claim_that_the_images_support_is_believed(
    config: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(config, cache=trained)
    clean = float(capsys.readouterr().out.splitlines()[2].split()[3])
    verify(config, f"teachers.robust.clean_accuracy={clean}", cache=trained)
    assert f"claimed {clean:.3f}" in capsys.readouterr().out


def test_a_teacher_that_is_better_than_claimed_is_believed_and_suspected(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(config, "teachers.robust.clean_accuracy=0.05", cache=trained)
    assert "claimed 0.050, and better here\n" in capsys.readouterr().out
    torch.save(load_file(weights_of(trained)), tmp_path / "theirs.pt")
    verify(
        config,
        "teachers.robust.clean_accuracy=0.05",
        f"teachers.robust.path={tmp_path / 'theirs.pt'}",
    )
    assert (
        "perhaps not held out: these images may be among those it was trained on, and its accuracy"
        " here may be optimistic" in capsys.readouterr().out
    )


def test_a_teacher_that_is_not_there_yet_is_named_with_its_command(
    config: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        TeacherError,
        match=(
            r"teachers.robust is a recipe and not trained yet, neither in .*cache nor in"
            r" runs.run.teachers; "
            r"`rkdsearch teacher train .*run.yaml --role robust` does it"
        ),
    ):
        verify(config, cache=tmp_path / "cache")
    bare = tmp_path / "bare.yaml"
    bare.write_text("method: {name: trades}", encoding="utf-8")
    with pytest.raises(
        TeacherError, match=r"bare.yaml: names no teacher; set teachers.robust.path"
    ):
        verify(bare)


@pytest.mark.parametrize(
    ("text", "law"),
    [
        ("eps", "section.field=value"),
        ("=3", "section.field=value"),
        ("attack.eps=[", "is not YAML"),
    ],
)
def test_an_override_that_is_none_is_an_error(text: str, law: str, config: Path) -> None:
    with pytest.raises(ConfigError, match=law):
        verify(config, text)


def test_a_foreign_file_becomes_safetensors_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tied = torch.tensor([[1.0, -0.0], [3.5, 1e-30]])
    state = {
        "module.a.weight": tied,
        "module.b.weight": tied,
        "module.half": torch.tensor([0.1], dtype=torch.float16),
    }
    torch.save({"state_dict": state, "epoch": 7}, tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "new" / "ours.safetensors")
    found = load_file(tmp_path / "new" / "ours.safetensors")
    assert found.keys() == state.keys()
    assert all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in state.items()
    )
    assert (
        capsys.readouterr()
        .out.rstrip()
        .endswith(fingerprint(tmp_path / "new" / "ours.safetensors"))
    )
    assert "3 tensors, 9 numbers" in _last(tmp_path, capsys, again=tmp_path / "twice.safetensors")


def test_convert_writes_the_entry_that_is_asked_for_and_names_those_it_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, averaged = {"a": torch.zeros(2)}, {"a": torch.ones(2)}
    torch.save({"model": weights, "model_ema": averaged, "epoch": 3}, tmp_path / "both.pt")
    convert(tmp_path / "both.pt", tmp_path / "last.safetensors")
    assert "read 'model'; left: model_ema, epoch" in capsys.readouterr().out
    convert(tmp_path / "both.pt", tmp_path / "ema.safetensors", key="model_ema")
    assert "read 'model_ema'; left: model, epoch" in capsys.readouterr().out
    assert load_file(tmp_path / "ema.safetensors")["a"].tolist() == [1, 1]


def _last(folder: Path, capsys: pytest.CaptureFixture[str], *, again: Path) -> str:
    convert(folder / "new" / "ours.safetensors", again)
    return capsys.readouterr().out


def test_a_converted_teacher_measures_as_the_original(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = run.load(config).teachers.robust
    assert described is not None
    torch.save(load_file(weights_of(trained)), tmp_path / "theirs.pt")
    convert(tmp_path / "theirs.pt", tmp_path / "safe.safetensors")
    capsys.readouterr()
    lines = []
    for path in (weights_of(trained), tmp_path / "theirs.pt", tmp_path / "safe.safetensors"):
        verify(config, f"teachers.robust.path={path}")
        lines.append(capsys.readouterr().out.splitlines()[2:4])
    assert lines[0] == lines[1] == lines[2]


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    class Evil:
        @override
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": Evil()}, tmp_path / "theirs.pth")
    with pytest.raises(TeacherError, match="holds more than weights"):
        convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "ours.safetensors").exists()


def test_convert_neither_overwrites_nor_misnames(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "theirs.pth")
    (tmp_path / "there.safetensors").write_bytes(b"precious")
    with pytest.raises(
        TeacherError, match=r"there.safetensors: exists already and is not overwritten"
    ):
        convert(tmp_path / "theirs.pth", tmp_path / "there.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == b"precious"
    with pytest.raises(TeacherError, match=r"must be named so; call it ours.safetensors"):
        convert(tmp_path / "theirs.pth", tmp_path / "ours.pt")
