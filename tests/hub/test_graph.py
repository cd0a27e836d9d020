"""One file that runs without timm and transformers: equal logits, preprocessing inside, refusals before the work."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from typer.testing import CliRunner

import vcreg_hub.hub.graph as graph
from vcreg_hub.cli import app
from vcreg_hub.errors import RunFolderError, UnknownNameError, UsageError
from vcreg_hub.hub.graph import write_graph
from vcreg_hub.regularizer.attachment import attach
from vcreg_hub.regularizer.vcreg import VCReg

NAME = "resnet32_cifar_vcreg"
# torch's converter, about its own insides.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def network():
    return timm.create_model(NAME, pretrained=True, vcreg=False).eval()


@torch.no_grad()
def test_a_program_of_torch_export_computes_the_logits_for_any_batch(tmp_path, network):
    done = write_graph(NAME, tmp_path / "model.pt2", "torch-export")
    told = {"preprocessing.json": ""}
    program = torch.export.load(done.path, extra_files=told)
    x = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(program.module()(x), network(x))
    view = json.loads(told["preprocessing.json"])
    assert view["mean"] == [0.286] and view["image_size"] == 32 and view["classes"][0] == "T-shirt/top"
    assert done.difference == 0 and done.inputs == ((1, 1, 32, 32), (3, 1, 32, 32))
    assert str(done).endswith("random inputs (1,1,32,32) and (3,1,32,32): equal bit for bit")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


@torch.no_grad()
def test_onnx_runtime_computes_the_logits_for_any_batch(tmp_path, network):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    done = write_graph(NAME, tmp_path / "model.onnx", "onnx")
    session = runtime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    x = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    (found,) = session.run(["logits"], {"pixels": x.numpy()})
    assert torch.allclose(torch.from_numpy(found), network(x), rtol=1e-4, atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])["std"] == [0.353]
    assert 0 <= done.difference < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_attached_network_is_written_as_the_plain_one(tmp_path):
    model = timm.create_model("test_vit", num_classes=3, img_size=32)
    attach(model, VCReg())
    done = write_graph(model, tmp_path / "model.pt2", "torch-export")
    assert not any("vcreg" in str(node.target) for node in torch.export.load(done.path).graph.nodes)


def test_a_file_with_other_logits_is_not_kept(tmp_path, monkeypatch):
    target = tmp_path / "model.pt2"
    target.write_text("what was there")
    made, other = graph._program, timm.create_model("resnet32_cifar", in_chans=1).eval()
    monkeypatch.setattr(graph, "_program", lambda network, *rest: made(graph._Logits(other), *rest))
    with pytest.raises(RunFolderError, match=r"does not give the network's logits.*Nothing was exported"):
        write_graph(NAME, target, "torch-export", overwrite=True)
    assert target.read_text() == "what was there" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("to", "form", "error", "message"),
    [
        ("x.onnx", "onxx", UnknownNameError, "unknown format 'onxx'; did you mean 'onnx'"),
        ("x.pt", "onnx", UsageError, "format onnx ends in .onnx: got 'x.pt'"),
        ("x.onnx", "torch-export", UsageError, "format torch-export ends in .pt2"),
        ("there.pt2", "torch-export", UsageError, "exists already"),
    ],
)
def test_refusals_come_before_the_work(tmp_path, monkeypatch, to, form, error, message):
    (tmp_path / "there.pt2").write_text("")
    monkeypatch.setattr(graph, "load_checkpoint", lambda _: pytest.fail("the network was loaded"))
    with pytest.raises(error, match=message):
        write_graph(NAME, tmp_path / to, form)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "find_spec", lambda name: None if name == "onnxruntime" else "there")
    with pytest.raises(UsageError, match=r"needs onnxruntime: pip install 'vcreg_hub\[onnx\]'"):
        write_graph(NAME, tmp_path / "x.onnx", "onnx")


def test_a_network_that_cannot_be_followed(tmp_path):
    class Reads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2)

        def forward(self, x):
            z = self.conv(x).mean((2, 3))
            return self.fc(z if float(z.sum()) > 0 else -z)

    from vcreg_hub.models.libraries.library import Preprocessing

    view = Preprocessing(["a", "b"], 3, 16, 16, "bilinear", [0.5] * 3, [0.5] * 3)
    with pytest.raises(UsageError, match=r"torch\.export cannot follow Reads"):
        graph._program(graph._Logits(Reads()), (3, view.image_size, view.image_size), "Reads")


def test_the_command_says_what_it_compared(tmp_path):
    to = str(tmp_path / "model.pt2")
    shown = CliRunner().invoke(app, ["export", NAME, "--format", "torch-export", "--to", to])
    assert (
        shown.exit_code == 0
        and "check: logits of the file and of the network, random inputs (1,1,32,32)" in shown.stdout
    )
    with pytest.raises(UsageError, match="without a card: leave licence, siblings, twins, weights out"):
        CliRunner().invoke(
            app, ["export", NAME, "--format", "onnx", "--to", to, "--licence", "mit"], catch_exceptions=False
        )
