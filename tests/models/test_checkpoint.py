"""Any trained network by name, folder or module, and how it is shown a sample."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from vcreg_hub.config import Data, Model, Recipe, Train
from vcreg_hub.data.image.transforms import test_transform as shown
from vcreg_hub.errors import RunFolderError, UnknownNameError, UsageError, WeightsNotFoundError
from vcreg_hub.hub.export import write_export
from vcreg_hub.models.build import LIBRARIES
from vcreg_hub.models.checkpoint import load_checkpoint
from vcreg_hub.models.outputs import logits
from vcreg_hub.run import train

DATA = Data("synthetic:4x3", image_size=32, resize=36, interpolation="bicubic", workers=0, train_images=64)
NAMES = ["test_convnext", "torchvision:squeezenet1_1", "hf:tiny"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with the configuration of a small transformers network."""
    from transformers import ViTConfig

    folder = tmp_path_factory.mktemp("tiny")
    ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    ).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture(scope="module", params=NAMES)
def folders(request, tiny, tmp_path_factory):
    """The folder of a run and that of its export."""
    name = tiny if request.param == "hf:tiny" else request.param
    base = tmp_path_factory.mktemp("folders")
    recipe = Recipe("r", Model(name), DATA, train=Train(batch_size=32), evals=())
    run = train(recipe, base / "run", log=lambda text: None).path
    return run, write_export(run, base / "export", licence="mit")


def test_a_run_and_its_export_are_one_network_and_one_view(folders):
    run, exported = folders
    one, other = load_checkpoint(run), load_checkpoint(exported)
    assert one.view == other.view
    assert one.view.classes == [f"class {i}" for i in range(4)]
    assert (one.view.in_chans, one.view.image_size, one.view.resize) == (3, 32, 36)
    assert (one.view.interpolation, one.view.fit) == ("bicubic", "crop")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(logits(one.network(x)), logits(other.network(x)))
    assert not one.network.training
    assert load_checkpoint(f"local-dir:{exported}").view == one.view


def test_the_view_of_a_run_is_that_of_its_test_images(folders):
    seen = load_checkpoint(folders[0]).shown(Data("digits"))
    for name in ("image_size", "resize", "interpolation", "fit"):
        assert getattr(seen, name) == getattr(DATA, name)
    assert seen.channels == 3 and len(seen.mean) == len(seen.std) == 3


@pytest.mark.parametrize("name", ["resnet32_cifar_vcreg", "convnext_zepto_rms_vcreg.fashion_mnist"])
def test_a_release_by_name(name):
    found = load_checkpoint(name)
    assert found.view.classes[0] == "T-shirt/top" and found.view.in_chans == 1 and found.view.mean == [0.286]
    assert found.video is None and found.name == name


def test_a_release_for_clips():
    found = load_checkpoint("videomae_tiny_vcreg.action_shapes")
    assert found.view.frames == found.video.frames == 8
    assert "spin" in found.view.classes and found.view.resize == found.view.image_size == 32
    np.testing.assert_allclose(found.view.mean, [0.485, 0.456, 0.406])


def images(sizes=((50, 70), (70, 50), (33, 33))):
    random = np.random.RandomState(0)
    return [Image.fromarray(random.randint(0, 255, (h, w, 3)).astype(np.uint8)) for h, w in sizes]


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_timms_view_is_timms_own_transform(mode):
    model = timm.create_model(
        "test_vit", img_size=32, pretrained_cfg_overlay={"crop_mode": mode, "crop_pct": 0.9, "input_size": (3, 32, 32)}
    )
    found = load_checkpoint(model)
    assert found.view.resize == math.floor(32 / 0.9)
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    ours = shown(found.shown(Data("folder")), found.view.mean, found.view.std)
    for image in images():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-6, rtol=0)


PROCESSORS = [
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "resample": 3}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 3}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}, "resample": 3}),
    ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "resample": 2}),
]


