"""What `draft = ...` makes, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shoal.core.errors import BadConfig
from shoal.core.service import EngineStats
from shoal.engine.drafts.chosen import Case
from shoal.engine.drafts.model import ModelDrafter
from shoal.engine.drafts.suffix import SuffixDrafter
from shoal.engine.load import RunnerOptions, load_runner
from shoal.models.draft_training.files import write_draft
from shoal.models.tiny import TinyShape, tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer
from shoal.node.choosing import LearnedJudge
from shoal.node.config import NodeConfig
from shoal.node.config_values import drafter
from shoal.node.drafting import Target, make_drafter, split_kv_memory
from shoal.server.metrics import Metrics


def target(kernels: str = "auto") -> Target:
    checkpoint = tiny_checkpoint("llama")
    options = RunnerOptions(kernels=kernels, kv_memory=1 << 22, threads=1)  # type: ignore[arg-type]
    loaded = load_runner(checkpoint, options)
    return Target("tiny", "tiny:1", load_tokenizer(checkpoint.tokenizer), loaded, options)


def name_of(draft: str, kernels: str, home: Path) -> str | None:
    made = make_drafter(NodeConfig(home=home, draft=draft), target(kernels))
    return None if made is None else made.name


@pytest.mark.parametrize(
    ("draft", "kernels", "name"),
    [
        ("off", "native", None),
        ("lookup", "native", "lookup"),
        ("suffix", "native", "suffix"),
        ("auto", "native", "suffix"),
        ("auto", "torch", None),
        ("suffix", "torch", "suffix"),
        ("learned", "native", "learned"),
    ],
)
def test_each_way_to_draft(draft: str, kernels: str, name: str | None, tmp_path: Path) -> None:
    assert name_of(draft, kernels, tmp_path) == name


def test_past_answers_are_saved_only_where_asked(tmp_path: Path) -> None:
    for saved in (False, True):
        config = NodeConfig(home=tmp_path, draft="suffix", draft_saved=saved)
        made = make_drafter(config, target())
        assert isinstance(made, SuffixDrafter)
        made._remember([1, 2, 3])
        made.close()
        assert (tmp_path / "drafts" / "tiny.bin").exists() == saved
    again = make_drafter(replace(config), target())
    assert isinstance(again, SuffixDrafter)
    assert again.past.num_tokens == 3


def test_a_draft_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="nowhere"):
        make_drafter(NodeConfig(home=tmp_path, draft="model:nowhere"), target())


def test_the_cache_of_a_draft_model_is_inside_kv_memory(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("llama", shape=replace(TinyShape(), num_layers=3))
    small = tiny_checkpoint("llama", shape=replace(TinyShape(), num_layers=1))
    file = tmp_path / "small.gguf"
    values = {name: tensor.data.view("<f4").reshape(tensor.shape) for name, tensor in small.weights.items()}
    write_draft(file, small, small.config, values, "Q8_0")
    limit = 1 << 22
    config = NodeConfig(home=tmp_path, draft=f"model:{file}", kv_memory=limit)
    for_target, for_draft = split_kv_memory(config, checkpoint.config)
    assert (for_target, for_draft) == (limit * 3 // 4, limit // 4)
    options = RunnerOptions(kernels="native", kv_memory=for_target, threads=1)
    loaded = load_runner(checkpoint, options)
    made = make_drafter(config, Target("t", "t", load_tokenizer(checkpoint.tokenizer), loaded, options, for_draft))
    assert isinstance(made, ModelDrafter)
    assert made._runner.num_blocks == loaded.runner.num_blocks > 1
    made.close()
    loaded.runner.close()


def test_without_a_draft_model_or_a_limit_nothing_is_split(tmp_path: Path) -> None:
    tiny = tiny_checkpoint("llama").config
    assert split_kv_memory(NodeConfig(home=tmp_path, draft="suffix", kv_memory=4096), tiny) == (4096, None)
    assert split_kv_memory(NodeConfig(home=tmp_path, draft="model:nowhere"), tiny) == (None, None)


@pytest.mark.parametrize(
    "text",
    ["auto", "off", "lookup", "suffix", "model:x", "hybrid:/a/b.gguf", "model:hf:o/n:f.gguf", "learned", "learned:x"],
)
def test_what_can_be_written(text: str) -> None:
    assert drafter(text) == text


@pytest.mark.parametrize(
    "text", ["", "on", "model", "model:", "hybrid: ", "suffix:x", "off:", "learned:", 3, None, True]
)
def test_what_cannot_be_written(text: object) -> None:
    with pytest.raises(ValueError, match="expected auto, off, lookup, suffix"):
        drafter(text)


def test_metrics_tell_acceptance() -> None:
    stats = EngineStats(drafter="suffix", draft_checks_total=10, draft_tokens_total=80, draft_accepted_total=30)
    text = Metrics(lambda: stats).exposition().decode()
    found = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    assert found["shoal:spec_decode_num_drafts_total"] == 10
    assert found["shoal:spec_decode_num_draft_tokens_total"] == 80
    assert found["shoal:spec_decode_num_accepted_tokens_total"] == 30
    assert found["shoal:spec_decode_acceptance_length"] == 4.0


def test_metrics_tell_what_was_chosen() -> None:
    stats = EngineStats(drafter="learned", choices={"suffix": 7, "off": 2}, choice_why="off: why not")
    text = Metrics(lambda: stats).exposition().decode()
    assert 'shoal:drafter_choices_total{drafter="suffix"} 7.0' in text
    assert 'shoal:drafter_choices_total{drafter="off"} 2.0' in text


def test_what_is_learned_stays_on_disk_as_numbers_only(tmp_path: Path) -> None:
    case = Case(tuple(range(100, 164)), 40, 2, 16)
    file = tmp_path / "choices.jsonl"
    for _ in range(2):
        judge = LearnedJudge(("suffix", "off"), "suffix", file)
        assert judge.choose(case) in ("suffix", "off")
        judge.observe(case, "suffix", 50.0)
        assert sum(count for _, count in judge.choices()) == 1
        assert judge.why()
    (line, again) = file.read_text().splitlines()
    assert line == again
    assert set(json.loads(line)["features"]) == {"prompt_tokens", "max_tokens", "running", "cached_share", "repetition"}
    assert judge.why() == "suffix: nothing is predicted to be faster by more than the error of prediction"


def test_a_disk_that_refuses_costs_the_history_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    judge = LearnedJudge(("suffix", "off"), "suffix", tmp_path / "file" / "choices.jsonl")
    judge.observe(Case((1, 2), 4, 1, 0), "suffix", 50.0)
    judge.observe(Case((1, 2), 4, 1, 0), "suffix", 50.0)
    assert judge.choose(Case((1, 2), 4, 1, 0)) == "suffix"
