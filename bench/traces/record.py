"""Records what bench/speculation.py replays: the default model at work, once, without drafts.

    python bench/traces/record.py [--model FILE]

agentic.json  a tool loop (an agent answers eight customers, one JSON action per request, tools answered by the table
              below) and a code-edit loop (eight edits, each to the file the model wrote before), greedy.
chat.json     twelve unlike questions of one turn, half greedy, half sampled.
Each request is stored with its messages and how many tokens the model answered, so a replay asks exactly the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.replay import answer, opened

HERE = Path(__file__).parent

ACTION = json.dumps(
    {
        "type": "object",
        "properties": {
            "thought": {"type": "string", "maxLength": 160},
            "tool": {"enum": ["find_order", "find_customer", "track_parcel", "reply"]},
            "argument": {"type": "string", "maxLength": 200},
        },
        "required": ["thought", "tool", "argument"],
        "additionalProperties": False,
    }
)

AGENT = """You are the support agent of a bicycle shop. Work in steps. In every step write one JSON object with the keys
"thought" (what you know and what you need next), "tool" and "argument". The tools are:
- find_order: details of an order; the argument is the order number.
- find_customer: name and address of a customer; the argument is the customer number.
- track_parcel: where a parcel is; the argument is the parcel number.
- reply: answer the customer; the argument is the text of the answer. This ends the work."""

CUSTOMERS = (
    ("Ana Silva", "C-204", "A-1017", "P-77310", "a red city bike", "in the sorting centre of Porto"),
    ("Ben Okafor", "C-205", "A-1018", "P-77311", "two bicycle lamps", "on the van of the courier"),
    ("Chloe Martin", "C-206", "A-1019", "P-77312", "a child seat", "in the sorting centre of Lyon"),
    ("Dan Novak", "C-207", "A-1020", "P-77313", "a repair kit", "at the customs office"),
    ("Eva Berg", "C-208", "A-1021", "P-77314", "a pair of pedals", "on the van of the courier"),
    ("Farid Haddad", "C-209", "A-1022", "P-77315", "a mountain bike", "in the sorting centre of Marseille"),
    ("Grace Lee", "C-210", "A-1023", "P-77316", "a helmet", "at the post office"),
    ("Hugo Weber", "C-211", "A-1024", "P-77317", "a chain lock", "on the van of the courier"),
)

CODE = '''class Inventory:
    """Counts of items in a shop."""

    def __init__(self):
        self.items = {}

    def add(self, name, count):
        if count <= 0:
            raise ValueError("count must be positive")
        self.items[name] = self.items.get(name, 0) + count

    def remove(self, name, count):
        if name not in self.items:
            raise KeyError(name)
        if self.items[name] < count:
            raise ValueError("not enough items")
        self.items[name] -= count
        if self.items[name] == 0:
            del self.items[name]

    def total(self):
        result = 0
        for name in self.items:
            result += self.items[name]
        return result

    def report(self):
        lines = []
        for name in sorted(self.items):
            lines.append(name + ": " + str(self.items[name]))
        return "\\n".join(lines)
'''

EDITS = (
    "Rename the method `add` to `put`.",
    "Rename the method `remove` to `take`.",
    'Change the docstring of the class to "Counts of items in a warehouse.".',
    "Rename the class to `Warehouse`.",
    'Change the message "not enough items" to "too few items".',
    "Rename the variable `result` to `amount`.",
    "Rename the variable `lines` to `rows`.",
    'Change the separator ": " to " = ".',
)

CHAT = (
    "Why is the sky blue?",
    "Write a short poem about the sea in winter.",
    "Explain what a database index is to a beginner.",
    "What should I pack for a week in the mountains?",
    "Tell me a story about a fox who learns to read.",
    "How do I ask my boss for a raise?",
    "Summarise the plot of Romeo and Juliet.",
    "Give me five ideas for a birthday party for a ten year old.",
    "What is the difference between a virus and a bacterium?",
    "Describe the taste of coffee to somebody who never had it.",
    "How does a bicycle stay upright?",
    "Write a polite letter to a neighbour about loud music at night.",
)


def asked(messages: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
    return {"messages": messages, "temperature": 0.0, "constraint": None, **fields}


async def tool_loop(node: Any) -> list[dict[str, Any]]:
    """Up to four actions per customer; what the tools answer depends on the action alone."""
    done = []
    for name, customer, order, parcel, item, place in CUSTOMERS:
        answers = {
            "find_order": f"order {order}: {item}, customer {customer}, parcel {parcel}, paid",
            "find_customer": f"customer {customer}: {name}",
            "track_parcel": f"parcel {parcel}: {place}",
        }
        text = f"Customer {name} ({customer}) writes: where is my order {order}? It was {item}."
        messages = [{"role": "system", "content": AGENT}, {"role": "user", "content": text}]
        for _ in range(4):
            request = asked(list(messages), constraint=ACTION, max_tokens=140)
            text = await record(node, request)
            done.append(request)
            tool = read_tool(text)
            if tool == "reply":
                break
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": f"Result of {tool}: {answers.get(tool, 'nothing')}. Next step?"},
            ]
    return done


def read_tool(text: str) -> str:
    try:
        return str(json.loads(text)["tool"])
    except ValueError:
        return "reply"


async def edit_loop(node: Any) -> list[dict[str, Any]]:
    done, code = [], CODE
    for edit in EDITS:
        system = "You edit Python files. Answer with the whole new file in one code block and nothing else."
        content = f"{edit}\n\n```python\n{code}```"
        request = asked([{"role": "system", "content": system}, {"role": "user", "content": content}], max_tokens=420)
        text = await record(node, request)
        done.append(request)
        if text.count("```") >= 2:
            code = text.split("```")[1].removeprefix("python\n")
    return done


async def chats(node: Any) -> list[dict[str, Any]]:
    done = []
    for index, text in enumerate(CHAT):
        request = asked([{"role": "user", "content": text}], temperature=0.7 * (index % 2), max_tokens=128)
        await record(node, request)
        done.append(request)
    return done


async def record(node: Any, request: dict[str, Any]) -> str:
    """Ask; `max_tokens` becomes what was needed."""
    text, tokens, _ = await answer(node, request)
    request["max_tokens"] = len(tokens)
    print(f"{len(tokens)} tokens: {text[:90]!r}", file=sys.stderr)
    return text


async def main(model: Path | None) -> None:
    async with opened(model, draft="off") as node:
        agentic = {"tools": await tool_loop(node), "edits": await edit_loop(node)}
        write("agentic.json", agentic)
        write("chat.json", {"chat": await chats(node)})


def write(name: str, trace: dict[str, Any]) -> None:
    (HERE / name).write_text(json.dumps(trace, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the default model")
    asyncio.run(main(parser.parse_args().model))
