import json
import socket
from pathlib import Path

import pytest

from offramp.cli import main
from tests.offramp.fake_door import answer, answers, fake_door, refusal


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "3-7.png"
    path.write_bytes(b"png bytes")
    return path


def test_a_table_says_who_answered(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reply = answers(answer(3, name="three", confidence=0.51234, exit=1, tier="edge", degraded="deadline"))
    with fake_door(lambda asked: reply) as door:
        assert main(["predict", str(image), "--url", door.url]) == 0
    head, row = (line.split() for line in capsys.readouterr().out.splitlines() if "───" not in line and line.strip())
    assert head == ["file", "label", "confidence", "exit", "tier", "degraded", "ms"]
    assert row[:6] == [str(image), "three", "0.5123", "1", "edge", "deadline"]
    assert [(asked.method, asked.path, asked.content_type) for asked in door.asked] == [
        ("POST", "/predict", "image/png")
    ]
    assert door.asked[0].body == b"png bytes"


def test_options_are_asked_for_in_the_query(image: Path) -> None:
    with fake_door() as door:
        assert main(["predict", str(image), "--url", door.url, "--operating-point", "full", "--timeout-ms", "5"]) == 0
    assert door.asked[0].path == "/predict?operating_point=full&timeout_ms=5.0"


def test_json_is_stable(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = tmp_path / "batch.npy"
    batch.write_bytes(b"npy")
    with fake_door(lambda asked: answers(answer(1), answer(2)) if asked.body == b"npy" else answers()) as door:
        assert main(["predict", str(image), str(batch), "--json", "--url", door.url]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["answers"]
    assert [(a["file"], a["input"], a["label"]) for a in document["answers"]] == [
        (str(image), 0, 7),
        (str(batch), 0, 1),
        (str(batch), 1, 2),
    ]
    keys = {"file", "input", "label", "name", "confidence", "exit", "tier", "degraded", "hops", "ms"}
    assert all(set(a) == keys for a in document["answers"])


def test_a_bare_array_is_one_input_and_an_object_a_whole_request(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("[[1, 2]]")
    (tmp_path / "whole.json").write_text('{"inputs": [[3]], "forward": false}')
    with fake_door() as door:
        assert main(["predict", str(tmp_path / "one.json"), str(tmp_path / "whole.json"), "--url", door.url]) == 0
    assert [json.loads(asked.body) for asked in door.asked] == [
        {"inputs": [[[1, 2]]]},
        {"inputs": [[3]], "forward": False},
    ]


def test_several_answers_to_a_file_are_numbered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "batch.npy"
    path.touch()
    with fake_door(lambda asked: answers(answer(), answer())) as door:
        assert main(["predict", str(path), "--url", door.url]) == 0
    out = capsys.readouterr().out
    assert f"{path}[0]" in out and f"{path}[1]" in out


def test_a_refusal_is_passed_on(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_door(lambda asked: refusal(415, "x", "That is no image.")) as door:
        assert main(["predict", str(image), "--url", door.url]) == 1
    err = capsys.readouterr().err
    assert err == f"offramp: {image} was refused with HTTP status 415: That is no image.\n"


@pytest.mark.parametrize("reply", [(200, b"hello"), (200, {"answers": 3}), (404, {"detail": "no"}), (500, b"")])
def test_something_else_listens_there(
    reply: tuple[int, object], image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_door(lambda asked: reply) as door:
        assert main(["predict", str(image), "--url", door.url]) == 1
    assert capsys.readouterr().err.endswith("a body that is none of offramp's.\n")


def test_nobody_listens(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["predict", str(image), "--url", url]) == 1
    assert capsys.readouterr().err.startswith(f"offramp: {url} gave no answer:")
    assert main(["predict", str(image), "--url", "nonsense"]) == 2


def test_json_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{")
    assert main(["predict", str(tmp_path / "x.json")]) == 2
    assert "x.json is not JSON" in capsys.readouterr().err
