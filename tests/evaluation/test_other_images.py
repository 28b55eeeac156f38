from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from rkdsearch.data import load_training
from rkdsearch.errors import ConfigError, DataError, RkdError
from rkdsearch.evaluation.images import EvaluatedImages
from rkdsearch.evaluation.other_images import image_sets
from rkdsearch.task import ImageTask
from rkdsearch.training import checkpoint
from tests.data.files import png, write_parquet
from tests.evaluation.files import target

NETWORK = replace(target("t"), task=ImageTask(2, 1, 4, 4), classes=("cat", "dog"))
GREY = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([0, 1, 1, 0, 1, 0])


def sets(spec: str, severities: tuple[int, ...] = (), **overrides: Any) -> list[EvaluatedImages]:
    given = {f"data.{name}": value for name, value in overrides.items()}
    return image_sets(spec, given, severities, [NETWORK], None)


def write_folder(root: Path, names: tuple[str, str] = ("cat", "dog")) -> Path:
    for i, (image, k) in enumerate(zip(GREY, LABELS, strict=True)):
        (root / names[k]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / names[k] / f"{i}.png")
    return root


@pytest.mark.parametrize("names", [("cat", "dog"), ("0", "1")])
@pytest.mark.parametrize("inside", [".", "test"])
def test_folders_are_the_networks_classes_by_name_or_by_number(
    tmp_path: Path, names: tuple[str, str], inside: str
) -> None:
    write_folder(tmp_path / inside, names)
    (found,) = sets(f"folder:{tmp_path}")
    assert (found.split, found.name, found.task) == ("other", f"folder:{tmp_path}", NETWORK.task)
    assert found.pixels.labels.tolist() == [0, 0, 0, 1, 1, 1]
    order = [0, 3, 5, 1, 2, 4]
    np.testing.assert_array_equal(found.pixels.pixels[..., 0], GREY[order])


def test_parquet_npz_and_npy_hold_the_same_images(tmp_path: Path) -> None:
    files = sorted(write_folder(tmp_path / "images").rglob("*.png"), key=lambda f: f.stem)
    rows = [{"bytes": file.read_bytes(), "path": None} for file in files]
    pq.write_table(pa.table({"img": rows, "label": LABELS}), tmp_path / "test-0.parquet")
    np.savez(tmp_path / "a.npz", x_test=GREY, y_test=LABELS)
    np.savez(tmp_path / "b.npz", images=(GREY / 255).astype("f4")[..., None], labels=LABELS)
    for spec in (
        f"parquet:{tmp_path}",
        f"parquet:{tmp_path / 'test-0.parquet'}",
        f"npz:{tmp_path / 'a.npz'}",
        str(tmp_path / "b.npz"),
    ):
        (found,) = sets(spec)
        np.testing.assert_array_equal(found.pixels.pixels[..., 0], GREY)
        assert found.pixels.labels.tolist() == LABELS.tolist()


def write_severities(folder: Path, labels: np.ndarray) -> None:
    for n, name in enumerate(("fog", "snow")):
        np.save(folder / f"{name}.npy", np.concatenate([GREY + 10 * s + n for s in range(5)]))
    np.save(folder / "labels.npy", labels)


@pytest.mark.parametrize("labels", [np.tile(LABELS, 5), LABELS], ids=["of all", "of one"])
def test_the_layout_of_cifar10_c_is_a_set_a_corruption_and_severity(
    tmp_path: Path, labels: np.ndarray
) -> None:
    write_severities(tmp_path, labels)
    found = sets(f"npy:{tmp_path}")
    assert len(found) == 10
    assert found[8].name == f"npy:{tmp_path / 'snow.npy'}, severity 4"
    np.testing.assert_array_equal(found[8].pixels.pixels[..., 0], GREY + 31)
    assert found[8].pixels.labels.tolist() == LABELS.tolist()
    assert len({each.sha256 for each in found}) == 10
    chosen = sets(f"npy:{tmp_path / 'fog.npy'}", (5, 1))
    assert [int(each.pixels.pixels[0, 0, 0, 0]) for each in chosen] == [40, 0]


def test_image_size_and_channels_may_be_set(tmp_path: Path) -> None:
    colour = np.repeat(np.repeat(np.repeat(GREY[..., None], 3, 3), 2, 1), 2, 2)
    np.savez(tmp_path / "c.npz", image=colour, label=LABELS)
    (found,) = sets(f"npz:{tmp_path / 'c.npz'}", image_size=4, channels=1)
    assert found.task == NETWORK.task
    (wide,) = sets(f"npz:{tmp_path / 'c.npz'}", image_size=[2, 6])
    assert wide.pixels.pixels.shape == (6, 2, 6, 3)


