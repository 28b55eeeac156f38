import pytest
import torch
from pydantic import ValidationError
from torch import nn

from rkdsearch import models, plugins
from rkdsearch.errors import ConfigError
from rkdsearch.models import ModelConfig, build, features, size_of
from tests.tasks import CIFAR10, DIGITS, square


@pytest.fixture
def own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_allowed", {"tests.foreign_networks"})


def small(name: str) -> ModelConfig:
    return (
        ModelConfig(name=name, width=2, depth=10)
        if name == "wide_resnet"
        else ModelConfig(name=name)
    )


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (ModelConfig(name="resnet18"), 11_173_962),
        (ModelConfig(name="preact_resnet18"), 11_172_170),
        (ModelConfig(name="mobilenet_v2"), 2_296_922),
        (ModelConfig(name="wide_resnet"), 46_160_474),
        (ModelConfig(name="wide_resnet", depth=16, width=4), 2_748_890),
    ],
    ids=lambda value: value.name if isinstance(value, ModelConfig) else None,
)
def test_cifar_networks_have_the_size_that_papers_state(
    config: ModelConfig, parameters: int
) -> None:
    assert size_of(config, CIFAR10).parameters == parameters


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 20)])
def test_logits_are_the_last_linear_layer_of_the_penultimate_features(
    name: str, channels: int, size: int
) -> None:
    network = build(small(name), square(classes=7, channels=channels, size=size)).eval()
    x = torch.rand(2, channels, size, size)
    found = features(network, x)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    assert found.logits.shape == (2, 7)
    torch.testing.assert_close(found.logits, network(x), rtol=0, atol=0)
    torch.testing.assert_close(last(found.penultimate), found.logits, rtol=0, atol=0)
    assert found.penultimate.shape == (2, last.in_features)
    assert float(found.penultimate.detach().min()) >= 0  # after the last activation
    assert list(found.stages) == [
        *(f"stage{i}" for i in range(1, len(found.stages))),
        "penultimate",
    ]
    assert all(stage.dim() == 4 for stage in list(found.stages.values())[:-1])


def test_stages_of_student_and_teacher_meet_at_the_same_resolutions() -> None:
    x = torch.rand(1, 3, 32, 32)
    shapes = {
        name: [
            tuple(s.shape[1:])
            for s in features(build(small(name), CIFAR10).eval(), x).stages.values()
        ]
        for name in ("resnet18", "mobilenet_v2", "wide_resnet")
    }
    assert shapes["resnet18"] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512,)]
    assert shapes["mobilenet_v2"] == [(24, 32, 32), (32, 16, 16), (96, 8, 8), (320, 4, 4), (1280,)]
    assert shapes["wide_resnet"] == [(32, 32, 32), (64, 16, 16), (128, 8, 8), (128,)]


def test_small_cnn_doubles_its_width_at_each_convolution() -> None:
    fashion = build(ModelConfig(width=4), square(classes=10, channels=1, size=28))
    assert [
        tuple(s.shape[1:]) for s in features(fashion, torch.rand(1, 1, 28, 28)).stages.values()
    ] == [
        (4, 14, 14),
        (8, 7, 7),
        (16, 4, 4),
        (256,),
    ]


