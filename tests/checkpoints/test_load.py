"""Loading a state dict: what fits loads, what does not is named, and nothing is left random in silence."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import adapt_input_conv

from vcreg_hub.checkpoints.load import load_file, load_tensors, refuse_pickle, tensor_shapes
from vcreg_hub.errors import IntegrityError, UsageError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(1)
    return timm.create_model("test_resnet", num_classes=5)


def fresh(**kwargs):
    torch.manual_seed(2)
    return timm.create_model("test_resnet", **{"num_classes": 5, **kwargs})


def test_everything_fits(trained):
    model = fresh()
    assert load_tensors(model, trained.state_dict(), heads=["fc"], origin="x") == []
    for name, tensor in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_another_class_count_leaves_the_head_fresh_and_nothing_else(trained):
    model = fresh(num_classes=3)
    before = model.fc.weight.clone()
    assert load_tensors(model, trained.state_dict(), heads=["fc"], origin="x") == ["fc"]
    assert torch.equal(model.fc.weight, before)
    for name, tensor in trained.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(model.state_dict()[name], tensor), name


def test_another_class_count_without_leave_is_an_error(trained):
    with pytest.raises(UsageError, match=r"2 of another shape \(fc.weight is \(5, 96\), expected \(3, 96\)"):
        load_tensors(fresh(num_classes=3), trained.state_dict(), origin="x")


def test_foreign_names_are_an_error_that_names_them(trained):
    foreign = {f"encoder.{name}": tensor for name, tensor in trained.state_dict().items()}
    model = fresh()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        UsageError, match=r"of x do not fit ResNet: .*missing \(conv1.0.weight.*unexpected \(encoder.conv1"
    ):
        load_tensors(model, foreign, heads=["fc"], origin="x")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_one_missing_tensor_is_an_error(trained):
    tensors = dict(trained.state_dict())
    del tensors["layer1.0.conv1.weight"]
    with pytest.raises(UsageError, match=r"1 missing \(layer1.0.conv1.weight\)"):
        load_tensors(fresh(num_classes=3), tensors, heads=["fc"], origin="x")


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_input_channels_are_adapted_as_timm_does(trained, channels):
    model = fresh(in_chans=channels)
    load_tensors(model, trained.state_dict(), heads=["fc"], origin="x")
    torch.testing.assert_close(model.conv1[0].weight, adapt_input_conv(channels, trained.conv1[0].weight))


def test_grey_weights_see_the_same_in_a_grey_colour_image():
    grey, colour = fresh(in_chans=1).eval(), fresh().eval()
    load_tensors(colour, grey.state_dict(), origin="x")
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(colour(x.expand(-1, 3, -1, -1)), grey(x), rtol=1e-4, atol=1e-4)


def test_timm_resizes_position_embeddings(trained):
    small = timm.create_model("test_vit", img_size=64)
    large = timm.create_model("test_vit", img_size=96)
    load_tensors(large, small.state_dict(), origin="x")
    assert large.pos_embed.shape != small.pos_embed.shape
    assert torch.equal(large.patch_embed.proj.weight, small.patch_embed.proj.weight)


def test_files(tmp_path, trained):
    path = tmp_path / "w.safetensors"
    save_file({name: tensor.clone() for name, tensor in trained.state_dict().items()}, path)
    assert tensor_shapes(path)["fc.weight"] == (5, 96)
    assert load_file(fresh(), path) == []
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match=r"w.safetensors is not a whole safetensors file"):
        tensor_shapes(path)


@pytest.mark.parametrize("name", ["model.pth", "pytorch_model.bin", "x.CKPT"])
def test_pickles_are_refused_with_the_way_to_convert(name):
    with pytest.raises(UsageError, match=rf"{name} is a pickle.*weights_only=True.*{name} model.safetensors"):
        refuse_pickle(f"/some/where/{name}")


def test_the_conversion_command_works(tmp_path, trained):
    import shlex

    torch.save(trained.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UsageError) as error:
        refuse_pickle("w.pth")
    words = shlex.split(str(error.value).partition("trust: ")[2])
    # The command without the cost of another interpreter: its program, with its arguments.
    program, arguments = words[2], [str(tmp_path / word) for word in words[3:]]
    exec(program.replace("sys.argv[1]", repr(arguments[0])).replace("sys.argv[2]", repr(arguments[1])), {})
    assert load_file(fresh(), tmp_path / "model.safetensors") == []
