"""Records what bench/speculation.py replays: the default model at work, once, without drafts.

    python bench/traces/record.py [--model FILE] [--part NAME]

agentic.json  a tool loop (an agent answers eight customers, one JSON action per request, tools answered by the table
              below) and a code-edit loop (eight edits, each to the file the model wrote before), greedy.
workload.json the same once more where prompts do not hold what was answered before: a pipeline (24 messages, each
              sorted, looked up and answered by three workers that see only their own task) and edits of two files
              where an edit that is no Python is thrown away, greedy.
chat.json     twelve unlike questions of one turn, half greedy, half sampled.
Each request is stored with its messages and how many tokens the model answered, so a replay asks exactly the same.
"""

from __future__ import annotations

import argparse
import ast
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

MESSAGES = (
    ("Ana Silva", "A-1017", "Where is my order {}? I have been waiting for a week."),
    ("Ben Okafor", "A-1018", "The lamp in order {} arrived broken. Can you send me a new one?"),
    ("Chloe Martin", "A-1019", "I would like to return order {}, the seat is too small for my daughter."),
    ("Dan Novak", "A-1020", "Has order {} been sent yet? I leave for my holidays on Friday."),
    ("Eva Berg", "A-1021", "I paid twice for order {}. Please send one payment back."),
    ("Farid Haddad", "A-1022", "When will order {} be here? The courier did not come today."),
    ("Grace Lee", "A-1023", "The helmet of order {} is scratched. What can we do about it?"),
    ("Hugo Weber", "A-1024", "I want to give back order {}. It does not fit my bicycle."),
    ("Ines Costa", "A-1025", "Could you tell me where order {} is? The tracking page is empty."),
    ("Jan de Vries", "A-1026", "You charged me the wrong price for order {}."),
    ("Kira Petrova", "A-1027", "Order {} came without the screws. Can you send them to me?"),
    ("Leo Rossi", "A-1028", "How do I return order {}? I do not need it any more."),
    ("Mia Keller", "A-1029", "My order {} has not arrived and it is my son's birthday tomorrow."),
    ("Noah Smith", "A-1030", "The chain of order {} broke on the first day."),
    ("Olga Ivanova", "A-1031", "I was promised a discount on order {}, but I paid the full price."),
    ("Paul Dubois", "A-1032", "Please tell me when order {} will be delivered."),
    ("Qi Wang", "A-1033", "I would like to send back order {}, the colour is not what I expected."),
    ("Rosa Garcia", "A-1034", "There is a dent in the frame of order {}. I am very disappointed."),
    ("Sam Taylor", "A-1035", "Is order {} on its way? Nobody answers the telephone."),
    ("Tara Singh", "A-1036", "Why did you take the money for order {} two times?"),
    ("Umar Khan", "A-1037", "Where is my parcel? The number of the order is {}."),
    ("Vera Lindt", "A-1038", "The tyre of order {} loses air. I want a new one."),
    ("Will Brown", "A-1039", "I bought the wrong size in order {}. Can I change it?"),
    ("Yara Nassar", "A-1040", "Order {} should have been here on Monday. What happened?"),
)

SORTER = """You sort the messages that a bicycle shop gets. Answer with one JSON object with the keys "kind" (delivery,
damage, return or payment), "order" (the number of the order) and "summary" (one short sentence)."""

CLERK = """You look things up for a bicycle shop. Answer with one JSON object with the keys "tool" and "argument". The
tools are: track_parcel (where an order is), check_stock (whether a part is there), open_return (a label to send
something back), check_payment (what was paid). The argument is the number of the order."""

WRITER = """You answer the customers of a bicycle shop by e-mail. Be friendly and short. Say what was found out and what
happens next."""

RESULTS = {
    "track_parcel": "order {}: in the sorting centre since yesterday, delivery expected tomorrow",
    "check_stock": "order {}: the part is in stock and can be sent today",
    "open_return": "order {}: return label made, money is paid back when the parcel is here",
    "check_payment": "order {}: paid twice, one payment can be sent back within three days",
}

STACK = """class Stack:
    def __init__(self, limit):
        self.items = []
        self.limit = limit

    def push(self, item):
        if len(self.items) >= self.limit:
            raise IndexError("the stack is full")
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("the stack is empty")
        return self.items.pop()

    def peek(self):
        if not self.items:
            raise IndexError("the stack is empty")
        return self.items[-1]
"""