def test_normalisation_is_inside_and_leaves_the_state_dict_alone() -> None:
    torch.manual_seed(0)
    plain = build(ModelConfig(name="mlp", width=4), square(classes=3, channels=2, size=4))
    torch.manual_seed(0)
    config = ModelConfig(name="mlp", width=4, mean=(0.5, 0.25), std=(0.5, 2.0))
    inside = build(config, square(classes=3, channels=2, size=4))
    x = torch.rand(5, 2, 4, 4)
    seen = torch.stack([(x[:, 0] - 0.5) / 0.5, (x[:, 1] - 0.25) / 2.0], dim=1)
    torch.testing.assert_close(inside(x), plain(seen))
    torch.testing.assert_close(features(inside, x).logits, plain(seen))
    assert inside.state_dict().keys() == plain.state_dict().keys()
    assert models.normalisation(inside) == ((0.5, 0.25), (0.5, 2.0))
    assert models.normalisation(plain) is None
    assert inside.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("fields", "law"),
    [
        ({"name": "resnet81"}, "did you mean 'resnet18'"),
        ({"name": "transformer9000"}, "choose one of small_cnn, mlp"),
        (
            {"name": "resnet18", "width": 2},
            "width is for small_cnn, mlp, wide_resnet only, got 2 for resnet18",
        ),
        ({"name": "mlp", "depth": 10}, "depth is for wide_resnet only"),
        ({"name": "wide_resnet", "depth": 30}, "depth must be 6 n . 4 .*got 30"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"mean": (0.5,)}, "mean and std go together"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "mean and std go together"),
        ({"mean": (0.5,), "std": (0.0,)}, "std must be > 0"),
        ({"mean": (), "std": ()}, "std must be > 0"),
        ({"widht": 3}, "Extra inputs"),
    ],
)
def test_unlawful_descriptions_are_refused(fields: dict[str, object], law: str) -> None:
    with pytest.raises(ValidationError, match=law):
        ModelConfig.model_validate(fields)


def test_normalisation_of_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match="mean of mlp has 3 numbers, the images have 1 channels"):
        build(ModelConfig(name="mlp", mean=(0.5,) * 3, std=(0.5,) * 3), DIGITS)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5"])
def test_torchvision_networks_are_built_by_name(name: str) -> None:
    network = build(
        ModelConfig(name=f"torchvision:{name}", mean=(0.5,) * 3, std=(0.25,) * 3),
        square(classes=7, channels=3, size=32),
    )
    assert network.training
    network.eval()
    x = torch.rand(2, 3, 32, 32)
    found = features(network, x)
    torch.testing.assert_close(found.logits, network(x))
    torch.testing.assert_close(found.logits, network.get_submodule("fc")(found.penultimate))
    assert list(found.stages) == ["penultimate"]


@pytest.mark.parametrize(
    ("name", "channels", "law"),
    [
        (
            "torchvision:resnet19",
            3,
            "torchvision has no network 'resnet19'; did you mean 'torchvision:resnet1",
        ),
        ("torchvision:resnet18", 1, "see 3 channels, the images have 1"),
        ("torchvision:alexnet", 3, "torchvision:alexnet fails on images of 3x8x8 pixels"),
        ("torchvision:fasterrcnn_resnet50_fpn", 3, "torchvision has no network"),
    ],
)
def test_a_torchvision_network_that_does_not_fit_is_refused(
    name: str, channels: int, law: str
) -> None:
    with pytest.raises(ConfigError, match=law):
        build(ModelConfig(name=name), square(classes=10, channels=channels, size=8))


def test_timm_without_timm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ConfigError, match=r"needs the package timm; install rkdsearch\[models\]"):
        build(ModelConfig(name="timm:resnet18"), CIFAR10)


@pytest.mark.usefixtures("own_networks")
def test_a_users_network_gets_the_shape_parameters_that_it_names() -> None:
    network = build(
        ModelConfig(name="tests.foreign_networks.LeNet5"), square(classes=4, channels=1, size=28)
    )
    found = features(network, torch.rand(3, 1, 28, 28))
    assert (found.logits.shape, found.penultimate.shape) == ((3, 4), (3, 200))
    assert all(not module._forward_hooks for module in network.modules())


@pytest.mark.usefixtures("own_networks")
@pytest.mark.parametrize(
    ("name", "law"),
    [
        (
            "tests.foreign_networks.LeNet6",
            "tests.foreign_networks has no class or function 'LeNet6'",
        ),
        (
            "tests.foreign_networks.TooCurious",
            "asks for depth; only classes, channels, height, width and size are known",
        ),
        ("tests.foreign_networks.not_a_network", "made str, not a torch.nn.Module"),
        (
            "tests.foreign_networks.boom",
            r"tests.foreign_networks.boom raised KeyError: 11 \(foreign_networks.py:\d+\)$",
        ),
        ("tests.foreign_networks.LeNet5", "fails on images of 1x8x8 pixels"),
        (
            "tests.foreign_networks.Auxiliary",
            r"must give logits \(N, 11\) for images of 1x8x8 pixels, got tuple",
        ),
        (
            "tests.foreign_networks.Untraceable",
            r"must give logits \(N, 11\) for images of 1x8x8 pixels, got \(2, 10\)",
        ),
    ],
)
def test_a_users_network_that_does_not_fit_is_refused(name: str, law: str) -> None:
    with pytest.raises(ConfigError, match=law):
        build(ModelConfig(name=name), square(classes=11, channels=1, size=8))


