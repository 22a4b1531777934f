"""What a text must not give away is found in every way a text can be written."""

from __future__ import annotations

import base64
import json
import textwrap
from pathlib import Path
from urllib.parse import quote

import pytest
from forbidden_bytes import FORBIDDEN, noise

from omni_mlflow.publication.disclosures import disclosures
from omni_mlflow.publication.documents import NotPublishableError, read_document_text

TOKEN = "hf_" + "aBcDeFgHiJ" * 3 + "0123"
MP4 = FORBIDDEN["mp4"][1]()
ROOT = Path("/lab/egocentric/workspace")

TELLING: dict[str, tuple[str, str, str]] = {
    # what is hidden: (rule, name of the file, its text)
    "linux_home": ("private_path", "a.json", '{"config": "/home/ada/run"}'),
    "mac_home": ("private_path", "a.md", "Read from /Users/ada/run.\n"),
    "root_home": ("private_path", "a.csv", "path\n/root/run\n"),
    "scratch": ("private_path", "a.jsonl", '{"cwd": "x:/scratch/ada"}\n'),
    "windows_home": ("private_path", "a.json", r'{"config": "C:\\Users\\ada\\run"}'),
    "file_address": ("private_path", "a.md", "[log](file:///home/ada/log)\n"),
    "workspace": ("private_path", "a.json", f'{{"media": "{ROOT}/index/e0.wav"}}'),
    "workspace_as_key": ("private_path", "a.json", f'{{"{ROOT}": 1}}'),
    "unicode_escape": ("private_path", "a.json", r'{"config": "\u002fhome\u002fada"}'),
    "slash_escape": ("private_path", "a.json", r'{"config": "\/home\/ada\/run"}'),
    "percent_escape": ("private_path", "a.md", quote("/home/ada/run", safe="")),
    "quoted_cell": ("private_path", "a.csv", 'id,path\nw0,"/home/ada, run"\n'),
    "hugging_face": ("secret", "a.json", json.dumps({"note": TOKEN})),
    "aws": ("secret", "a.md", "AKIA" + "ABCD" * 4),
    "github": ("secret", "a.csv", "note\nghp_" + "a1B2" * 9 + "\n"),
    "private_key": ("secret", "a.md", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
    "bearer": ("secret", "a.jsonl", '{"header": "Authorization: Bearer 0a1b2c3d4e5f6a7b"}\n'),
    "web_token": ("secret", "a.md", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"),
    "address_with_password": ("secret", "a.json", '{"store": "postgres://ada:lovelace@db/x"}'),
    "password": ("secret", "a.json", '{"password": "correct horse"}'),
    "api_key": ("secret", "a.md", "api_key: 3fA9c0D17be24f6a8"),
    "bare_token": ("secret", "a.json", '{"token": "q8Zt4Lw1Vx7Rb2Nc"}'),
    "bare_key": ("secret", "a.json", '{"key": "q8Zt4Lw1Vx7Rb2NcKp5M"}'),
    "email": ("email", "a.md", "Ask ada@analytical.engine.org.\n"),
    "base64": ("embedded_file", "a.json", json.dumps({"clip": base64.b64encode(MP4).decode()})),
    "data_address": ("embedded_file", "a.md", f"![](data:;base64,{base64.b64encode(MP4).decode()})"),
    "url_safe_base64": (
        "embedded_file",
        "a.json",
        json.dumps(["x" + base64.urlsafe_b64encode(FORBIDDEN["png"][1]() + noise(90)).decode()]),
    ),
    "lines_of_base64": ("embedded_file", "a.md", base64.encodebytes(FORBIDDEN["hdf5"][1]()).decode()),
    "escaped_base64": (
        "embedded_file",
        "a.json",
        json.dumps([base64.b64encode(FORBIDDEN["hdf5"][1]()).decode()]).replace("/", r"\/"),
    ),
    "pieces_of_base64": (
        "embedded_file",
        "a.json",
        json.dumps({"chunks": textwrap.wrap(base64.b64encode(MP4).decode(), 120)}),
    ),
    "hexadecimal": ("embedded_file", "a.csv", f"blob\n{FORBIDDEN['safetensors'][1]().hex()}\n"),
    "list_of_bytes": ("embedded_file", "a.json", json.dumps({"clip": list(MP4)})),
    "noise": ("embedded_file", "a.json", json.dumps([base64.b64encode(noise(4096)).decode()])),
}


def rules_in(path: Path, name: str, text: str) -> dict[str, str]:
    path.write_text(text, encoding="utf-8", newline="")
    return {
        found.rule: found.evidence
        for found in disclosures(read_document_text(path, name), private_roots=[ROOT])
    }


@pytest.mark.parametrize("hidden", TELLING)
def test_what_must_not_leave_is_found(tmp_path, hidden):
    rule, name, text = TELLING[hidden]
    assert rule in rules_in(tmp_path / "file", name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps({"sha256": "0f" * 32, "digests": ["ab" * 32 for _ in range(200)]})),
        ("a.txt", "".join(f"{number:064x}  evaluate/RUN_REPORT_{number}.md\n" for number in range(200))),
        ("a.csv", "id,digest\n" + "".join(f"w{number},{number:064x}\n" for number in range(200))),
        ("a.json", '{"key": "8a8e1b3c607e4ada8b3ffa639727e92c", "token": "action_token", "max_tokens": 256}'),
        ("a.json", '{"bos_token": "<|im_start|>", "action_token": "bin_0123_0456_0789", "secret": null}'),
        ("a.json", '{"id": "8a8e1b3c-607e-4ada-b3fd-fa639727e92c__ep1:qa:0", "password": null}'),
        ("a.md", "recall@5 of 0.25, mpjpe@0.5, and the tap/sink/home/door; see https://x.org/home/ada\n"),
        ("a.md", "The workspace holds index/episodes/8a8e1b3c-607e-4ada-b3fd-fa639727e92c__ep1/windows/w\n"),
        ("a.jsonl", '{"raw": "Hold cup\u2028and pour"}\n{"raw": "' + "ha" * 6000 + '"}\n'),
        ("a.json", json.dumps({"frame_grid": list(range(0, 256, 4)), "objects": ["cup", "kettle"]})),
        ("a.csv", 'action,"said, ""aloud"""\nPour water,"line one\nline two"\n'),
        ("a.json", '{"base": "Qwen/Qwen3-Omni-30B-A3B-Instruct@main", "note": "50% of the cups"}'),
        ("a.md", f"Paths like {ROOT}s and .{ROOT} are others.\n"),
    ],
)
def test_what_only_looks_like_it_may_leave(tmp_path, name, text):
    assert rules_in(tmp_path / "file", name, text) == {}


def test_evidence_names_the_line_and_does_not_repeat_the_secret(tmp_path):
    found = rules_in(tmp_path / "file", "a.jsonl", f'{{"a": 1}}\n{{"b": "{TOKEN}"}}\n')
    assert found == {"secret": "hf_aBcDe… in line 2"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b'{"loss": NaN}', "NaN is not JSON"),
        ("a.json", b'{"a": 1, "a": 2}', "occur twice"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b"", "not JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": 2}\n', "line 2 is not JSON"),
        ("a.csv", b"a,b\n1\n", "rows of \\[1, 2\\] cells"),
        ("a.csv", b'a,b\n"1"x,2\n', "not CSV"),
        ("a.md", b"# Report\n\x00", "control character '.x00' in line 2"),
        ("a.md", "# Report".encode("utf-16"), "not UTF-8 at byte 0"),
        ("a.md", b"caf\xe9", "not UTF-8 at byte 3"),
        ("a.html", b"<p>", ".html is none of"),
        ("LICENSE", b"text", "no suffix is none of"),
    ],
)
def test_a_file_that_is_not_what_its_name_promises_is_not_publishable(tmp_path, name, content, reason):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NotPublishableError, match=reason):
        read_document_text(path, name)
