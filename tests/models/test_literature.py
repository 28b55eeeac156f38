"""Our CIFAR networks are the robust literature's: their parameter names, and what they compute."""

import torch
from torch import Tensor, nn

from rkdsearch.models.mobilenet_v2 import MobileNetV2
from rkdsearch.models.preact_resnet import PreActBlock, PreActResNet18
from rkdsearch.models.resnet import ResNet18
from rkdsearch.models.wide_resnet import WideBlock, WideResNet


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_resnet18_gives_the_logits_of_torchvisions_with_a_cifar_stem() -> None:
    from torchvision.models import resnet18

    theirs = resnet18(weights=None, num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = ResNet18(classes=10, channels=3)
    renamed = {
        k.replace("downsample", "shortcut").replace("fc.", "linear."): v
        for k, v in theirs.state_dict().items()
    }
    ours.load_state_dict(renamed)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


def test_resnet18_has_the_names_of_rslads_checkpoints() -> None:
    found = shapes(ResNet18(classes=100, channels=3))
    assert len(found) == 122
    assert found["conv1.weight"] == (64, 3, 3, 3)
    assert found["layer2.0.shortcut.0.weight"] == (128, 64, 1, 1)
    assert found["layer2.0.shortcut.1.running_var"] == (128,)
    assert found["layer4.1.bn2.bias"] == (512,)
    assert found["linear.weight"] == (100, 512)


def test_preact_resnet18_has_the_names_of_rices_checkpoints() -> None:
    found = shapes(PreActResNet18(classes=10, channels=3))
    assert found["layer1.0.bn1.weight"] == (64,)
    assert found["layer3.0.shortcut.0.weight"] == (256, 128, 1, 1)
    assert found["bn.running_mean"] == (512,)
    assert "layer3.0.shortcut.1.weight" not in found
    assert "bn1.weight" not in found


def test_wide_resnet_has_the_names_of_trades_checkpoints() -> None:
    found = shapes(WideResNet(classes=10, channels=3, depth=16, width=4))
    assert found["block1.layer.0.convShortcut.weight"] == (64, 16, 1, 1)
    assert found["block2.layer.0.bn1.running_mean"] == (64,)
    assert found["block3.layer.1.conv2.weight"] == (256, 256, 3, 3)
    assert found["bn1.weight"] == (256,)
    assert found["fc.weight"] == (10, 256)
    assert "block1.layer.2.conv1.weight" not in found


def test_mobilenet_v2_has_the_names_of_rslads_checkpoints() -> None:
    network = MobileNetV2(classes=10, channels=3)
    found = shapes(network)
    assert len(network.layers) == 17
    assert [block.conv2.stride[0] for block in network.layers] == [
        1,
        1,
        1,
        2,
        1,
        1,
        2,
        1,
        1,
        1,
        1,
        1,
        1,
        2,
        1,
        1,
        1,
    ]
    assert found["layers.0.shortcut.0.weight"] == (16, 32, 1, 1)
    assert found["layers.1.conv2.weight"] == (96, 1, 3, 3)
    assert found["layers.16.bn3.weight"] == (320,)
    assert found["conv2.weight"] == (1280, 320, 1, 1)
    assert "layers.3.shortcut.0.weight" not in found  # stride 2: no shortcut at all


def without_residual(block: PreActBlock | WideBlock, x: Tensor) -> Tensor:
    nn.init.zeros_(block.conv2.weight)
    shortcut = block.convShortcut if isinstance(block, WideBlock) else block.shortcut
    if shortcut is not None:
        for p in shortcut.parameters():
            nn.init.ones_(p)
    return block.eval()(x)


def test_a_pre_activation_block_projects_what_is_activated_and_passes_on_what_is_not() -> None:
    x = torch.full((1, 1, 2, 2), -1.0)
    for block in (PreActBlock, WideBlock):
        # relu(-1) through the 1x1 convolution
        assert without_residual(block(1, 2, 1), x).abs().max() == 0.0
        assert without_residual(block(1, 1, 1), x).unique().item() == -1.0


def test_mobilenets_are_linear_after_the_last_convolution_of_a_block() -> None:
    block = MobileNetV2(classes=10, channels=3).layers[3].eval()
    nn.init.constant_(block.bn3.weight, 0.0)
    nn.init.constant_(block.bn3.bias, -2.0)
    assert block(torch.rand(1, 24, 8, 8)).unique().item() == -2.0
