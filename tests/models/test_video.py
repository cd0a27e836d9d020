"""Video networks: native classes, the place that is regularized, weights from everywhere, and what is
refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VivitForVideoClassification,
)

from vcreg_hub.config import Model, Optim
from vcreg_hub.data.video.noise import normalise
from vcreg_hub.data.video.transforms import centre, resize_short
from vcreg_hub.errors import ConfigError, IntegrityError, UnknownNameError, UsageError, WeightsNotFoundError
from vcreg_hub.files import read_tensors, write_tensors
from vcreg_hub.models import video_weights
from vcreg_hub.models.build import build_model, build_on_meta
from vcreg_hub.models.video import build_video_model, create_video_model
from vcreg_hub.models.video_networks import NETWORKS, NORMALISATION, example_clip, expected_config, video_processor
from vcreg_hub.placement.sites import find_blocks
from vcreg_hub.regularizer.loss import vcreg_loss
from vcreg_hub.regularizer.vcreg import VCReg
from vcreg_hub.training.optim import _layer_ids, _parameter_groups

CLASSES = {"videomae": VideoMAEForVideoClassification, "vivit": VivitForVideoClassification}
TINY = ("videomae_tiny", "vivit_tiny")
CFG = VCReg(alpha=3.0, beta=0.3, delta=0.01)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every tensor random, none at its initial constant, so that a lost one is seen."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draws))
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A tiny VideoMAE with seven named classes as transformers saves it."""
    model = randomised(build_video_model("videomae_tiny", 7))
    model.config.id2label = {i: f"action {i}" for i in range(7)}
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_configure_the_native_class(name: str) -> None:
    config = expected_config(name, {}, 51)
    assert config.model_type == NETWORKS[name].model_type and config.num_labels == 51
    assert config.hidden_size // config.num_attention_heads in (32, 64)
    if name.endswith("_small"):
        assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (384, 6, 12)
    if name.endswith("_base"):
        assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (768, 12, 12)
    assert config.num_frames == NETWORKS[name].frames == (8 if "tiny" in name else 32 if "vivit" in name else 16)
    assert config.layer_norm_eps == 1e-6
    assert NETWORKS[name].normalisation in NORMALISATION


@pytest.mark.parametrize("name", TINY)
def test_native_class_with_the_regularizer_at_the_head(name: str) -> None:
    model = create_video_model(name, 5)
    assert type(model) is CLASSES[NETWORKS[name].model_type] and model.training
    assert [(site.name, site.side) for site in model.vcreg.sites] == [("classifier", "input")]
    assert model.vcreg.cfg == VCReg()
    assert not hasattr(create_video_model(name, 5, vcreg=False), "vcreg")
    prefix = {"videomae": "videomae.encoder.layer", "vivit": "vivit.layers"}[model.config.model_type]
    sites = create_video_model(name, 5, vcreg=CFG, where="blocks").vcreg.sites
    assert [site.name for site in sites] == [f"{prefix}.{i}" for i in range(2)]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("drops", [{}, {"drop_path": 0.3, "head_dropout": 0.5}])
def test_the_gradient_is_that_of_the_loss_on_the_vector_before_head_and_dropout(name: str, drops: dict) -> None:
    """The vector by hand: fc_norm of the mean token for VideoMAE, the class token after the last norm for
    ViViT."""
    torch.manual_seed(0)
    model = randomised(build_video_model(name, 5, **drops)).double()
    twin = randomised(create_video_model(name, 5, vcreg=CFG, **drops), 0).double()
    twin.load_state_dict(model.state_dict())
    clips = torch.randn(6, *example_clip(model).shape[1:]).double()
    labels = torch.arange(6) % 5

    torch.manual_seed(1)
    hidden = model.get_submodule(model.config.model_type)(clips).last_hidden_state
    z = model.fc_norm(hidden.mean(1)) if model.config.model_type == "videomae" else hidden[:, 0]
    loss = nn.functional.cross_entropy(model.classifier(z), labels)
    (loss + vcreg_loss(z, CFG)).backward()

    torch.manual_seed(1)
    twin.vcreg.watch(nn.functional.cross_entropy(twin(clips).logits, labels)).backward()
    for (key, one), two in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-8, atol=1e-12), key
    before = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.manual_seed(1)
    nn.functional.cross_entropy(model(clips).logits, labels).backward()
    changes = [(a - p.grad).abs().max() for a, p in zip(before, model.parameters(), strict=True)]
    assert max(changes) > 1e-3, "the regularizer did something"