TEXT = """def count_words(text):
    counts = {}
    for word in text.lower().split():
        counts[word] = counts.get(word, 0) + 1
    return counts


def longest_word(text):
    best = ""
    for word in text.split():
        if len(word) > len(best):
            best = word
    return best


def average_length(text):
    words = text.split()
    if not words:
        return 0.0
    return sum(len(word) for word in words) / len(words)
"""

FILES = (
    (STACK, (
        "Add a method `size` that returns the number of items.",
        "Rename the method `peek` to `top`.",
        "Add a method `clear` that removes all items.",
        'Change the message "the stack is full" to "no more room".',
        "Add a docstring to the class.",
        "Add a method `is_empty` that returns whether there are no items.",
    )),
    (TEXT, (
        "Add a docstring to `count_words`.",
        "Rename the function `longest_word` to `find_longest`.",
        "Add a function `shortest_word` that returns the shortest word.",
        "Return 0 instead of 0.0 when there are no words.",
        "Add a docstring to `average_length`.",
        "Rename the variable `counts` to `result`.",
    )),
)  # fmt: skip


def answers_with(**properties: Any) -> str:
    """The JSON schema of an object with these properties."""
    return json.dumps(
        {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    )


SORTED = answers_with(
    kind={"enum": ["delivery", "damage", "return", "payment"]},
    order={"type": "string", "maxLength": 12},
    summary={"type": "string", "maxLength": 120},
)
CALL = answers_with(tool={"enum": list(RESULTS)}, argument={"type": "string", "maxLength": 12})

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
        request, text = await ask_edit(node, code, edit)
        done.append(request)
        if text.count("```") >= 2:
            code = text.split("```")[1].removeprefix("python\n")
    return done


async def checked_edit_loop(node: Any) -> list[dict[str, Any]]:
    """What does not parse, or has lost every class and function of the file, is not taken over."""
    done = []
    for code, edits in FILES:
        for edit in edits:
            request, text = await ask_edit(node, code, edit)
            done.append(request)
            answered = text.split("```")[1].removeprefix("python\n") if text.count("```") >= 2 else ""
            code = answered if names_of(answered) & names_of(code) else code
    return done


def names_of(code: str) -> set[str]:
    """Of the classes and functions at the top of a file; none of one that is no Python."""
    try:
        return {node.name for node in ast.parse(code).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    except SyntaxError:
        return set()


async def ask_edit(node: Any, code: str, edit: str) -> tuple[dict[str, Any], str]:
    system = "You edit Python files. Answer with the whole new file in one code block and nothing else."
    content = f"{edit}\n\n```python\n{code}```"
    request = asked(both(system, content), max_tokens=420)
    return request, await record(node, request)


async def pipeline(node: Any) -> list[dict[str, Any]]:
    """Three workers, message by message; each sees its own task alone."""
    done = []
    for name, order, words in MESSAGES:
        message = f"Message from {name}: {words.format(order)}"
        kind = asked(both(SORTER, message), constraint=SORTED, max_tokens=80)
        sorted_as = await record(node, kind)
        call = asked(both(CLERK, f"{message}\nSorted as: {sorted_as}"), constraint=CALL, max_tokens=40)
        result = RESULTS.get(read_tool(await record(node, call)), "nothing found").format(order)
        reply = asked(both(WRITER, f"{message}\nFound out: {result}."), max_tokens=120)
        await record(node, reply)
        done += [kind, call, reply]
    return done


def both(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


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


PARTS = {
    "agentic": {"tools": tool_loop, "edits": edit_loop},
    "workload": {"pipeline": pipeline, "checked_edits": checked_edit_loop},
    "chat": {"chat": chats},
}


async def main(model: Path | None, only: str | None) -> None:
    for name, parts in PARTS.items():
        file = HERE / f"{name}.json"
        trace = json.loads(file.read_text()) if file.exists() else {}
        for part, make in parts.items():
            if only in (None, part):
                async with opened(model, draft="off") as node:
                    trace[part] = await make(node)
        file.write_text(json.dumps({part: trace[part] for part in parts if part in trace}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the default model")
    parser.add_argument("--part", help="this part alone; default: all")
    given = parser.parse_args()
    asyncio.run(main(given.model, given.part))
