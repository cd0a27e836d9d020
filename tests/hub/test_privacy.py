"""Nothing that is published names this machine, this login, or a path on it."""

from __future__ import annotations

import shutil
import zlib

import pytest
from hub.folders import make_loadable
from PIL import Image, PngImagePlugin

from vcreg_hub.errors import UsageError
from vcreg_hub.hub import privacy
from vcreg_hub.hub.bundle import read_bundle
from vcreg_hub.hub.card import write_card
from vcreg_hub.hub.export import write_export
from vcreg_hub.hub.publish import prepare_upload


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "titan7.lab.example")
    monkeypatch.setattr("getpass.getuser", lambda: "mquux")


@pytest.mark.parametrize(
    "text",
    [
        "/home/somebody/data",
        "read from /mnt/a/b.json, then",
        "file:///srv/data/x",
        "~/data/x",
        "~somebody/data",
        "/data",
        "C:\\Users\\x",
        "\\\\server\\share",
        "ran on titan7",
        "TITAN7.lab.example",
        "by mquux",
        "hf_" + "a1B2" * 8,
        "hf:/home/somebody/data",
        "hf:/data",
        "host:/srv/data",
        "nas.lab.example:/export",
        "rsync //nas/share/data",
        "C:/Users/x",
        "root=/home/a",
        "job-titan7-0",
        "titan70",
        "mquux_runs/a",
        "xmquuxes",
        "jane.doe+x@lab.example.org",
        "mail jane@example.com.",
        "https://jane:secret@example.org/x",
        "postgres://user:pw@db/x",
    ],
)
def test_gives_away(text):
    assert privacy._private_parts(text)


TOKENS = {
    "GitHub": ["ghp_" + "a1B2" * 9, "gho_" + "a1B2" * 9, "github_pat_" + "A1b2_" * 12],
    "GitLab": ["glpat-" + "a1B2_" * 4],
    "OpenAI": ["sk-" + "a1B2" * 12, "sk-proj-" + "a1B2_" * 12],
    "Anthropic": ["sk-ant-api03-" + "a1B2_" * 12],
    "AWS": ["AKIA" + "A1B2" * 4, "ASIA" + "A1B2" * 4],
    "Google": ["AIza" + "a1B2_" * 7, "ya29." + "a1B2-" * 8, "GOCSPX-" + "a1B2" * 7],
    "Azure": ["DefaultEndpointsProtocol=https;AccountKey=" + "a1B2" * 20 + "=="],
    "Slack": ["xoxb-" + "1234-" * 5 + "a1B2c3", "xapp-1-" + "A1B2-" * 5],
    "PyPI": ["pypi-AgEIcHlwaS5vcmc" + "a1B2_" * 10],
    "npm": ["npm_" + "a1B2" * 9],
    "Stripe": ["sk_live_" + "a1B2" * 6],
    "Databricks": ["dapi" + "a1b2" * 8],
    "DigitalOcean": ["dop_v1_" + "a1b2" * 16],
    "SendGrid": ["SG." + "a1B2" * 5 + "." + "a1B2" * 10],
    "Replicate": ["r8_" + "a1B2" * 9],
    "Groq": ["gsk_" + "a1B2" * 13],
    "a JSON web token": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP"],
    "a key": ["-----BEGIN OPENSSH PRIVATE KEY-----"],
}


@pytest.mark.parametrize(("text", "service"), [(text, name) for name, texts in TOKENS.items() for text in texts])
def test_tokens_of_the_common_services(text, service):
    for around in (text, f"key: {text},", f'{{"a": "{text}"}}'):
        assert any(part.startswith("a token") for part in privacy._private_parts(around)), service


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a/b/c",
        "hf:mquux/data",
        "hf-hub:mquux/model@v1",
        "NVIDIA H200, 3.5 km/h and/or 1/2",
        "test/superclass",
        "top-1 / top-5",
        "2026-11-22T04:39:04+00:00",
        "me/model@v1.0 and hf-hub:me/model@main",
        "at https://example.org:8080/a/b and git@v1",
        "alpha: 0.32, beta: 1/2, a 3:/4 ratio is no path",
        "sk-learn and skin-type, eyJ",
        "titan and quux",
        "0123456789abcdef0123456789abcdef01234567",
        "root of the tree",
        "layer2.*.conv1",
    ],
)
def test_gives_nothing_away(text):
    assert privacy._private_parts(text) == []


def test_short_names_are_found_between_other_signs_alone(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "abc")
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    for text in ("ann_runs", "run-abc-1", "by ann.", "x/ann/y"):
        assert privacy._private_parts(text), text
    for text in ("planning a channel", "abcd ann0", "cannot"):
        assert privacy._private_parts(text) == [], text


