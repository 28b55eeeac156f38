"""Exit codes: 2 and one sentence where the user must change something, 1 for a bug of ours."""

import os
import re
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from rkdsearch import config
from rkdsearch.__main__ import main
from rkdsearch.cli import options
from rkdsearch.errors import ConfigError, StudyError
from rkdsearch.execution import doctor, placement, teachers
from rkdsearch.file_lock import one_writer
from rkdsearch.search import study_file, warm_start
from rkdsearch.search.study import Study
from tests.search.files import SMALL, load_space, write_space

# The command line is called as a shell calls it: its words stand in sys.argv.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Cyclopts application invoked without tokens:UserWarning"
)


def rkdsearch(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["rkdsearch", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"search": {**SMALL["search"], "optimizer.lrr": {"float": [0.1, 0.2]}}},
            "unknown field optimizer.lrr; did you mean 'lr'?",
        ),
        ({"search": {"optimizer.lr": {"float": [0.2, 0.1]}}}, "low <= high must hold"),
        ({"fixed": {**SMALL["fixed"], "method.name": "tradez"}, "search": {}}, "tradez"),
        ({"sampler": {"name": "anneal"}}, "sampler.name must be 'tpe'"),
        ({"extends": "gone.yaml"}, "gone.yaml: there is no such file"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [("tune", "--trials", 2, "--study", "s"), ("space", "check")],
    ids=["tune", "space check"],
)
def test_a_wrong_space_is_one_sentence_and_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: tuple[object, ...], changes: dict[str, Any], sentence: str,
) -> None:  # fmt: skip
    file = write_space(tmp_path, **{"first": [], **changes})
    assert rkdsearch(monkeypatch, *command, file) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tune", "gone.yaml", "--trials", 2, "--study", "s"), "gone.yaml: there is no such file"),
        (
            ("tune", "SPACE", "--study", "s"),
            "needs exactly one of --trials and --device-hours, got neither",
        ),
        (
            ("tune", "SPACE", "--study", "s", "--trials", 2, "--device-hours", 1),
            "needs exactly one of --trials and --device-hours, got both",
        ),
        (("tune", "SPACE", "--study", "s", "--trials", 0), "--trials must be >= 1, got 0"),
        (
            ("tune", "SPACE", "--study", "s", "--trials", 10**9, "--dry-run"),
            "--trials must be <= 1,000,000, got 1000000000",
        ),
        (
            ("tune", "SPACE", "--study", "s", "--device-hours", 0),
            "--device-hours must be > 0, got 0",
        ),
        (
            ("tune", "SPACE", "--study", "STUDY", "--trials", 2),
            "holds a study already; continue it with --resume",
        ),
        (("space", "check"), "name one or more files"),
        (("evaluate", "nowhere"), "nowhere"),
        (("tune", "SPACE", "--study", "s", "--trails", 2), "--trails"),
    ],
)
def test_a_wrong_command_is_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    space = load_space(tmp_path)
    study_file.describe(tmp_path / "study", space, {})
    named = {"SPACE": tmp_path / "small.yaml", "STUDY": tmp_path / "study"}
    assert rkdsearch(monkeypatch, *(named.get(str(a), a) for a in arguments)) == 2
    said = capsys.readouterr()
    assert sentence in said.err + said.out
    assert "Traceback" not in said.err + said.out


@pytest.mark.parametrize(
    "command", [("train",), ("teacher", "verify"), ("teacher", "train")], ids=" ".join
)
def test_an_override_counts_wherever_it_stands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("method: {name: pgd_at}\n", encoding="utf-8")
    words = ["run.yaml", "--allow-import", "tests.strangers", "optimizer.lr=-5"]
    assert rkdsearch(monkeypatch, *command, *words) == 2
    assert capsys.readouterr().err == "run.yaml: optimizer.lr must be > 0, got -5\n"


