"""The picture of a card shows what the card's table says."""

from __future__ import annotations

import re
from pathlib import Path

from hub.folders import make_run, results, row

from vcreg_hub.hub.card import write_card
from vcreg_hub.hub.download import download
from vcreg_hub.hub.index import _write_release, read_records
from vcreg_hub.hub.pictures import PICTURES
from vcreg_hub.hub.runs import collect

PICTURE = PICTURES["results"]


def test_seeds_and_twins_are_drawn_side_by_side(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"v{s}", seed=s, values=results(row(80.0 + s))) for s in (0, 1)]
    twin = make_run(tmp_path / "p0", vcreg=None, values=results(row(70.0)))
    record = collect(runs[0], licence="mit", name="a.b", siblings=runs, twins=[twin])
    assert [(one.group.label, one.mean, one.values) for one in record.pictured()] == [
        ("plain", 70.0, (70.0,)),
        ("VCReg", 80.5, (80.0, 81.0)),
    ]
    _write_release(record, tmp_path / "cards")
    assert (tmp_path / "cards/a.b.png").read_bytes().startswith(b"\x89PNG")
    assert "![a.b.png](a.b.png)" in (tmp_path / "cards/a.b.md").read_text(encoding="utf-8")
    assert read_records(tmp_path / "cards")[0].plots == ("a.b.png",)


def test_an_export_s_card_shows_the_picture_while_there_is_something_beside_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "v0", values=results(row(80.0)))
    twin = make_run(tmp_path / "p0", vcreg=None, values=results(row(70.0)))
    card = write_card(run, licence="mit", twins=[twin])
    assert f"![{PICTURE}]({PICTURE})" in card.read_text(encoding="utf-8") and (run / PICTURE).exists()
    first = (run / PICTURE).read_bytes()
    write_card(run, licence="mit", twins=[twin])
    assert (run / PICTURE).read_bytes() == first, "the same numbers, the same file"
    (run / "seeds.json").unlink()
    assert PICTURE not in write_card(run, licence="mit").read_text(encoding="utf-8") and not (run / PICTURE).exists()


def test_a_download_brings_the_picture_that_its_card_shows(tmp_path: Path) -> None:
    download("videomae_tiny_vcreg.action_shapes", to=tmp_path / "to")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", (tmp_path / "to/README.md").read_text(encoding="utf-8"))
    assert pictures and all((tmp_path / "to" / name).is_file() for name in pictures)
