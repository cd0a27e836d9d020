"""ResNet-32: He et al.'s network, and timm's interface to it."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.nn import functional as F

from vcreg_hub.models.cifar import CifarBlock, CifarResNet

torch.set_num_threads(1)


def slow_forward(model: CifarResNet, x: torch.Tensor) -> torch.Tensor:
    """Section 4.2 of He et al. written out with functions, weights by name."""
    w = model.state_dict()

    def conv_bn(x, prefix, number, stride=1):
        x = F.conv2d(x, w[f"{prefix}conv{number}.weight"], stride=stride, padding=1)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{prefix}bn{number}.{name}"] for name in names))

    x = conv_bn(x, "", 1).relu()
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        for block in range(5):
            prefix, step = f"layer{stage}.{block}.", stride if block == 0 else 1
            y = conv_bn(conv_bn(x, prefix, 1, step).relu(), prefix, 2)
            if step == 2:
                subsampled = x[:, :, ::2, ::2]
                zeros = torch.zeros_like(subsampled)[:, : y.shape[1] // 4]
                x = torch.cat([zeros, subsampled, zeros], dim=1)
            x = (x + y).relu()
    return x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def test_is_the_network_of_the_paper():
    torch.manual_seed(0)
    model = timm.create_model("resnet32_cifar", num_classes=7).eval()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), slow_forward(model, x), rtol=1e-4, atol=1e-4)


def test_size_and_blocks():
    model = timm.create_model("resnet32_cifar")
    assert sum(p.numel() for p in model.parameters()) == 464_154
    assert sum(isinstance(m, CifarBlock) for m in model.modules()) == 15
    # 6n + 2 weighted layers with n = 5, and no parameter in any shortcut.
    assert sum(isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) for m in model.modules()) == 32


def test_kaiming_initialisation():
    torch.manual_seed(0)
    model = timm.create_model("resnet32_cifar", num_classes=100)
    for weight in (model.layer3[2].conv1.weight, model.fc.weight):
        fan_in = weight[0].numel()
        assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)


def test_timm_interface():
    model = timm.create_model("resnet32_cifar", num_classes=4, in_chans=1).eval()
    x = torch.randn(2, 1, 28, 28)
    maps = model.forward_features(x)
    assert maps.shape == (2, 64, 7, 7)
    assert model.forward_head(maps, pre_logits=True).shape == (2, model.num_features)
    torch.testing.assert_close(model.forward_head(maps), model(x))
    model.reset_classifier(9)
    assert model.get_classifier().out_features == model.num_classes == model(x).shape[1] == 9
    model.reset_classifier(0)
    assert model(x).shape == (2, 64)
    assert [p["input_size"] for p in (model.pretrained_cfg,)] == [(3, 32, 32)]


def test_features_only():
    model = timm.create_model("resnet32_cifar", features_only=True)
    assert model.feature_info.channels() == [16, 32, 64]
    assert model.feature_info.reduction() == [1, 2, 4]
    shapes = [tuple(out.shape) for out in model(torch.randn(1, 3, 32, 32))]
    assert shapes == [(1, 16, 32, 32), (1, 32, 16, 16), (1, 64, 8, 8)]


def test_gradient_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    model = timm.create_model("resnet32_cifar").train()
    x = torch.randn(4, 3, 16, 16)
    grads = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().mean().backward()
        grads.append(model.conv1.weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_layer_groups_cover_every_parameter_in_order():
    from timm.models import group_parameters

    model = timm.create_model("resnet32_cifar")
    groups = group_parameters(model, model.group_matcher())
    assert len(groups) >= 16
    assert sum(len(names) for names in groups.values()) == len(list(model.parameters()))


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.filterwarnings(
    "ignore:The TorchScript type system doesn't support:UserWarning"
)  # torch's own graph module
@pytest.mark.parametrize("name", ["resnet32_cifar", "resnet32_cifar_vcreg"])
def test_scripts(name):
    model = timm.create_model(name).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.jit.script(model)(x), model(x))
    assert torch.equal(torch.jit.script(torch.fx.symbolic_trace(model))(x), model(x))