@pytest.mark.usefixtures("own_networks")
@pytest.mark.parametrize(
    ("name", "law"),
    [
        (
            "Lazy",
            (
                r"Lazy has no shape for linear.weight before it sees images; give its lazy layers"
                r" their sizes"
            ),
        ),
        (
            "Detached",
            (
                r"Detached must give logits with a gradient to the image, got none: attacks follow"
                r" it; remove detach\(\)"
            ),
        ),
        ("Blind", r"Blind must give logits with a gradient to the image, got none"),
        (
            "Overwriting",
            (
                r"Overwriting writes into the images that it is given \(foreign_networks.py, line"
                r" \d+\), which are not its own; compute"
            ),
        ),
        (
            "Mistaken",
            (
                r"Mistaken fails on images of 1x8x8 pixels: TypeError: bad \(foreign_networks.py,"
                r" line \d+\); choose another network"
            ),
        ),
    ],
)
def test_faults_of_a_users_network_are_found_before_training(name: str, law: str) -> None:
    with pytest.raises(ConfigError, match=f"^network name: tests.foreign_networks.{law}"):
        build(ModelConfig(name=f"tests.foreign_networks.{name}"), DIGITS)


@pytest.mark.usefixtures("own_networks")
def test_a_network_that_views_its_maps_takes_contiguous_images_only() -> None:
    config = ModelConfig(name="tests.foreign_networks.Viewing")
    network = build(config, DIGITS)
    law = (
        r"Viewing takes contiguous images only, .* view size is not compatible .*; use flatten or"
        r" reshape in place of view, or set training.ch"
    )
    with pytest.raises(ConfigError, match=law):
        models.check_channels_last(config, network, DIGITS)
    whole = ModelConfig(name="tests.foreign_networks.Untraceable")
    models.check_channels_last(whole, build(whole, DIGITS), DIGITS)


@pytest.mark.usefixtures("own_networks")
def test_trying_a_network_draws_no_numbers() -> None:
    torch.manual_seed(0)
    network = build(ModelConfig(name="tests.foreign_networks.Awkward"), DIGITS)
    found = torch.rand(1)
    torch.manual_seed(0)
    type(network)()
    assert torch.equal(torch.rand(1), found)


@pytest.mark.usefixtures("own_networks")
def test_a_network_without_a_last_linear_layer_has_no_features() -> None:
    network = build(ModelConfig(name="tests.foreign_networks.Convolutional"), DIGITS)
    with pytest.raises(ConfigError, match="Convolutional has no penultimate features"):
        features(network, torch.rand(2, 1, 8, 8))


def test_nothing_is_imported_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_allowed", set())
    with pytest.raises(ConfigError, match="would import code; allow it with --allow-import tests"):
        build(
            ModelConfig(name="tests.foreign_networks.LeNet5"),
            square(classes=10, channels=1, size=28),
        )


@pytest.mark.usefixtures("own_networks")
def test_trying_a_network_leaves_its_statistics_alone() -> None:
    network = build(ModelConfig(name="tests.foreign_networks.Untraceable"), DIGITS)
    assert network.training
    assert network.get_buffer("bn.num_batches_tracked").item() == 0


def test_a_network_that_no_memory_holds_is_refused_in_a_sentence() -> None:
    wide = ModelConfig.model_validate({"name": "small_cnn", "width": 10**8})
    with pytest.raises(ConfigError, match=r"weights of small_cnn \(width 100000000\) do not fit"):
        models.build(wide, DIGITS)