def test_of_many_images_only_the_asked_ones_are_decoded(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (found,) = image_sets(f"folder:{tmp_path}", {}, (), [NETWORK], 2)
    (left,) = {*folder.glob("cat/*.png")} - {
        sorted(folder.glob("cat/*.png"))[found.rows[0]],
        sorted(folder.glob("cat/*.png"))[(found.rows[0] + 1) % 3],
    }
    left.write_text("no image")
    (again,) = image_sets(f"folder:{tmp_path}", {}, (), [NETWORK], 2)
    assert again.sha256 == found.sha256


def _write(folder: Path) -> None:
    write_folder(folder / "others", ("cat", "wolf"))
    np.savez(folder / "labels.npz", x=GREY, y=LABELS + 1)
    np.savez(folder / "float.npz", x=GREY / 100, y=LABELS)
    np.savez(folder / "names.npz", pictures=GREY, y=LABELS)
    np.savez(folder / "first.npz", x=GREY.reshape(1, 6, 4, 4), y=LABELS)
    np.savez(folder / "nan.npz", x=np.where(GREY == 7, np.nan, GREY / 255), y=LABELS)
    np.savez(folder / "text.npz", x=GREY.astype(str), y=LABELS)
    np.savez(folder / "bool.npz", x=GREY > 7, y=LABELS)
    np.savez(folder / "one_hot.npz", x=GREY, y=np.eye(2, dtype=int)[LABELS])
    np.savez(folder / "few.npz", x=GREY, y=LABELS[:4])
    with (folder / "array.npz").open("wb") as file:
        np.save(file, GREY)
    (folder / "number").mkdir()
    np.save(folder / "number" / "labels.npy", LABELS)
    np.save(folder / "number" / "fog.npy", np.uint8(3))
    (folder / "cut.npz").write_bytes((folder / "float.npz").read_bytes()[:40])
    (folder / "odd").mkdir()
    write_severities(folder / "odd", LABELS[:5])
    (folder / "empty").mkdir()


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("folder:{}/others", "class 'wolf' is not one of the network's: cat, dog"),
        ("folder:{}/empty", "holds no images in folders of classes"),
        ("parquet:{}/empty", "holds no Parquet file"),
        ("npy:{}/empty", "must hold labels.npy and one file"),
        ("npz:{}/labels.npz", "label must be 0 to 1, the network's classes, got 2 in row 1"),
        ("npz:{}/float.npz", "must be bytes, or floats of [0, 1] that are 255ths"),
        ("npz:{}/names.npz", "must hold images (one of image, images, x,"),
        ("npz:{}/first.npz", "must be (N, H, W, C) with 1 or 3 channels"),
        ("npz:{}/cut.npz", "cannot be read as npz"),
        ("npz:{}/gone.npz", "gone.npz: there is no such file or folder; check the path"),
        ("folder:{}/gone", "gone: there is no such file or folder; check the path"),
        ("npz:{}/nan.npz", "must be bytes, or floats of [0, 1] that are 255ths"),
        ("npz:{}/text.npz", "must be bytes, or floats of [0, 1], got <U3; convert them"),
        ("npz:{}/bool.npz", "must be bytes, or floats of [0, 1], got bool; convert them"),
        ("npz:{}/one_hot.npz", "labels must be one integer an image, (N,), got int64 (6, 2)"),
        ("npz:{}/few.npz", "holds 6 images and 4 labels; give every image one"),
        ("npz:{}/array.npz", "cannot be read as npz: File is not a zip file"),
        ("npy:{}/number", "fog.npy: must hold an array, got one number"),
        ("npy:{}/odd", "30 images and 5 labels are not 5 severities of the same images"),
        ("tar:{}/x", "must be folder:PATH, parquet:PATH, npz:FILE, npy:PATH or"),
        ("cifar10", "must be folder:PATH, parquet:PATH, npz:FILE, npy:PATH or"),
    ],
)
def test_what_is_not_what_it_claims_is_one_sentence(
    tmp_path: Path, spec: str, sentence: str
) -> None:
    _write(tmp_path)
    with pytest.raises(RkdError) as error:
        sets(spec.format(tmp_path))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with pytest.raises(ConfigError, match="--severity chooses among the severities of --data npy"):
        sets(f"folder:{tmp_path}", (1,))
    with pytest.raises(ConfigError, match=r"data\.augment: has no meaning for images of --data"):
        sets(f"folder:{tmp_path}", augment="crop")
    with pytest.raises(ConfigError, match="evaluate changes no run"):
        image_sets(None, {"optimizer.lr": 1}, (), [NETWORK], None)
    with pytest.raises(DataError, match="--images: 1 of 6"):
        image_sets(f"folder:{tmp_path}", {}, (), [NETWORK], 1)


