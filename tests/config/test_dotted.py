import pytest

from rkdsearch import config as configs
from rkdsearch.errors import ConfigError


def test_dotted_and_nested_names_are_the_same_names() -> None:
    dotted = {
        "method.name": "rslad",
        "method.temperature": 4.0,
        "attack.eps": 0.1,
        "teachers.robust.path": "t.pt",
    }
    nested = {
        "method": {"name": "rslad", "temperature": 4.0},
        "attack": {"eps": 0.1},
        "teachers": {"robust": {"path": "t.pt"}},
    }
    mixed = {
        "method": {"name": "rslad"},
        "method.temperature": 4.0,
        "attack": {"eps": 0.1},
        "teachers.robust": {"path": "t.pt"},
    }
    assert configs.build(dotted) == configs.build(nested) == configs.build(mixed)


def test_an_override_replaces_one_leaf_and_leaves_the_others() -> None:
    merged = configs.merge(
        {"optimizer": {"name": "sgd", "lr": 0.1}, "training.epochs": 3}, {"optimizer.lr": 0.2}
    )
    assert merged == {"optimizer": {"name": "sgd", "lr": 0.2}, "training": {"epochs": 3}}


def test_another_name_begins_its_section_afresh_and_the_same_name_does_not() -> None:
    base = {"method": {"name": "rslad", "temperature": 4.0}, "optimizer": {"lr": 0.1}}
    assert configs.merge(base, {"method.name": "trades"}) == {
        "method": {"name": "trades"},
        "optimizer": {"lr": 0.1},
    }
    assert configs.merge(base, {"method.name": "trades", "method.consistency_weight": 6.0})[
        "method"
    ] == {
        "name": "trades",
        "consistency_weight": 6.0,
    }
    assert configs.merge(base, {"method.name": "rslad"})["method"] == {
        "name": "rslad",
        "temperature": 4.0,
    }


def test_other_images_are_split_augmented_and_counted_as_before() -> None:
    """`cifar10_small.yaml` on Parquet files was 45,000 images without augmentation."""
    base = {
        "data": {
            "name": "cifar10",
            "root": "data",
            "download": True,
            "validation_fraction": 0.2,
            "split_seed": 3,
            "augment": "crop_flip",
            "train_images": 10000,
            "extra": "cifar10.npz",
            "extra_fraction": 0.5,
        }
    }
    kept = {
        "validation_fraction": 0.2,
        "split_seed": 3,
        "augment": "crop_flip",
        "train_images": 10000,
    }
    for name, place in {
        "parquet:photos": {},
        "cifar100": {"root": "data", "download": True},
        "my.images": {"root": "data"},
    }.items():
        merged = configs.merge(base, {"data.name": name})
        assert merged == {"data": {"name": name, **kept, **place}}
        built = configs.build({"method": {"name": "pgd_at"}, **merged})
        assert (built.data.augment, built.data.train_images) == ("crop_flip", 10000)
    photos = {
        "data": {
            "name": "parquet:photos",
            "image_size": 32,
            "memory_gib": 2.0,
            "image_column": "photo",
            "label_column": "kind",
            "test_split": "validation",
        }
    }
    assert configs.merge(photos, {"data.name": "parquet:more"})["data"] == {
        "name": "parquet:more",
        "image_size": 32,
        "memory_gib": 2.0,
    }
    assert configs.merge(photos, {"data.name": "digits"})["data"] == {"name": "digits"}


def test_null_takes_an_inherited_section_or_parameter_away_and_a_leaf_brings_it_back() -> None:
    base = {"teachers": {"natural": {"path": "n.pt"}, "robust": {"path": "r.pt"}}}
    gone = configs.merge(base, {"teachers.natural": None})
    assert gone == {"teachers": {"natural": None, "robust": {"path": "r.pt"}}}
    assert configs.merge(gone, {"teachers.natural.path": "m.pt"})["teachers"]["natural"] == {
        "path": "m.pt"
    }


def test_a_name_given_twice_is_told_by_its_whole_path() -> None:
    for twice in (
        {"attack": {"eps": 0.1}, "attack.eps": 0.2},
        {"attack": {"eps": 0.1, "eps.deep": 0.2}},
    ):
        with pytest.raises(ConfigError, match=r"^x\.yaml: attack\.eps"):
            configs.nest(twice, "x.yaml")
    assert configs.nest({"attack": {"eps": 0.1}, "attack.eps": 0.1}) == {"attack": {"eps": 0.1}}


def test_a_value_in_the_place_of_a_section_is_told_which_field_is_meant() -> None:
    for base, sentence in {
        "name": "method.name=trades",
        "temperature": "method.temperature",
    }.items():
        with pytest.raises(ConfigError) as error:
            configs.merge({"method": {base: 1}}, {"method": "trades"}, "x.yaml")
        assert (
            str(error.value)
            == "x.yaml: method is a section, not the value 'trades'; set its fields, such as"
            f" {sentence}"
        )