def test_a_name_inside_a_hash_is_chance(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "decaf")
    assert privacy._private_parts("0" * 30 + "decaf" + "1" * 29) == []
    assert privacy._private_parts("decaf" + "1" * 5)


@pytest.mark.parametrize("path", ["/home/somebody/birds", "~/birds", "hf:/home/somebody/birds", "hf:~/birds"])
def test_a_local_data_set_is_named_without_its_path(path):
    name = privacy.without_paths({"data": {"name": path, "root": "/srv/x"}})["data"]
    assert name == {"name": "hf:birds" if path.startswith("hf:") else "birds", "root": None}
    assert list(privacy.private_fields(name)) == []
    assert privacy.without_paths("hf:owner/birds") == "hf:owner/birds"


# ---- pictures -----------------------------------------------------------------------------------------------------


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


@pytest.fixture(params=["L", "RGB", "RGBA", "P", "1", "I;16"])
def picture(request, tmp_path):
    """A PNG with EXIF, texts, a profile, a time, a chunk of somebody's own, and bytes behind its end; its pixels."""
    image = Image.new("RGB", (7, 5))
    image.putdata([(i * 7 % 256, i * 3 % 256, i) for i in range(35)])
    image = image.convert("L").convert("I;16") if request.param == "I;16" else image.convert(request.param)
    exif = Image.Exif()
    exif[0x010E] = "in /home/somebody"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software", "x")
    path = tmp_path / "a.png"
    image.save(path, exif=exif, pnginfo=texts, icc_profile=b"profile")
    data, end = path.read_bytes(), chunk(b"IEND", b"")
    assert data.endswith(end)
    more = chunk(b"tIME", b"\x07\xea\x01\x01\x01\x01\x01") + chunk(b"evIl", b"secret")
    path.write_bytes(data.removesuffix(end) + more + end + b"secret behind the end")
    return path, image


def test_a_picture_holds_its_pixels_alone(picture, tmp_path):
    path, image = picture
    found = privacy.private_in(path)
    for what in ("EXIF", "text", "a profile", "a time", "evIl", "bytes behind its end"):
        assert any(part.endswith(f"pixels: {what}") for part in found), what
    privacy.write_pixels(path, tmp_path / "b.png")
    data = (tmp_path / "b.png").read_bytes()
    assert privacy.private_in(tmp_path / "b.png") == []
    for secret in (b"somebody", b"secret", b"profile", b"Software"):
        assert secret not in data
    with Image.open(tmp_path / "b.png") as bare:
        assert bare.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()
    privacy.write_pixels(tmp_path / "b.png", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == data, "the same every time"


def test_bytes_hidden_in_the_pixels_stream_are_dropped(tmp_path):
    image = Image.new("L", (4, 4), 7)
    image.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"IDAT") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    stream = data[at + 8 : at + 8 + size]
    (tmp_path / "a.png").write_bytes(data[:at] + chunk(b"IDAT", stream + b"secret") + data[at + 12 + size :])
    privacy.write_pixels(tmp_path / "a.png", tmp_path / "b.png")
    assert b"secret" not in (tmp_path / "b.png").read_bytes()


def test_pictures_are_written_anew_wherever_a_folder_is_made(picture, tmp_path):
    path, _ = picture
    run = make_loadable(tmp_path / "x").with_name("x-run")
    shutil.copyfile(path, run / "curve.png")
    write_export(run, tmp_path / "export", licence="apache-2.0")
    assert privacy.private_in(tmp_path / "export" / "curve.png") == []
    write_card(tmp_path / "export", licence="apache-2.0")
    shutil.copyfile(path, tmp_path / "export" / "curve.png")
    (tmp_path / "export" / "README.md").write_text((tmp_path / "export" / "README.md").read_text() + "edited\n")
    with pytest.raises(UsageError, match="beside a picture's pixels: "):
        read_bundle(tmp_path / "export")
    with prepare_upload(tmp_path / "export", "me/x", licence=None, siblings=[], twins=[]) as bundle:
        assert "edited" in (bundle.folder / "README.md").read_text()
        assert privacy.private_in(bundle.folder / "curve.png") == []
    (tmp_path / "export" / "curve.png").write_bytes(b"no picture")
    with (
        pytest.raises(UsageError, match="is not a whole PNG"),
        prepare_upload(tmp_path / "export", "me/x", licence=None, siblings=[], twins=[]),
    ):
        pass


def test_names_the_field():
    value = {"data": {"roots": ["x", "/home/a/b"]}, "mquux": 1}
    assert list(privacy.private_fields(value)) == [
        ("data.roots[1]", "an absolute path: /home/a/b"),
        ("the top level", "the login name: mquux"),
    ]


def test_the_owner_of_the_repo_may_appear():
    assert privacy._private_parts("by mquux", allowed=frozenset({"mquux"})) == []


def test_generic_names_tell_nothing(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    assert privacy._private_parts("the root of data") == []