@pytest.mark.parametrize("word", ["data.name=folder:", "data.name=folder: images"])
def test_a_value_that_yaml_makes_a_section_is_told_how_to_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    (tmp_path / "run.yaml").write_text("method: {name: pgd_at}\n", encoding="utf-8")
    assert rkdsearch(monkeypatch, "train", tmp_path / "run.yaml", word) == 2
    assert re.fullmatch(
        r"data.name: a colon .* makes 'folder:.*' a section; .*, such as data.name=folder:PATH, or"
        r" .*\n",
        capsys.readouterr().err,
    )
    assert options.parsed(["data={name: digits}", "data.name=folder:images"]) == {
        "data": {"name": "digits"},
        "data.name": "folder:images",
    }
    with pytest.raises(ConfigError, match=r"^optimizer.lr=0.2: optimizer.lr is given twice on the"):
        options.parsed(["optimizer.lr=0.1", "optimizer.lr=0.2"])


def test_ctrl_c_is_130_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load", interrupted)
    assert rkdsearch(monkeypatch, "train", tmp_path / "run.yaml") == 130
    said = capsys.readouterr()
    assert (
        said.err == "interrupted; finished epochs and evaluations are kept: repeat the command to"
        " continue\n"
    )
    assert said.out == ""


def test_sigterm_is_ctrl_c_with_143(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(config, "load", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        assert rkdsearch(monkeypatch, "train", tmp_path / "run.yaml") == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.startswith("interrupted; finished epochs and evaluations are")


@pytest.mark.parametrize("command", ["train", "tune", "evaluate"])
def test_help_shows_no_flag_without_a_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert rkdsearch(monkeypatch, command, "--help") == 0
    help_text = capsys.readouterr().out
    assert "--allow-import" in help_text
    assert "--empty" not in help_text


def test_a_bug_of_ours_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*arguments: object, **more: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(study_file, "claim", bug)
    with pytest.raises(ZeroDivisionError):
        rkdsearch(
            monkeypatch, "tune", write_space(tmp_path), "--trials", 2, "--study", tmp_path / "s"
        )


def test_a_dry_run_prints_the_ladder_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "s"
    assert (
        rkdsearch(
            monkeypatch,
            "tune",
            write_space(tmp_path),
            "--trials",
            10,
            "--study",
            study,
            "--dry-run",
        )
        == 0
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "expected cost: about 4.5 full runs for 10 configurations (moasha, promotion)" in printed
    assert re.search(
        r"a full run takes about \d+ s on this machine \(from short timings of 3 methods\):"
        r" about \d+ s of device time",
        printed,
    )
    assert not study.exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fixed": {**SMALL["fixed"], "data": {"name": "cifar10", "root": "nowhere"}}}, "nowhere"),
        (
            {
                "fixed": {**SMALL["fixed"], "teachers.robust.path": "gone.pt"},
                "search": {"method.name": {"choice": ["rslad"]}},
                "first": [],
            },
            "gone.pt: cannot be read: No such file or directory; check the path",
        ),
        ({"resources": {"cpu": 1000}}, "asks 1000 CPU, and this machine has"),
    ],
    ids=["images", "teacher", "machine"],
)
@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "start"])
def test_what_is_not_there_is_found_out_before_anything_is_spent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    sentence: str,
    dry: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(teachers, "prepare", None)
    assert (
        rkdsearch(
            monkeypatch,
            "tune",
            write_space(tmp_path, **changes),
            "--trials",
            2,
            "--study",
            "s",
            *["--dry-run"] * dry,
        )
        == 2
    )
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("s/study.json").exists()


def test_a_dry_run_looks_at_the_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study_file.describe(tmp_path / "study", load_space(tmp_path), {})
    tune = (
        "tune",
        tmp_path / "small.yaml",
        "--trials",
        2,
        "--study",
        tmp_path / "study",
        "--dry-run",
    )
    assert rkdsearch(monkeypatch, *tune) == 2
    assert "holds a study already; continue it with --resume" in capsys.readouterr().err
    assert rkdsearch(monkeypatch, *tune, "--resume") == 0
    assert "the forecast is of the whole search: what this study has" in capsys.readouterr().out


