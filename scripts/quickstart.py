"""Train a VCReg model and its plain twin on digits, probe both, export, and reload the weights with plain timm.

Called by scripts/quickstart, which installs first. The numbers show that everything works; 1,297 small images and one
seed are too few to say more.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from vcreg_hub.errors import VCRegError
from vcreg_hub.files import write_tensors
from vcreg_hub.hub.card import write_card
from vcreg_hub.hub.export import write_export
from vcreg_hub.recipes import load_recipe
from vcreg_hub.results.report import summarise, tabulated, write_report
from vcreg_hub.run import load_run, train

# Runs where importing vcreg_hub fails: what it loads owes nothing to this package.
RELOAD = """
import sys
sys.modules["vcreg_hub"] = None
import timm, torch
from safetensors.torch import load_file
folder, saved = sys.argv[1:]
model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
saved = load_file(saved)
with torch.no_grad():
    logits = model(saved["images"])
assert torch.equal(logits, saved["logits"]), (logits - saved["logits"]).abs().max()
print("plain timm, without vcreg_hub: logits equal to the last bit")
"""


def main(out: Path) -> None:
    """Walk the quickstart below `out`; every step that is done already is not done again."""
    for name in ("plain", "vcreg"):
        print(f"\n== {name} ==", flush=True)
        suffix = "" if name == "plain" else "_vcreg"
        train(load_recipe(f"digits:convnext_atto{suffix}"), out / name / "seed0", bar=sys.stderr.isatty())
    summaries = summarise([out / "plain", out / "vcreg"])
    write_report(out, summaries)

    run, folder = out / "vcreg" / "seed0", out / "export"
    if not folder.exists():
        write_export(run, folder, licence="apache-2.0")
    card = write_card(folder, licence="apache-2.0", twins=[out / "plain" / "seed0"])
    print("\n== reload ==", flush=True)
    _reload(run, folder, out / "check.safetensors")
    print(f"\n{tabulated(summaries).markdown()}\n\nweights  {folder}\ncard     {card}\npicture  {out / 'report.png'}")


def _reload(run: Path, folder: Path, saved: Path) -> None:
    _, images, model = load_run(run)
    side = 32
    batch = torch.randn(8, images.in_chans, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.eval()(batch)
    write_tensors(saved, {"images": batch, "logits": logits})
    done = subprocess.run([sys.executable, "-c", RELOAD, str(folder), str(saved)], check=False)
    if done.returncode:
        raise VCRegError("plain timm did not load the exported weights to the same logits")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart"))
    except VCRegError as error:
        sys.exit(f"quickstart: {error}")
