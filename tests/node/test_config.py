"""Configuration: who wins, where a value came from, and that nothing unknown passes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.errors import BadConfig
from shoal.node.cli import main
from shoal.node.config import OPTIONS, NodeConfig
from shoal.node.config_sources import load
from shoal.node.home import config_file, home


def written(tmp_path: Path, text: str) -> dict[str, str]:
    """An environment whose configuration file says `text`."""
    path = tmp_path / "shoal.toml"
    path.write_text(text)
    return {"SHOAL_CONFIG": str(path)}


def test_every_field_is_an_option_and_the_other_way_round() -> None:
    assert [field.name for field in fields(NodeConfig)] == [option.name for option in OPTIONS]
    assert len({option.flag for option in OPTIONS}) == len(OPTIONS)


def test_every_default_is_what_its_own_parser_would_give() -> None:
    for field, option in zip(fields(NodeConfig), OPTIONS, strict=True):
        if field.name != "home":
            assert option.parse("auto" if field.default is None else field.default) == field.default


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, 'port = 1\nthreads = 1\nmodel = "from-file"\n')
    loaded = load({"port": "3", "model": None}, {**file, "SHOAL_PORT": "2", "SHOAL_THREADS": "2"})
    assert (loaded.config.port, loaded.config.threads, loaded.config.model) == (3, 2, "from-file")
    assert loaded.config.max_running == 32
    origins = [loaded.origins[name] for name in ("port", "threads", "model", "max_running")]
    assert origins == ["--port", "SHOAL_THREADS", file["SHOAL_CONFIG"], "default"]


@pytest.mark.parametrize(
    ("text", "variable", "name", "value"),
    [
        ('kv_memory = "2GiB"', "2GiB", "kv_memory", 2 * 2**30),
        ("kv_memory = 2147483648", "auto", "kv_memory", 2**31),
        ("prefix_cache = false", "off", "prefix_cache", False),
        ('api_keys = ["a", "b"]', "a, b", "api_keys", ("a", "b")),
        ("api_keys = []", "", "api_keys", ()),
        ('adapters = { one = "/a", two = "/b=c" }', "one=/a,two=/b=c", "adapters", (("one", "/a"), ("two", "/b=c"))),
        ('request_timeout = "5min"', "300", "request_timeout", 300.0),
        ('device = "cuda"', "cuda", "device", "cuda"),
    ],
)
def test_values_from_file_and_environment(tmp_path: Path, text: str, variable: str, name: str, value: Any) -> None:
    assert getattr(load({}, written(tmp_path, text)).config, name) == value
    from_environment = getattr(load({}, {f"SHOAL_{name.upper()}": variable}).config, name)
    assert from_environment == (None if variable == "auto" else value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "shoal.toml: prot: unknown key; the nearest that exists is port"),
        ("port = 70000", "shoal.toml: port: expected a whole number from 0 to 65535, found 70000"),
        ("port = true", "port: expected a whole number"),
        ("port = 1.5", "port: expected a whole number"),
        ('threads = "many"', "threads: expected a whole number"),
        ("model = 3", "model: expected text"),
        ('device = "tpu"', "device: expected one of auto, cpu, cuda, found 'tpu'"),
        ("prefix_cache = 1", "prefix_cache: expected true or false"),
        ('kv_memory = "lots"', 'kv_memory: expected a size such as "4GiB"'),
        ('kv_memory = "3"', "kv_memory: expected at least"),
        ('request_timeout = "soon"', "request_timeout: expected a duration"),
        ("request_timeout = 0", "request_timeout: expected a time"),
        ("request_timeout = nan", "request_timeout: expected a time"),
        ('adapters = ["x"]', "adapters: expected NAME=VALUE, found 'x'"),
        ('adapters = ["x=1", "x=2"]', "expected each name once, found 'x' twice"),
        ("[server]\nport = 1", "server: unknown key"),
        ("port = ", "expected a TOML file"),
        ("\x00", "expected a TOML file"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadConfig) as error:
        load({}, written(tmp_path, text))
    assert message in str(error.value)


def test_unknown_variables_name_the_nearest() -> None:
    with pytest.raises(BadConfig, match="SHOAL_PROT: unknown variable; the nearest that exists is SHOAL_PORT"):
        load({}, {"SHOAL_PROT": "1"})
    load({}, {"SHOAL_TEST_GGUF": "x", "SHOALX": "1", "PATH": "/bin"})


def test_a_named_file_must_exist_and_the_usual_one_need_not(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="SHOAL_CONFIG: there is no file"):
        load({}, {"SHOAL_CONFIG": str(tmp_path / "none.toml")})
    load({}, {"XDG_CONFIG_HOME": str(tmp_path)})


def test_home_and_file_follow_the_environment(tmp_path: Path) -> None:
    assert home({"XDG_CACHE_HOME": "/c"}) == Path("/c/shoal")
    assert home({"SHOAL_HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/h")
    assert home({"XDG_CACHE_HOME": "relative, so ignored"}) == Path.home() / ".cache" / "shoal"
    assert config_file({"XDG_CONFIG_HOME": "/c"}) == Path("/c/shoal/config.toml")
    assert load({"home": str(tmp_path)}, {"SHOAL_HOME": "/h"}).config.home == tmp_path


@given(st.dictionaries(st.sampled_from([option.name for option in OPTIONS]), st.text(max_size=12), max_size=4))
def test_any_text_is_a_value_or_an_error_that_names_its_variable(values: dict[str, str]) -> None:
    environment = {f"SHOAL_{name.upper()}": value for name, value in values.items() if "\0" not in value}
    blamed = None
    try:
        load({}, {**environment, "XDG_CONFIG_HOME": "/nowhere"})
    except BadConfig as error:
        blamed = error.key
    assert blamed is None or blamed in environment


def test_the_command_shows_values_and_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**written(tmp_path, "threads = 2"), "SHOAL_API_KEYS": "very-secret"}.items():
        monkeypatch.setenv(name, value)
    assert (
        main(["config", "--json", "--port", "99", "--adapter", "a=/x", "--adapter", "b=/y", "--no-prefix-cache"]) == 0
    )
    output = capsys.readouterr().out
    shown = json.loads(output)
    assert shown["port"] == {"value": 99, "origin": "--port"}
    assert shown["adapters"] == {"value": [["a", "/x"], ["b", "/y"]], "origin": "--adapter"}
    assert shown["prefix_cache"] == {"value": False, "origin": "--prefix-cache"}
    assert shown["threads"] == {"value": 2, "origin": str(tmp_path / "shoal.toml")}
    assert shown["api_keys"]["origin"] == "SHOAL_API_KEYS"
    assert "very-secret" not in output
    assert main(["config"]) == 0
    table = capsys.readouterr().out
    assert "very-secret" not in table
    assert any(line.split() == ["threads", "2", str(tmp_path / "shoal.toml")] for line in table.splitlines())
