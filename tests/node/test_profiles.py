"""The tuned profile: between defaults and the file, for one machine and one model, never silently wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.core.errors import BadConfig
from shoal.node.cli import main
from shoal.node.config_sources import load
from shoal.node.profiles import fingerprint, profile_file
from shoal.plan.profile import Fingerprint, Profile, read_profile, write_profile
from shoal.plan.space import Value


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home and a configuration folder of their own, and a "model" that is a file."""
    model = tmp_path / "weights.gguf"
    model.write_bytes(b"x" * 100)
    return {"SHOAL_HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path), "SHOAL_MODEL": str(model)}


def write(environment: dict[str, str], options: dict[str, Value], **other: str | int) -> Path:
    path = profile_file(environment)
    mine = replace(fingerprint(load({}, environment).config), **other)  # type: ignore[arg-type]
    write_profile(path, Profile(mine, "throughput", "tokens/s", 12.5, 10.0, options))
    return path


def test_it_stands_between_defaults_and_the_file(environment: dict[str, str]) -> None:
    path = write(environment, {"block_size": 64, "max_running": 8, "max_batch_tokens": 128, "kv_type": "f32"})
    file = path.parent / "config.toml"
    file.write_text("max_running = 9\nmax_batch_tokens = 90\nkv_type = 'f16'\n")
    loaded = load({"kv_type": "auto"}, {**environment, "SHOAL_MAX_BATCH_TOKENS": "91"})
    config, origins = loaded.config, loaded.origins
    assert (config.block_size, config.max_running, config.max_batch_tokens, config.kv_type) == (64, 9, 91, None)
    names = ("block_size", "max_running", "max_batch_tokens", "kv_type", "threads")
    assert [origins[name] for name in names] == [
        str(path), str(file), "SHOAL_MAX_BATCH_TOKENS", "--kv-type", "default"
    ]  # fmt: skip
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"processor": "Z80"}, "processor was Z80, is"),
        ({"cores": 999}, "cores was 999, is"),
        ({"kernels": "mmx"}, "kernels was mmx, is"),
        ({"model": "another.gguf"}, "model was another.gguf, is weights.gguf"),
        ({"weights": "0" * 64}, "weights was 000000000000, is 100 bytes"),
    ],
)
def test_a_stale_one_is_ignored_with_one_line(
    environment: dict[str, str], other: dict[str, str | int], words: str
) -> None:
    path = write(environment, {"block_size": 64}, **other)
    loaded = load({}, environment)
    assert loaded.config.block_size == 16
    assert loaded.origins["block_size"] == "default"
    (note,) = loaded.notes
    assert "\n" not in note
    assert words in note
    assert str(path) in note


def test_other_weights_under_the_same_name_make_it_stale(environment: dict[str, str]) -> None:
    write(environment, {"block_size": 64})
    Path(environment["SHOAL_MODEL"]).write_bytes(b"x" * 101)
    assert load({}, environment).notes[0].startswith("the tuned profile is ignored: weights was 100 bytes, is 101")


def test_what_was_written_is_read_back_whatever_it_says(tmp_path: Path) -> None:
    mine = Fingerprint('AMD "Zen" \\ 日本 \t', 2, "avx2", "m.gguf", "0" * 64)
    options: dict[str, Value] = {"threads": 2, "prefix_cache": False, "model": "/a b/'c'.gguf"}
    profile = Profile(mine, "latency", "tokens/s", 1.5, 1.25, options)
    write_profile(tmp_path / "new" / "profile.toml", profile)
    assert read_profile(tmp_path / "new" / "profile.toml") == profile
    assert read_profile(tmp_path / "none.toml") is None
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["profile.toml"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("block_size = 64", "block_size = 17.5"), "expected a profile"),
        (("block_size = 64", "block_size = 0"), "profile.toml: block_size: expected a whole number from 1"),
        (("block_size = 64", 'host = "0.0.0.0"'), "profile.toml: host: a profile may set threads"),
        (("block_size = 64", "unheard_of = 1"), "profile.toml: unheard_of: a profile may set threads"),
        (("[options]", "[others]"), "expected a profile as `shoal tune` writes it"),
        (("[for]", "[far]"), "expected a profile"),
        (("cores = ", "cores = true #"), "expected a profile"),
        (("score = ", "score = 'x' #"), "expected a profile"),
        (("objective", "= \x00"), "expected a profile"),
    ],
)
def test_a_file_that_is_no_profile_is_an_error_with_its_name(
    environment: dict[str, str], change: tuple[str, str], message: str
) -> None:
    path = write(environment, {"block_size": 64})
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(BadConfig) as error:
        load({}, environment)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_the_command_shows_where_a_value_came_from(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SHOAL_CONFIG", raising=False)
    path = write(environment, {"block_size": 64})
    assert main(["config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["block_size"] == {"value": 64, "origin": str(path)}
    write(environment, {"block_size": 64}, cores=999)
    assert main(["config", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["block_size"] == {"value": 16, "origin": "default"}
    assert captured.err.startswith("the tuned profile is ignored: cores was 999")
