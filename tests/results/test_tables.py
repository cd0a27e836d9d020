"""One table in four forms."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from vcreg_hub.results.tables import Column, Table

TABLE = Table.of(["run", Column("ms", "right")], [("a|b", 1.5), (None, "12.25")])


def test_markdown():
    assert TABLE.markdown() == "| run | ms |\n|---|--:|\n| a\\|b | 1.5 |\n| - | 12.25 |"
    assert TABLE.markdown(padded=True).splitlines() == [
        "| run  |    ms |",
        "| ---- | ----: |",
        "| a\\|b |   1.5 |",
        "| -    | 12.25 |",
    ]
    assert Table.of(["x"], [("a\\|b\nc",)]).markdown().endswith("| a\\|b c |"), "escaped once, one line a row"
    assert Table.of(["x", "y"], []).markdown() == "| x | y |\n|---|---|"


def test_html_is_escaped():
    class Cells(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def handle_starttag(self, tag, attrs):
            self.found += [""] if tag in ("td", "th") else []

        def handle_data(self, data):
            if data.strip():
                self.found[-1] += data

    parser = Cells()
    parser.feed(Table.of(["<b>", "n"], [("<script>", "&amp;")]).html())
    assert parser.found == ["<b>", "n", "<script>", "&amp;"]
    assert '<td style="text-align: right">12.25</td>' in TABLE.html()


def test_json():
    assert json.loads(json.dumps(TABLE.json())) == [{"run": "a|b", "ms": "1.5"}, {"run": "-", "ms": "12.25"}]


def test_a_terminal_s_width_is_kept_and_nothing_is_lost():
    rows = [("resnet32_cifar_vcreg.fashion_mnist", "packaged: " + "x" * 50 + " and some words", "88.9")]
    table = Table.of(["name", "where", Column("n", "right")], rows)
    wide = table.terminal(200).splitlines()
    assert len(wide) == 3 and wide[2].startswith(rows[0][0]) and wide[2].endswith("  88.9")
    for width in (100, 60, 40):
        lines = table.terminal(width).splitlines()
        assert max(map(len, lines)) <= width
        letters = "".join(sorted("".join(lines[2:]).replace(" ", "")))
        assert letters == "".join(sorted("".join(rows[0]).replace(" ", "")))
    assert Table.of(["a", "b"], [("1\n2", "3")]).terminal(80).splitlines() == ["a  b", "-  -", "1  3", "2"]


def test_a_pipe_gets_tabs_and_no_padding():
    assert Table.of(["name", "where"], [("a", "x\ny"), ("long name", "z")]).terminal(None) == (
        "name\twhere\na\tx y\nlong name\tz"
    )


def test_records_are_rows():
    table = Table.of_records([{"what": "sha256", "ok": True}, {"what": "loads", "ok": None}])
    assert table == Table.of(["what", "ok"], [("sha256", "True"), ("loads", "-")])
    assert Table.of_records([]).terminal(80) == ""


def test_more_columns_than_a_terminal_has_room_for_become_paragraphs():
    table = Table.of([f"metric {i}" for i in range(12)], [[f"{i} of a" for i in range(12)], ["b"] * 12])
    shown = table.terminal(80)
    assert max(map(len, shown.splitlines())) <= 80
    first, second = shown.split("\n\n")
    assert first.splitlines()[3].split() == ["metric", "3", "3", "of", "a"] and len(second.splitlines()) == 12
    assert max(map(len, table.terminal(20).splitlines())) <= 20


def test_a_setting_among_old_metrics_is_read_and_not_shown():
    from pathlib import Path

    from vcreg_hub.results.report import read_summary, tabulated

    recorded = read_summary(Path(__file__).parents[2] / "docs" / "results" / "hierarchy_convnext")
    assert any(one.quantity.metric == "logreg_penalty" for one in recorded)
    names = [column.name for column in tabulated(recorded).columns]
    assert any("logreg_top1" in name for name in names) and not any("logreg_penalty" in name for name in names)
