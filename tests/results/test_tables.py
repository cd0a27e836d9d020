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