@pytest.mark.parametrize(("kind", "settings"), PROCESSORS)
def test_transformers_view_is_its_processors(kind, settings, tmp_path):
    import transformers

    transformers.ConvNextConfig(num_labels=3, image_size=32).save_pretrained(tmp_path)
    processor = getattr(transformers, kind)(**settings)
    processor.save_pretrained(tmp_path)
    small = transformers.ConvNextConfig(num_labels=3, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])
    network = transformers.ConvNextForImageClassification(small)
    view = LIBRARIES["transformers"].preprocessing(network, tmp_path)
    found = replace(load_checkpoint(network, preprocessing=view), name="x")
    ours = shown(found.shown(Data("folder")), view.mean, view.std)
    for image in images():
        theirs = processor(image, return_tensors="pt")["pixel_values"][0]
        assert ours(image).shape == theirs.shape
        # theirs resizes tensors, ours pictures, which round otherwise
        assert (ours(image) - theirs).abs().mean() < 0.02


def test_a_folder_of_transformers_by_its_prefix(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32,
                       patch_size=8, id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})  # fmt: skip
    network = ViTForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    ViTImageProcessor(size=size, image_mean=[0.4] * 3, image_std=[0.2] * 3, resample=3).save_pretrained(tmp_path)
    for source in (f"hf:{tmp_path}", str(tmp_path)):
        found = load_checkpoint(source)
        assert (found.view.classes, found.view.mean, found.view.std) == (["a", "b", "c"], [0.4] * 3, [0.2] * 3)
        assert (found.view.fit, found.view.resize, found.view.interpolation) == ("squash", 32, "bicubic")
        x = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(found.network(x).logits, network(x).logits)


def test_a_module_of_other_channels_and_size():
    found = load_checkpoint(timm.create_model("test_vit", in_chans=1, img_size=96))
    assert (found.view.in_chans, found.view.image_size, len(found.view.mean)) == (1, 96, 1)


def test_imagenets_classes_have_their_names():
    found = load_checkpoint(timm.create_model("test_vit"))
    assert found.view.classes[3] == "tiger shark, Galeocerdo cuvieri" and len(found.view.classes) == 1000
    assert load_checkpoint(timm.create_model("test_vit", num_classes=3)).view.classes == ["0", "1", "2"]


def test_a_module_that_says_nothing_is_taken_for_imagenets_and_says_so(caplog):
    found = load_checkpoint(torchvision.models.resnet18(num_classes=3))
    assert found.view.mean == [0.485, 0.456, 0.406] and found.view.image_size == 224
    assert "does not say how its pixels are prepared" in caplog.text


@pytest.mark.parametrize(
    ("source", "kind", "part"),
    [
        ("convnext_tny", UnknownNameError, "did you mean 'convnext_tiny'"),
        ("convnext_tiny_vcreg", WeightsNotFoundError, "vcreg train"),
        ("test_vit", WeightsNotFoundError, "the weights of test_vit could not be had"),
        ("torch:resnet18", UnknownNameError, "kind of model 'torch'"),
        ("runs/nothing", RunFolderError, "there is no folder"),
        ("./nothing", RunFolderError, "there is no folder"),
        ("local-dir:nothing", RunFolderError, "there is no folder"),
        ("hf:nobody/nothing", WeightsNotFoundError, "no configuration at nobody/nothing"),
        ("hf-hub:nobody/nothing", WeightsNotFoundError, "nobody/nothing"),
    ],
)
def test_what_cannot_be_loaded_says_why(source, kind, part):
    with pytest.raises(kind) as error:
        load_checkpoint(source)
    assert part in str(error.value)


def test_a_folder_that_is_neither_run_nor_export(tmp_path):
    with pytest.raises(RunFolderError, match=r"has no recipe\.json"):
        load_checkpoint(tmp_path)
    torch.save({}, tmp_path / "model.bin")
    with pytest.raises(UsageError, match="pickle"):
        load_checkpoint(tmp_path)