@pytest.mark.parametrize("name", TINY)
def test_layer_decay_and_weight_decay_follow_the_recipe(name: str) -> None:
    """Stem decay ** (L + 1), block k decay ** (L - k), last norm and head 1; one-dimensional tensors are
    not decayed."""
    model = build_video_model(name, 5, num_hidden_layers=4)
    blocks = [site.name for site in find_blocks(model, "blocks")]
    layers = _layer_ids(model, blocks)
    scales = {}
    optim = Optim(layer_decay=0.5, weight_decay=0.05, norm_weight_decay=0.0, bias_weight_decay=0.0)
    for group in _parameter_groups(model, optim, blocks):
        for parameter in group["params"]:
            scales[id(parameter)] = group["lr_scale"], group["weight_decay"]
    for key, parameter in model.named_parameters():
        if ".layer." in key or ".layers." in key:
            wanted = 1 + int(next(part for part in key.split(".") if part.isdigit()))
        else:
            wanted = 0 if "embeddings" in key else 5
        assert layers[key] == wanted, key
        decay = 0.0 if parameter.ndim <= 1 else 0.05
        assert scales[id(parameter)] == (0.5 ** (5 - wanted), decay), key


@pytest.mark.parametrize("name", TINY)
def test_blocks_are_found_without_weights(name: str) -> None:
    model = build_on_meta(name)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert len(find_blocks(model)) == 2


def test_a_fresh_vivit_can_tell_places_apart() -> None:
    positions = build_video_model("vivit_tiny", 5).vivit.embeddings.position_embeddings[0, 1:]
    assert len(positions.unique(dim=0)) == len(positions)


def test_options_reach_the_configuration() -> None:
    model = build_video_model("videomae_tiny", 5, image_size=16, num_frames=4, hidden_size=48, head_init_scale=0.001)
    assert model(torch.zeros(1, 4, 3, 16, 16)).logits.shape == (1, 5)
    assert model.classifier.weight.abs().max() < 1e-3
    cfg = Model("vivit_tiny", kwargs={"drop_path": 0.1, "num_frames": 4})
    from_recipe = build_model(cfg, num_classes=3, in_chans=1, image_size=16)
    assert from_recipe(torch.zeros(1, 4, 1, 16, 16)).logits.shape == (1, 3)


def test_weights_that_transformers_saved(saved: Path) -> None:
    plain = AutoModelForVideoClassification.from_pretrained(saved)
    model = create_video_model("videomae_tiny", pretrained=str(saved))
    assert model.config.num_labels == 7 and model.config.id2label[3] == "action 3"
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in model.state_dict().items())
    inner = model.videomae.encoder.layer[1].attention.attention
    assert inner.query.bias.abs().min() > 0 and inner.value.bias.abs().min() > 0

    other = build_video_model("videomae_tiny", 3, str(saved), head_init_scale=0.001)
    assert other.classifier.weight.shape[0] == 3 and other.classifier.weight.abs().max() < 1e-3
    assert torch.equal(other.fc_norm.weight, plain.fc_norm.weight)
    same = build_video_model("videomae_tiny", 7, str(saved), head_init_scale=0.001)
    assert torch.equal(same.classifier.weight, plain.classifier.weight)


@pytest.fixture
def reports() -> Iterator[list[str]]:
    """What transformers' own logger is told, which does not reach caplog."""
    said: list[str] = []
    logger, handler = logging.getLogger("transformers"), logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


