"""The conversation loop of `shoal chat`: reads lines, keeps the messages, understands a few /commands."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from shoal.core.errors import ShoalError
from shoal.core.request import Message, Sampling
from shoal.node.answering import Answer, Answerer, Question, ask
from shoal.node.background import Perform
from shoal.node.terminal import say, write

HELP = """/help           this
/reset          forget the conversation
/retry          answer the last message again
/system TEXT    set the system prompt (nothing after it: none) and forget the conversation
/exit           end, as does Ctrl-D; Ctrl-C stops an answer
A line that ends in \\ goes on in the next."""


@dataclass(slots=True)
class Conversation:
    sampling: Sampling
    system: str | None = None
    turns: list[Message] = field(default_factory=list)

    def messages(self) -> tuple[Message, ...]:
        return (*((Message("system", self.system),) if self.system else ()), *self.turns)


def converse(answerer: Answerer, perform: Perform, conversation: Conversation, history: Path) -> None:
    """Until /exit or the end of input."""
    say(f"{answerer.model} (/help for commands)")
    with_history = sys.stdin.isatty()
    if with_history:
        _load_history(history)
    try:
        while (line := _read()) is not None:
            if not _obey(line, conversation):
                _answer(answerer, perform, conversation)
    except _Exit:
        pass
    finally:
        if with_history:
            _save_history(history)


class _Exit(Exception):
    """The user said /exit."""


def _read() -> str | None:
    """A message, or None at the end of input. Ctrl-C drops what was typed."""
    lines: list[str] = []
    while True:
        try:
            line = input("... " if lines else "> ") if sys.stdin.isatty() else input()
        except EOFError:
            return None
        except KeyboardInterrupt:
            say("\n(Ctrl-D or /exit to end)")
            lines = []
            continue
        lines.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            return "\n".join(lines)


def _obey(line: str, conversation: Conversation) -> bool:
    """Carry out a /command, or take a message into the conversation. True when there is nothing to answer."""
    word, _, rest = line.strip().partition(" ")
    match word:
        case "":
            return True
        case "/exit" | "/quit":
            raise _Exit
        case "/reset":
            conversation.turns.clear()
        case "/system":
            conversation.system = rest.strip() or None
            conversation.turns.clear()
        case "/retry":
            return not _drop_answer(conversation)
        case _ if word.startswith("/"):
            say(HELP if word == "/help" else f"{word} is no command\n{HELP}")
        case _:
            conversation.turns.append(Message("user", line))
            return False
    return True


def _drop_answer(conversation: Conversation) -> bool:
    """Take the last answer back; False if there is no message to answer."""
    if conversation.turns and conversation.turns[-1].role == "assistant":
        conversation.turns.pop()
    return bool(conversation.turns)


def _answer(answerer: Answerer, perform: Perform, conversation: Conversation) -> None:
    """Stream the answer and keep it. A failed or stopped one leaves the question for /retry."""
    began = time.monotonic()
    try:
        answer = perform(ask(answerer, Question(conversation.messages(), conversation.sampling), is_shown=True))
    except KeyboardInterrupt:
        say("\n(stopped)")
        return
    except ShoalError as error:
        say(f"\nshoal: {error}")
        return
    write("\n")
    conversation.turns.append(Message("assistant", answer.text))
    say(_cost(answer, time.monotonic() - began))


def _cost(answer: Answer, elapsed_s: float) -> str:
    if answer.usage is None:
        return ""
    tokens = answer.usage.completion_tokens
    note = ", cut at the limit" if answer.finish_reason == "length" else ""
    return f"[{tokens} tokens, {tokens / max(elapsed_s, 1e-9):.1f} per second{note}]"


def _load_history(path: Path) -> None:
    try:
        import readline

        readline.read_history_file(path)
    except (ImportError, OSError):  # a Python without readline, or the first conversation
        return


def _save_history(path: Path) -> None:
    try:
        import readline

        path.parent.mkdir(parents=True, exist_ok=True)
        readline.set_history_length(1000)
        readline.write_history_file(path)
        path.chmod(0o600)
    except (ImportError, OSError) as error:
        say(f"the history could not be kept: {error}")
