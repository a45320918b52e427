"""`shoal receipt`: valid is 0, invalid is 1, unreadable is 2, and the words say which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from receipt_makers import REQUEST, answer, engine, sealer, signed_by

from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.receipt import ModelIdentity, Signed
from shoal.fleet.provider import Provider
from shoal.mesh.peer_id import PeerId
from shoal.node.cli import main
from shoal.node.model_identity import ModelIdentities
from shoal.node.receipts import Signing
from shoal.trust.file import to_json
from shoal.trust.receipt import write_receipt


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def made(tmp_path: Path) -> list[Signed]:
    own = sealer(tmp_path / "shelf")
    return [signed_by(own, replace(REQUEST, request_id=f"r-{number}")) for number in range(3)]


def write(folder: Path, name: str, value: object) -> str:
    path = folder / name
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return str(path)


def test_valid_ones_in_a_row(made: list[Signed], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path, f"{number}.json", to_json(signed)) for number, signed in enumerate(made)]
    assert main(["receipt", "verify", "--chain", *files]) == 0
    told = capsys.readouterr().out
    assert told.count("valid (r-") == 3
    assert "3 receipts follow each other" in told
    assert main(["receipt", "verify", "--chain", files[0], files[2]]) == 1
    assert "gap: number 2 is missing" in capsys.readouterr().out
    assert main(["receipt", "verify", "--json", *files]) == 0
    assert json.loads(capsys.readouterr().out)["valid"]


def test_an_answer_whose_text_was_changed_in_the_file(
    made: list[Signed], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = made[0]
    assert signed.opening is not None
    text = signed.opening.outputs[0].text
    for shown, code in ((text, 0), (text + ".", 1)):
        chat = {"choices": [{"message": {"content": shown}}], "receipt": to_json(signed)}
        assert main(["receipt", "verify", write(tmp_path, "chat.json", chat)]) == code
        plain = {"choices": [{"text": shown}], "receipt": to_json(signed)}
        assert main(["receipt", "verify", write(tmp_path, "plain.json", plain)]) == code
        part = {"type": "message", "content": [{"text": shown}]}
        response = {"output": [part], "receipt": to_json(signed)}
        assert main(["receipt", "verify", write(tmp_path, "response.json", response)]) == code
    assert "text of the answer in this file is not the one that was signed" in capsys.readouterr().out
    stripped = {"choices": [{"text": text}], "receipt": {"receipt": to_json(signed)["receipt"]}}
    assert main(["receipt", "verify", write(tmp_path, "stripped.json", stripped)]) == 1
    assert "no opening to compare it with" in capsys.readouterr().out


def test_no_dress_makes_a_changed_answer_pass(made: list[Signed], tmp_path: Path) -> None:
    forged, receipt = {"message": {"content": "forged"}}, to_json(made[0])
    assert made[0].opening is not None
    text = made[0].opening.outputs[0].text
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    dresses = {
        "more": {"choices": [forged, {"x": 1}], "receipt": receipt},
        "list": [{"choices": [forged], "receipt": receipt}],
        "inside": {"answer": {"choices": [forged], "receipt": receipt}},
        "beside": {"answer": {"choices": [forged]}, "receipt": receipt},
        "flat": {"choices": [forged], **receipt},
        "both": {"choices": [], "output": [{"type": "message", "content": [{"text": "forged"}]}], "receipt": receipt},
        "call": {"choices": [{"message": {"content": text, "tool_calls": [call]}}], "receipt": receipt},
        "number": {"choices": [{"message": {"content": 5}}], "receipt": receipt},
    }
    for name, value in dresses.items():
        assert main(["receipt", "verify", write(tmp_path, name, value)]) == 1, name
    twice = json.dumps({"choices": [forged], "receipt": receipt})[:-1] + ', "choices": []}'
    assert main(["receipt", "verify", write(tmp_path, "twice", twice.encode())]) == 2
    quiet = {"index": 0, "delta": {}, "finish_reason": None}
    for choices, code in (([], 0), ([quiet], 0), ([quiet | {"delta": {"content": "forged"}}], 1), ([quiet, forged], 1)):
        last = {"object": "chat.completion.chunk", "choices": choices, "receipt": receipt}
        assert main(["receipt", "verify", write(tmp_path, "last", last)]) == code


def test_id_model_and_usage_beside_a_receipt_are_those_that_were_signed(
    made: list[Signed], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed, receipt = made[0], to_json(made[0])
    assert signed.opening is not None
    used = {"prompt_tokens": 4, "completion_tokens": 70, "total_tokens": 74, "shoal": {"joules": 1.0}}
    choice = {"message": {"content": signed.opening.outputs[0].text}}
    chat = {"id": "r-0", "model": "tiny", "usage": used, "choices": [choice], "receipt": receipt}
    last: dict[str, object] = {"id": "r-0", "model": "tiny", "choices": [], "usage": None, "receipt": receipt}
    event = {"type": "response.completed", "response": {"id": "r-0", "output": [], "usage": used, "receipt": receipt}}
    view = {"id": "12D3/1", "request_id": "r-0", "model": "tiny", **receipt}
    for number, value in enumerate((chat, last, event, view, {"id": 7, "receipt": receipt})):
        assert main(["receipt", "verify", write(tmp_path, f"true-{number}", value)]) == 0
    capsys.readouterr()
    lies = {
        "the model in this file is 'gpt-4', and what was signed is 'tiny'": chat | {"model": "gpt-4"},
        "the id in this file is 'r-1', and what was signed is 'r-0'": chat | {"id": "r-1"},
        "usage in this file says completion_tokens 7, and what was signed is 70": chat
        | {"usage": used | {"completion_tokens": 7}},
        "usage in this file says input_tokens 5": {"output": [], "usage": {"input_tokens": 5}, "receipt": receipt},
        "usage in this file has another form": chat | {"usage": [1]},
        "the model in this file is ['tiny']": last | {"model": ["tiny"]},
        "the model in this file is 'other'": {"model": "other", "receipt": receipt},
        "the model in this file is 'flat'": view | {"model": "flat"},
        "the request_id in this file is 'x'": view | {"request_id": "x"},
    }
    for told, value in lies.items():
        assert main(["receipt", "verify", write(tmp_path, "lie", value)]) == 1, told
        assert told in capsys.readouterr().out


def test_an_answer_goes_by_its_adapters_name(tmp_path: Path) -> None:
    signed = signed_by(sealer(tmp_path / "shelf"), replace(REQUEST, adapter="pirate"))
    for name, code in (("pirate", 0), ("tiny", 1)):
        last = {"model": name, "choices": [], "receipt": to_json(signed)}
        assert main(["receipt", "verify", write(tmp_path, "last", last)]) == code


def test_an_answer_from_a_pipe_is_compared_as_well(made: list[Signed], tmp_path: Path) -> None:
    chat = {"choices": [{"message": {"content": "forged"}}], "receipt": to_json(made[0])}
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(json.dumps(chat),))
    writer.start()
    assert main(["receipt", "verify", str(pipe)]) == 1
    writer.join()


def test_standard_input(made: list[Signed], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged = {"choices": [{"message": {"content": "forged"}}], "receipt": to_json(made[0])}
    for value, code in ((to_json(made[0]), 0), (forged, 1), ({}, 2)):
        path, before = Path(write(tmp_path, "piped", value)), os.dup(0)
        with path.open("rb") as file:
            os.dup2(file.fileno(), 0)
        try:
            assert main(["receipt", "verify", "-"]) == code
        finally:
            os.dup2(before, 0)
            os.close(before)
    assert "-: valid (r-0)" in capsys.readouterr().out


def test_a_changed_receipt_is_invalid(made: list[Signed], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_receipt(replace(made[0].receipt, created=1))
    assert main(["receipt", "verify", write(tmp_path, "changed", data)]) == 1
    assert "INVALID" in capsys.readouterr().out


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"hello",
        b"{",
        b"{}",
        b"[]",
        b'{"receipt": 1}',
        b'{"receipt": "!"}',
        b'{"receipt": "AAAA"}',
        b"\xa1\x61",
        b"[" * 9999,
    ],
)
def test_unreadable_files(tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "bad", data)
    for command in ("verify", "show"):
        assert main(["receipt", command, path]) == 2
    assert "expected" in capsys.readouterr().err
    assert main(["receipt", "verify", str(tmp_path)]) == 2
    assert main(["receipt", "verify", str(tmp_path / "nothing")]) == 2


def test_show_and_list_in_words(
    made: list[Signed], own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "r.json", to_json(made[1]))
    assert main(["receipt", "show", path]) == 0
    told = capsys.readouterr().out
    assert str(PeerId(made[1].receipt.node)) in told
    assert "70 tokens, ended by stop, fingerprints of 70 of them" in told
    assert "a secret" not in told
    assert main(["receipt", "show", "--json", path]) == 0
    assert json.loads(capsys.readouterr().out)["receipt"]["sequence"] == 2
    assert main(["receipt", "list"]) == 0
    assert "signed nothing yet" in capsys.readouterr().out
    signed_by(sealer(own_home / "receipts"))
    assert main(["receipt", "list"]) == 0
    assert "chatcmpl-1" in capsys.readouterr().out
    assert main(["receipt", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["receipts"]
    assert (row["number"], row["tokens"], row["others"], row["model"]) == (1, 70, 0, "tiny")


def test_verifying_needs_no_torch_and_no_numpy(made: list[Signed], tmp_path: Path) -> None:
    path = write(tmp_path, "r.json", to_json(made[0]))
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from shoal.trust.chain import check_chain\nfrom shoal.trust.file import read_file\n"
        "from shoal.trust.inspect import inspect\n"
        f"(signed,) = read_file(Path({path!r}))\n"
        "assert inspect(signed).is_valid and not check_chain([signed.receipt])\n"
        "assert not {'torch', 'numpy', 'httpx', 'starlette', 'pydantic'} & set(sys.modules)\n"
        f"from shoal.node.cli import main\nassert main(['receipt', 'verify', {path!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_upstreams_are_not_asked_for_receipts_and_peers_are_looked_at(tmp_path: Path) -> None:
    signing, told = Signing(sealer(tmp_path)), list[str]()
    script = ScriptedGenerate(words("x"))
    upstream = signing.provider(Provider("upstream:a", "upstream", script, ()), lambda name, reason: None)
    answer(upstream.generate, REQUEST)
    assert [request.receipt for request in script.seen] == [False]
    lying = sealer(tmp_path / "peer").sealed(engine)  # signs with a key that is not this peer's
    name = str(PeerId(bytes(32)))
    peer = signing.provider(Provider(name, "peer", lying, ()), lambda name, reason: told.append(reason))
    assert answer(peer.generate, REQUEST)[-1].receipt is None
    assert told == ["its receipt does not hold: it is signed by another than the peer that answered"]
    assert signing.stats().refused_total == 1


def test_the_weights_are_hashed_once_and_adapters_when_they_are_loaded(tmp_path: Path) -> None:
    weights, folder = tmp_path / "w.gguf", tmp_path / "lora"
    weights.write_bytes(b"weights")
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"adapter")
    identities = ModelIdentities(weights, ModelIdentity("m"))
    identities.note_adapter("pirate", str(folder))
    first = identities.of(REQUEST)
    weights.unlink()
    assert identities.of(REQUEST) == first
    assert len(first.weights) == 32
    assert (first.adapter, len(identities.of(replace(REQUEST, adapter="pirate")).adapter)) == (b"", 32)