def test_a_fresh_head_is_one_line_and_no_report(
    saved: Path, reports: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    build_video_model("videomae_tiny", 7, str(saved))
    assert not caplog.messages
    build_video_model("videomae_tiny", 3, str(saved))
    build_model(Model(f"hf:{saved}", pretrained=True), num_classes=2, in_chans=3, image_size=32, frames=8)
    assert [line.partition(":")[0] for line in caplog.messages] == [
        "the head (classifier) starts fresh, for 3 classes", "the head (classifier) starts fresh, for 2 classes"
    ]  # fmt: skip
    assert not any("LOAD REPORT" in text for text in reports)
    AutoModelForVideoClassification.from_pretrained(saved, num_labels=3, ignore_mismatched_sizes=True)
    assert sum("LOAD REPORT" in text for text in reports) == 1, "others' loading reports as before"


def test_a_report_of_more_than_the_head_is_shown(saved: Path, reports: list[str]) -> None:
    tensors = read_tensors(saved / "model.safetensors")
    write_tensors(saved / "model.safetensors", {**tensors, "decoder.norm.weight": torch.zeros(2)})
    build_video_model("videomae_tiny", 3, str(saved))
    assert len(reports) == 1 and "decoder.norm.weight" in reports[0]
    name = "videomae.encoder.layer.1.output.dense.weight"
    write_tensors(saved / "model.safetensors", {**tensors, name: torch.zeros(3, 3)})
    with pytest.raises(UsageError, match=r"1 mismatched .*layer\.1\.output\.dense\.weight"):
        build_video_model("videomae_tiny", 3, str(saved))
    assert len(reports) == 2 and "layer.1.output.dense.weight" in reports[1]


def test_biases_that_transformers_lost_are_noticed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What some versions did: the biases stay at their initial zeros and nothing is said."""
    load = video_weights.native.load_classifier

    def losing(*args):
        model = load(*args)
        with torch.no_grad():
            for layer in model.videomae.encoder.layer:
                layer.attention.attention.value.bias.zero_()
        return model

    monkeypatch.setattr(video_weights.native, "load_classifier", losing)
    with pytest.raises(IntegrityError, match=r"value\.bias .* other values than the file"):
        build_video_model("videomae_tiny", pretrained=str(saved))


def test_a_wrong_number_of_heads_is_put_right(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = torch.randn(1, *example_clip(build_video_model("videomae_tiny", 7)).shape[1:])
    right = build_video_model("videomae_tiny", pretrained=str(saved)).eval()(clips).logits
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"num_attention_heads": 8}))
    with caplog.at_level(logging.WARNING):
        model = build_video_model("videomae_tiny", pretrained=str(saved)).eval()
    assert "8 attention heads" in caplog.text and torch.equal(model(clips).logits, right)
    assert not torch.allclose(AutoModelForVideoClassification.from_pretrained(saved)(clips).logits, right, atol=1e-4)


def test_self_supervised_weights_get_pooling_and_a_fresh_head(tmp_path: Path) -> None:
    settings = expected_config("videomae_tiny", {}).to_dict() | {"use_mean_pooling": False, "decoder_hidden_size": 48}
    pretrained = randomised(VideoMAEForPreTraining(VideoMAEConfig(**settings)))
    pretrained.save_pretrained(tmp_path)
    model = build_video_model("videomae_tiny", 5, str(tmp_path), head_init_scale=0.001)
    assert model.config.use_mean_pooling and model.fc_norm is not None and model.videomae.layernorm is None
    assert model.classifier.weight.abs().max() < 1e-3
    for key, value in model.videomae.state_dict().items():
        assert torch.equal(value, pretrained.videomae.state_dict()[key]), key


@pytest.mark.parametrize("kind", ["file", "run folder", "release"])
def test_weights_of_our_own(kind: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_video_model("videomae_tiny", pretrained=str(saved))
    if kind == "release":
        place = saved.rename(tmp_path / "videomae_tiny_vcreg.shapes")
        monkeypatch.setenv("VCREG_HUB_DIR", str(tmp_path))
        source = place.name
    else:
        (tmp_path / "run").mkdir()
        write_tensors(tmp_path / "run" / "model.safetensors", model.state_dict())
        source = str(tmp_path / "run" / ("model.safetensors" if kind == "file" else ""))
    loaded = build_video_model("videomae_tiny", pretrained=source)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert build_video_model("videomae_tiny", 2, source).classifier.weight.shape == (2, 96)
    if kind == "run":
        names = [f"move {i}" for i in range(7)]
        (tmp_path / "run" / "results.json").write_text(json.dumps({"data": {"classes": names}}), encoding="utf-8")
        assert list(build_video_model("videomae_tiny", pretrained=source).config.id2label.values()) == names
    if kind == "file":  # of an export, whose tensors transformers names
        exported = build_video_model("videomae_tiny", pretrained=str(saved / "model.safetensors"))
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in exported.state_dict().items())


def test_weights_of_something_else_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a 'videomae', but vivit_tiny is a 'vivit'"):
        build_video_model("vivit_tiny", pretrained=str(saved))
    with pytest.raises(UsageError, match="not a videomae_small: it has hidden_size 96 instead of 384") as raised:
        build_video_model("videomae_small", pretrained=str(saved))
    assert f"--set model.name=hf:{saved}" in str(raised.value)
    write_tensors(tmp_path / "x.safetensors", {"conv.weight": torch.zeros(1)})
    with pytest.raises(UsageError, match="do not fit"):
        build_video_model("videomae_tiny", pretrained=str(tmp_path / "x.safetensors"))
    with pytest.raises(UsageError, match="do not fit"):
        build_video_model("videomae_tiny", pretrained=str(saved), patch_size=16)


def test_pretrained_true_names_what_is_missing() -> None:
    with pytest.raises(WeightsNotFoundError, match="vit_s_k710_dl_from_giant"):
        create_video_model("videomaev2_small", pretrained=True)
    with pytest.raises(WeightsNotFoundError, match="videomae-base-finetuned-kinetics"):
        create_video_model("videomae_base", pretrained=True)
    with pytest.raises(WeightsNotFoundError, match="VCREG_HUB_DIR"):
        create_video_model("videomae_base", pretrained="videomae_base_vcreg.hmdb51")
    with pytest.raises(WeightsNotFoundError, match="runs/of/mine: no such folder"):
        create_video_model("videomae_tiny", pretrained="runs/of/mine")


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("videomae_bas", {}, UnknownNameError, "videomae_base"),
        ("videomae_tiny", {"num_frame": 8}, UnknownNameError, "num_frames"),
        ("videomae_tiny", {"drop_path_rate": 0.1}, UnknownNameError, "drop_path"),
        ("videomae_tiny", {"num_frames": 7}, ConfigError, "num_frames=7 is no multiple of 2"),
        ("videomae_tiny", {"num_frames": 0}, ConfigError, "num_frames=0"),
        ("vivit_tiny", {"image_size": 30}, ConfigError, "image_size=30 is no multiple of 8"),
        ("videomae_tiny", {"num_frames": "many"}, ConfigError, "num_frames"),
        ("videomae_tiny", {"num_attention_heads": 5}, ConfigError, "multiple"),
        ("videomae_tiny", {"drop_path": 1.5}, ConfigError, "drop_path"),
        ("videomae_tiny", {"vcreg": "yes"}, ConfigError, "vcreg"),
    ],
)
def test_what_cannot_be_built(name: str, options: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        create_video_model(name, 5, **options)


@pytest.mark.parametrize(
    ("name", "normalisation"), [("videomae_tiny", "imagenet"), ("vivit_tiny", "centred"), ("vivit_tiny", "processor")]
)
def test_the_processor_prepares_what_the_network_was_trained_on(name: str, normalisation: str, tmp_path: Path) -> None:
    mean, std = NORMALISATION[normalisation]
    video_processor(build_video_model(name, 5), mean, std).save_pretrained(tmp_path)
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    frames = torch.randint(0, 256, (8, 3, 48, 64), dtype=torch.uint8)
    prepared = processor(frames, return_tensors="pt")["pixel_values"][0]
    shown = normalise(centre(resize_short(frames, 32), 32), mean, std)
    assert prepared.shape == shown.shape
    assert (prepared - shown).abs().mean() < 0.02 * shown.std(), "up to a pixel's rounding"
    if normalisation == "centred":
        assert -1 <= shown.min() < -0.5 and 0.5 < shown.max() <= 1
    if normalisation == "processor":
        from transformers import VivitVideoProcessor

        stock = VivitVideoProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        assert torch.allclose(stock(frames, return_tensors="pt")["pixel_values"][0], prepared, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.endswith("_tiny")])
def test_full_size_forward_and_backward(name: str) -> None:
    model = create_video_model(name, 51, drop_path=0.2, head_dropout=0.5)
    clips = torch.randn(2, *example_clip(model).shape[1:])
    assert clips.shape == (2, NETWORKS[name].frames, 3, 224, 224)
    loss = nn.functional.cross_entropy(model(clips).logits, torch.tensor([0, 50]))
    model.vcreg.watch(loss).backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    sizes = {"small": (21e6, 23e6), "base": (85e6, 90e6)}[name.rpartition("_")[2]]
    assert sizes[0] < sum(p.numel() for p in model.parameters()) < sizes[1]