def test_a_space_that_cannot_continue_a_study_leaves_its_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    study_file.describe(folder, load_space(tmp_path), {})
    before = (folder / "study.json").read_bytes()
    file = write_space(tmp_path, first=[])

    def unreadable(*_: object) -> None:
        assert (folder / "study.json").read_bytes() != before
        raise StudyError("a trial that is not over cannot be read by this space")

    monkeypatch.setattr(Study, "reconcile", unreadable)
    tune = ("tune", file, "--trials", 2, "--study", folder, "--resume")
    assert rkdsearch(monkeypatch, *tune) == 2
    assert "cannot be read by this space" in capsys.readouterr().err
    assert (folder / "study.json").read_bytes() == before


def test_a_study_that_is_being_searched_is_not_searched_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with one_writer(tmp_path / "study"):
        assert (
            rkdsearch(
                monkeypatch,
                "tune",
                write_space(tmp_path),
                "--trials",
                2,
                "--study",
                tmp_path / "study",
                "--resume",
            )
            == 2
        )
    assert f"study: is being searched by process {os.getpid()} on " in capsys.readouterr().err


def test_of_several_spaces_the_one_with_an_illegal_corner_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (
        write_space(tmp_path),
        write_space(
            tmp_path,
            "bad.yaml",
            search={**SMALL["search"], "optimizer.momentum": {"float": [0.5, 1.5]}},
        ),
    )
    assert rkdsearch(monkeypatch, "space", "check", good, bad) == 2
    assert capsys.readouterr().err.startswith(
        f"{bad}: search.method.name at 'pgd_at': optimizer.momentum must be < 1, got 1.08"
    )


def test_what_to_type_after_ctrl_c_has_every_word_that_the_search_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(placement, "available_resources", lambda *_: nullcontext())
    monkeypatch.setattr(doctor, "check_cluster", lambda *_: None)
    monkeypatch.setattr(teachers, "prepare", interrupted)
    file = write_space(tmp_path / "my spaces")
    words = (
        "--trials",
        2,
        "--study",
        tmp_path / "s",
        "--no-journal",
        "--address",
        "10.0.0.1:6379",
        "--allow-import",
        "tests.search",
        "--allow-import",
        "tests.strangers",
    )
    assert rkdsearch(monkeypatch, "tune", file, *words) == 130
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.endswith(
        f"Continue with: rkdsearch tune '{file}' --trials 2 --study {tmp_path / 's'} --resume"
        " --no-journal --address 10.0.0.1:6379 --allow-import tests.search --allow-import"
        " tests.strangers\n"
    )


@pytest.mark.parametrize("kept", [False, True])
def test_what_to_type_names_the_earlier_study_until_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kept: bool
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        if kept:
            warm_start.save(tmp_path / "s", given)
        raise KeyboardInterrupt

    monkeypatch.setattr(placement, "available_resources", lambda *_: nullcontext())
    given = warm_start.WarmStart([], tmp_path / "earlier")
    monkeypatch.setattr(warm_start, "prepare", lambda *_, **__: given)
    monkeypatch.setattr(warm_start, "keep", interrupted)
    words = ("--trials", 2, "--study", tmp_path / "s", "--warm-start", tmp_path / "earlier")
    assert rkdsearch(monkeypatch, "tune", write_space(tmp_path), *words) == 130
    assert capsys.readouterr().out.endswith(
        "--resume\n" if kept else f"--resume --warm-start {tmp_path / 'earlier'}\n"
    )


def test_show_and_sample_print_the_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_space(tmp_path)
    assert rkdsearch(monkeypatch, "space", "show", file) == 0
    assert (
        "method.consistency_weight: FloatDistribution(high=9.0, log=True, low=0.5, step=None) where"
        " method.name in ['trades']" in capsys.readouterr().out
    )
    assert rkdsearch(monkeypatch, "space", "sample", file, "--count", 2) == 0
    assert capsys.readouterr().out.count("method.name:") == 2