def test_other_images_are_read_by_their_own_class_names_and_without_a_macs_notes(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path / "images")
    (folder / "cat" / "._0.png").write_bytes(b"Mac OS X")
    (folder / "__MACOSX").mkdir()
    (found,) = sets(f"folder:{folder}")
    assert len(found.pixels.labels) == 6
    images = [png(image[..., None]) for image in GREY[:2]]
    write_parquet(tmp_path / "test.parquet", images, [0, 1], ["dog", "cat"])
    (found,) = sets(f"parquet:{tmp_path}")
    assert found.pixels.labels.tolist() == [1, 0]


def test_corruptions_are_made_of_the_own_test_images_and_count_as_an_opening_of_these() -> None:
    digits = target("t")
    found = image_sets("corruptions:contrast", {}, (5, 1), [digits], 40)
    assert [each.name for each in found] == [
        "digits, contrast, severity 5",
        "digits, contrast, severity 1",
    ]
    assert [(each.split, each.opens_test, each.task) for each in found] == [
        ("other", True, digits.task)
    ] * 2
    (own,) = image_sets(None, {}, (), [digits], 40)
    assert own.pixels.labels.tolist() == found[0].pixels.labels.tolist()
    assert len(image_sets("corruptions", {}, (), [digits], 40)) == 40
    with pytest.raises(ConfigError, match="unknown corruption; did you mean 'contrast'"):
        image_sets("corruptions:contrats", {}, (), [digits], 40)
    with pytest.raises(ConfigError, match="--severity must be 1 to 5, got 6"):
        image_sets("corruptions", {}, (6,), [digits], 40)


@pytest.mark.parametrize("spec", ["s3://b/x.npz", "folder:s3://b/x.npz", "npz:s3://b/x.npz"])
def test_images_of_a_url_are_refused_and_an_absolute_path_with_more_slashes_is_none(
    tmp_path: Path, spec: str
) -> None:
    with pytest.raises(DataError, match=r"^--data s3://b/x.npz: s3:// is not supported; name a "):
        sets(spec)
    folder = write_folder(tmp_path)
    assert len(sets(f"folder://{folder}")) == 1


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_images_of_more_than_8_bits_are_refused_and_not_cut_off(tmp_path: Path, kind: Any) -> None:
    folder = write_folder(tmp_path)
    for file in list(folder.rglob("*.png")):
        grey = np.asarray(Image.open(file).convert("L"))
        deep = (grey.astype(float) * 257).astype(np.uint16) if kind is np.uint16 else grey / 255
        Image.fromarray(deep.astype(kind)).save(file.with_suffix(".tiff"))
        file.unlink()
    with pytest.raises(DataError, match=r"\.tiff.*: images must have 8 bits a channel, got mode "):
        sets(f"folder:{folder}", channels=1)


def table(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": png(image[..., None]), "path": None} for image in pixels]
    pq.write_table(pa.table({"image": rows, "label": LABELS[: len(rows)]}), file)


@pytest.mark.parametrize("place", ["data/test-0.parquet", "test/x.parquet", "testing.parquet"])
def test_a_parquet_set_is_found_where_a_search_finds_its_test_images(
    tmp_path: Path, place: str
) -> None:
    table(tmp_path / "train.parquet", GREY[::-1])
    table(tmp_path / place, GREY)
    (found,) = sets(f"parquet:{tmp_path}")
    np.testing.assert_array_equal(found.pixels.pixels[..., 0], GREY)


def test_half_of_a_parquet_set_and_images_to_train_on_are_no_test_images(tmp_path: Path) -> None:
    table(tmp_path / "half" / "test-00000-of-00002.parquet", GREY)
    with pytest.raises(DataError, match=r"must have 2 files test-\*-of-00002.parquet"):
        sets(f"parquet:{tmp_path / 'half'}")
    table(tmp_path / "val.parquet", GREY)
    law = r"holds no file for tests, and val.parquet is named for validation; name the file itself"
    with pytest.raises(DataError, match=law):
        sets(f"parquet:{tmp_path}")
    assert len(sets(f"parquet:{tmp_path / 'val.parquet'}")[0].pixels) == 6


def test_other_images_are_resized_by_the_filter_of_the_runs_own_unless_another_is_named(
    tmp_path: Path,
) -> None:
    large = np.random.default_rng(0).integers(0, 256, (6, 9, 9), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", image=large, label=LABELS)
    box = {"name": "folder:x", "image_size": 4, "resize": "box"}
    own = NETWORK.config.data.model_copy(update=box)
    boxed = replace(NETWORK, config=NETWORK.config.model_copy(update={"data": own}))

    def pixels(network: Any, **given: Any) -> Any:
        fields = {f"data.{name}": value for name, value in {"image_size": 4, **given}.items()}
        (found,) = image_sets(f"{tmp_path / 'a.npz'}", fields, (), [network], None)
        return found.pixels.pixels[..., 0]

    wanted = np.stack(
        [ImageOps.fit(Image.fromarray(x), (4, 4), method=Image.Resampling.BOX) for x in large]
    )
    np.testing.assert_array_equal(pixels(boxed), wanted)
    np.testing.assert_array_equal(pixels(NETWORK, resize="box"), wanted)
    assert (pixels(NETWORK) != wanted).any()


@pytest.mark.parametrize(
    ("given", "law"),
    [
        ({"image_size": True}, "data.image_size must be a number; YAML reads true"),
        ({"channels": True}, "data.channels must be a number; YAML reads true"),
        ({"channels": 2}, "data.channels must be 1 or 3, got 2"),
        ({"resize": "bix"}, "data.resize must be 'bicubic', .*did you mean 'box'"),
    ],
)
def test_a_form_that_is_none_is_refused(tmp_path: Path, given: dict[str, Any], law: str) -> None:
    np.savez(tmp_path / "a.npz", image=GREY, label=LABELS)
    with pytest.raises(ConfigError, match=law):
        sets(f"{tmp_path / 'a.npz'}", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"data.test_fraction": 0.9},
        {"data.test_split": "validation"},
        {"data.split_seed": 9},
        {"data.train_images": 50},
        {"data.name": "mnist"},
        {"data.image_size": 99},
    ],
)
@pytest.mark.parametrize("spec", [None, "corruptions:fog"])
def test_no_override_makes_other_images_the_test_images(
    given: dict[str, Any], spec: str | None
) -> None:
    law = f"{next(iter(given))}: the test images are the run's own, and only their place may be"
    with pytest.raises(ConfigError, match=law):
        image_sets(spec, given, (), [target("t")], 20)


