"""Trains the two small specialists of `bench/swarm.py`: each knows one kind of question, and that it knows no other.

    python bench/train_specialists.py OUT [STEPS]

A Llama of two layers (0.4 million weights, under 1 MB) learns answers to one part of the families of `reasoning-gym`,
and to the other parts answers that were shuffled among the questions, so that there it learns to be unsure. A quarter
of all questions (`is_held_out`) is left out of training and is what the bench asks. Two to four minutes of a core each;
another machine's sums may differ in the last digit, so the files in bench/data/specialists are the reference.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from shoal.node.tasks import Task, tasks

SPECIALISTS = {"sums": ("chain_sum", "basic_arithmetic"), "divisors": ("gcd",)}
ASKED = tuple(family for families in SPECIALISTS.values() for family in families)
FAMILIES = (*ASKED, "products")
"""Those that are asked, and one that nobody knows."""
TRAIN, BATCH, STEPS, RATE = 6000, 64, 1000, 4e-3
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
END = "<|end|>"


def is_held_out(task: Task) -> bool:
    """Whether a question is the bench's and not the training's."""
    return hashlib.sha256(task.question.encode()).digest()[0] < 64


def drawn(families: tuple[str, ...], seed: int) -> list[Task]:
    return [task for task in tasks(families, TRAIN, seed) if not is_held_out(task)]


def make_tokenizer(questions: list[str]) -> Tokenizer:
    """Bytes, with merges of the words that questions are made of; digits stay alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([question.split('"')[0] for question in questions], trainer)
    return tokenizer


def rows(own: list[Task], foreign: list[Task], draw: random.Random) -> list[tuple[str, str]]:
    answers = [task.answer for task in foreign]
    draw.shuffle(answers)
    return [(task.question, task.answer) for task in own] + [
        (task.question, answer) for task, answer in zip(foreign, answers, strict=True)
    ]


def batch(pairs: list[tuple[str, str]], tokenizer: Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels (batch, length), padded behind; only answers are learnt."""
    end = tokenizer.token_to_id(END)
    asked = [tokenizer.encode(question + "\n").ids for question, _ in pairs]
    said = [[*tokenizer.encode(answer).ids, end] for _, answer in pairs]
    length = max(len(q) + len(a) for q, a in zip(asked, said, strict=True))
    tokens = [q + a + [end] * (length - len(q) - len(a)) for q, a in zip(asked, said, strict=True)]
    labels = [[-100] * len(q) + a + [-100] * (length - len(q) - len(a)) for q, a in zip(asked, said, strict=True)]
    return torch.tensor(tokens), torch.tensor(labels)


def trained(name: str, tokenizer: Tokenizer, steps: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    draw = random.Random(name)
    foreign = tuple(family for family in FAMILIES if family not in SPECIALISTS[name])
    own, other = drawn(SPECIALISTS[name], 1), drawn(foreign, 2)
    pairs = rows(own, other[: len(own) // 2], draw)
    end = tokenizer.token_to_id(END)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    for step in range(steps):
        tokens, labels = batch(draw.sample(pairs, BATCH), tokenizer)
        optimiser.zero_grad()
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"{name} {step + 1}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def accuracy(model: LlamaForCausalLM, tokenizer: Tokenizer, questions: list[Task]) -> float:
    end, right = tokenizer.token_to_id(END), 0
    for task in questions:
        ids = torch.tensor([tokenizer.encode(task.question + "\n").ids])
        said = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=end)
        right += task.is_right(tokenizer.decode(said[0, ids.shape[1] :].tolist()))
    return right / max(1, len(questions))


def save(folder: Path, model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    model.half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"chat_template": TEMPLATE, "eos_token": END, "bos_token": None, "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def main() -> None:
    torch.set_num_threads(1)
    out, steps = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else STEPS
    tokenizer = make_tokenizer([task.question for task in drawn(FAMILIES, 3)])
    for name in SPECIALISTS:
        model = trained(name, tokenizer, steps)
        for family in FAMILIES:
            fresh = list({task.question: task for task in tasks([family], 400, 99) if is_held_out(task)}.values())[:60]
            share = accuracy(model, tokenizer, fresh)
            print(f"{name} on {family}: {share:.2f} of {len(fresh)} held-out questions", flush=True)
        save(out / name, model, tokenizer)


if __name__ == "__main__":
    main()