URL = "s3://bucket/x.safetensors"


@pytest.mark.parametrize(
    "command",
    [
        f"report study --out {URL}",
        f"export study --out {URL}",
        f"teacher convert small.yaml {URL}",
        f"teacher convert {URL} out.safetensors",
        f"evaluate small.yaml --out {URL}",
        f"evaluate {URL}",
        f"status {URL}",
        f"reproduce {URL}",
        f"enqueue {URL} optimizer.lr=0.1",
        f"space check small.yaml {URL}",
        f"train {URL}",
        f"tune small.yaml --trials 2 --study {URL}",
        f"tune small.yaml --trials 2 --study s --warm-start {URL}",
        f"doctor --study {URL}",
        f"cluster slurm --space small.yaml --trials 2 --study {URL}",
    ],
)
def test_object_storage_is_refused_by_its_name_and_no_folder_of_that_name_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    study_file.describe(tmp_path / "study", load_space(tmp_path), {})
    assert rkdsearch(monkeypatch, *command.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{URL}: s3:// is not supported; name a path that all nodes mount")
    assert said.err.count("\n") == 1
    assert {file.name for file in tmp_path.iterdir()} == {"small.yaml", "study"}


@pytest.mark.parametrize(
    "fixed",
    [
        {"data": {"name": "cifar10", "root": "s3://b/c"}},
        {"data.name": "parquet:s3://b/c"},
        {"data.name": "folder:s3://b/c"},
        {"data.name": "s3://b/c"},
        {"data.extra": "s3://b/c", "data.extra_fraction": 0.5},
        {"data": {"name": "folder:x", "cache": "s3://b/c"}},
        {"teachers.robust.path": "s3://b/c"},
    ],
)
def test_a_url_in_a_space_is_found_by_its_check(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fixed: dict[str, Any],
) -> None:
    space = {name: value for name, value in SMALL["fixed"].items() if name != "data"}
    file = write_space(tmp_path, fixed={**space, **fixed})
    assert rkdsearch(monkeypatch, "space", "check", file) == 2
    assert re.search(
        r": (data|teachers)\S* (\w+: )?s3://b/c: s3:// is not supported; name a path",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize("changes", [{"extends": "s3://b/c"}, {"first": [{"study": "s3://b/c"}]}])
def test_a_url_of_another_space_or_study_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
) -> None:
    assert rkdsearch(monkeypatch, "space", "check", write_space(tmp_path, **changes)) == 2
    assert "s3://b/c: s3:// is not supported; name a path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--warm-start", "nowhere"], "nowhere: --warm-start needs a study"),
        (["--warm-start", "nowhere", "--dry-run"], "nowhere: --warm-start needs a study"),
        (["--address", "127.0.0.1:1"], "nobody answers at 127.0.0.1:1"),
    ],
)
@pytest.mark.parametrize("there", [[], ["old"], ["old", "old/file"]], ids=len)
def test_a_search_that_is_refused_leaves_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
    there: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in there:
        Path(name).write_text("") if "/" in name else Path(name).mkdir()
    space = write_space(tmp_path / "spaces")
    study = "old" if there else "old/new/study"
    assert rkdsearch(monkeypatch, "tune", space, "--trials", 2, "--study", study, *words) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*")) == sorted(
        [*there, "spaces", "spaces/small.yaml"]
    )


@pytest.mark.parametrize(
    "command", ["status NAME", "tune NAME --trials 2 --study s --dry-run", "report s --out NAME"]
)
def test_a_name_that_the_system_refuses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    name = "a" * 256
    assert rkdsearch(monkeypatch, *command.replace("NAME", name).split()) == 2
    assert capsys.readouterr().err.startswith(f"{name}: cannot be reached: File name too long; ")