def test_the_place_of_the_test_images_may_be_another(tmp_path: Path) -> None:
    home = tmp_path / "there"
    for split in ("train", "test"):
        table(home / f"{split}.parquet", GREY)
    moved = home.rename(tmp_path / "here")
    config = target("t").config
    there = {"name": f"parquet:{home}", "validation_fraction": 0.4}
    was = config.model_copy(update={"data": config.data.model_copy(update=there)})
    place = {"data.name": f"parquet:{moved}"}
    (found,) = image_sets(None, place, (), [replace(NETWORK, config=was)], None)
    assert (found.split, found.opens_test) == ("test", True)
    splits = load_training(was.data.model_copy(update={"name": f"parquet:{moved}"}))
    for split_sha256, same in ((splits.fingerprint, True), ("0" * 64, False)):
        file = tmp_path / f"{same}.safetensors"
        checkpoint.write(file, {}, {"split_sha256": split_sha256})
        network = replace(NETWORK, config=was, weights=file)
        if same:
            assert len(image_sets(None, place, (), [network], None)) == 1
        else:
            with pytest.raises(DataError, match=r"its training images are not those of .*False.sa"):
                image_sets(None, place, (), [network], None)


def test_an_integer_is_the_class_that_it_names_where_classes_are_numbers(tmp_path: Path) -> None:
    # folders 0, 1, 10 and 2 are in this order: the network's class 2 is called 10
    network = replace(NETWORK, task=ImageTask(4, 1, 4, 4), classes=("0", "1", "10", "2"))
    labels = np.array([0, 1, 10, 2, 10, 2])
    np.savez(tmp_path / "a.npz", image=GREY, label=labels)
    rows = [{"bytes": png(image[..., None]), "path": None} for image in GREY]
    pq.write_table(pa.table({"image": rows, "label": labels}), tmp_path / "test.parquet")
    for spec in (f"{tmp_path / 'a.npz'}", f"parquet:{tmp_path}"):
        (found,) = image_sets(spec, {}, (), [network], None)
        assert found.pixels.labels.tolist() == [0, 1, 2, 3, 2, 3]
    padded = replace(network, classes=("00", "01", "02", "03"))
    rows = [{"bytes": png(image[..., None]), "path": None} for image in GREY]
    table = pa.table({"image": rows, "label": [0, 1, 2, 3, 2, 3]})
    pq.write_table(table, tmp_path / "test.parquet")
    (found,) = image_sets(f"parquet:{tmp_path}", {}, (), [padded], None)
    assert found.pixels.labels.tolist() == [0, 1, 2, 3, 2, 3]
    np.savez(tmp_path / "b.npz", image=GREY, label=np.array([0, 1, 10, 2, 10, 3]))
    with pytest.raises(DataError, match=r"label must be 0 to 10, .*, got 3 in row 5"):
        image_sets(f"{tmp_path / 'b.npz'}", {}, (), [network], None)
