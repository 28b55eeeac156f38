from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rkdsearch
from rkdsearch.config import TeacherConfig
from rkdsearch.data import load_training
from rkdsearch.data.config import DataConfig
from rkdsearch.errors import FileError, RkdError
from rkdsearch.local_path import local_path, missing_folders
from rkdsearch.space.space import SearchSpace
from tests.search.files import SMALL, write_space

WAY_OUT = (
    " is not supported; name a path that all nodes mount (NFS, EFS, Filestore, Lustre), and copy"
    " from there or to there yourself"
)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("s3://bucket/study", "s3://bucket/study: s3://"),
        (Path("s3://bucket/study"), "s3://bucket/study: s3://"),
        (Path("s3a://bucket"), "s3a://bucket: s3a://"),
        ("hdfs:///x", "hdfs:///x: hdfs://"),
        ("https://a.b/c.pt", "https://a.b/c.pt: https://"),
    ],
)
def test_a_url_is_refused_by_its_name_also_where_a_path_has_lost_a_slash(
    given: str | Path, said: str
) -> None:
    with pytest.raises(FileError) as error:
        local_path(given)
    assert str(error.value) == said + WAY_OUT


def test_a_folder_whose_name_ends_with_a_colon_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("ab:/new") == Path("ab:/new")
    (tmp_path / "ab:" / "c").mkdir(parents=True)
    for path in ("ab:/c", "ab:/new", "rkdsearch:digits", "/x:/y"):
        assert local_path(path) == local_path(Path(path)) == Path(path)


@pytest.mark.parametrize(
    ("name", "reason"), [("a" * 256, "File name too long"), ("loop/x", "Too many levels of symb")]
)
def test_what_the_system_refuses_is_one_sentence(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FileError, match=rf"^{tmp_path / name}: cannot be reached: {reason}"):
        local_path(tmp_path / name)


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "below", tmp_path / "a" / "b"):
        assert local_path(place) == place
    assert missing_folders(tmp_path / "a" / "b") == [tmp_path / "a" / "b", tmp_path / "a"]


def test_the_functions_for_notebooks_refuse_a_url_and_make_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    run = rkdsearch.build_config({"method.name": "natural"})
    calls: tuple[Callable[[Any], object], ...] = (
        lambda url: rkdsearch.tune(url, "s", trials=2),
        lambda url: rkdsearch.tune("rkdsearch:digits", url, trials=2),
        lambda url: rkdsearch.tune("rkdsearch:digits", "s", trials=2, warm_start=url),
        rkdsearch.evaluate,
        lambda url: rkdsearch.report("study", out=url),
        lambda url: rkdsearch.export("study", out=url),
        rkdsearch.read_study,
        rkdsearch.load_config,
        rkdsearch.SearchSpace.load,
        lambda url: rkdsearch.Trainer(run, url),
        lambda url: rkdsearch.write_images(url, ([], [])),
    )
    for call in calls:
        for url in ("s3://bucket/x", Path("s3://bucket/x")):
            with pytest.raises(RkdError, match=r"s3://bucket/x: s3:// is not supported; name a pa"):
                call(url)
    assert [file.name for file in tmp_path.iterdir()] == ["study"]


@pytest.mark.parametrize("place", [3, None, ["a"]])
def test_what_is_no_path_is_refused_in_a_sentence(place: Any) -> None:
    with pytest.raises(FileError, match="a path must be text or a Path, got "):
        local_path(place)


def test_a_tilde_is_the_users_home_folder_wherever_a_path_may_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert local_path("~/x") == tmp_path / "me" / "x"
    pixels = np.arange(20 * 8 * 8, dtype=np.uint8).reshape(20, 8, 8, 1)
    rkdsearch.write_images("~/images", (pixels, np.arange(20) % 2))
    assert (tmp_path / "me" / "images").is_dir()
    found = DataConfig.model_validate({"name": "parquet:~/images", "validation_fraction": 0.5})
    assert len(load_training(found).train) == 10
    assert TeacherConfig(path="~/t.pt").path == str(tmp_path / "me" / "t.pt")
    write_space(tmp_path / "me", "base.yaml")
    write_space(tmp_path / "here", "child.yaml", **dict.fromkeys(SMALL), extends="~/base.yaml")
    assert SearchSpace.load(tmp_path / "here" / "child.yaml").epochs == 4
    assert list((tmp_path / "here").iterdir()) == [tmp_path / "here" / "child.yaml"]


def test_an_empty_path_is_not_the_working_directory() -> None:
    with pytest.raises(FileError, match="a path must name a file or folder, got an empty text"):
        local_path("")
    assert local_path(".") == Path()


def test_the_home_of_nobody_is_a_sentence() -> None:
    law = r"~nobody-at-all/x: no user of this name has a home folder here; name the folder itself"
    with pytest.raises(FileError, match=law):
        local_path("~nobody-at-all/x")
    with pytest.raises(ValueError, match=law):
        TeacherConfig(path="~nobody-at-all/x")
