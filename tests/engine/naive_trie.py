"""The slow twin of the suffix tree: one node per token of every suffix, probabilities by definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shoal.kernels.suffix_tree import Limits


@dataclass(slots=True)
class Node:
    """count: suffixes that run through or end here. positions: where each of them has this node's token."""

    children: dict[int, Node] = field(default_factory=dict)
    positions: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.positions)


@dataclass(slots=True)
class Draft:
    tokens: list[int] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    match: int = 0
    score: float = 0.0


class NaiveTrie:
    """Rebuilt from its sequences at every look: nothing incremental that could be wrong."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.sequences: list[list[int]] = []
        self.first = 0  # position of the oldest token

    def look(self, limits: Limits, context: Sequence[int], is_tree: bool) -> Draft:
        root, context = self._build(), list(context)[-self.depth :]
        best = Draft()
        for match in range(1, len(context)):
            node = root
            for token in context[-match:]:
                node = node.children.get(token) or Node()
            if not node.children:
                break
            budget = max(0, min(limits.cap, int(match * limits.factor + limits.offset + 1e-6)))
            draft = (_tree if is_tree else _path)(node, budget, limits.least)
            if draft.score >= best.score:
                best, best.match = draft, match
        return best

    def drop_oldest(self) -> None:
        self.first += len(self.sequences.pop(0))

    def _build(self) -> Node:
        root, position = Node(), self.first
        for sequence in self.sequences:
            for start in range(len(sequence)):
                node = root
                for offset, token in enumerate(sequence[start : start + self.depth]):
                    node = node.children.setdefault(token, Node())
                    node.positions.append(position + start + offset)
            position += len(sequence)
        return root


def _path(node: Node, budget: int, least: float) -> Draft:
    draft, p = Draft(), 1.0
    while len(draft.tokens) < budget and node.children:
        token, child = max(node.children.items(), key=lambda item: (item[1].count, item[1].positions[-1]))
        p *= child.count / node.count
        if p < least:
            break
        _emit(draft, token, p, len(draft.tokens) - 1)
        node = child
    return draft


def _tree(node: Node, budget: int, least: float) -> Draft:
    draft = Draft()
    frontier = [(1.0, 0, 0, -1, node, -1)]  # probability, latest position, -level, parent, node, token
    while frontier:
        best = max(frontier, key=lambda item: item[:3])
        frontier.remove(best)
        p, _, level, parent, node, token = best
        if level:
            if len(draft.tokens) == budget:
                break
            _emit(draft, token, p, parent)
            parent = len(draft.tokens) - 1
        frontier += [
            (p * (child.count / node.count), child.positions[-1], level - 1, parent, child, token)
            for token, child in node.children.items()
            if p * (child.count / node.count) >= least
        ]
    return draft


def _emit(draft: Draft, token: int, p: float, parent: int) -> None:
    draft.tokens.append(token)
    draft.probs.append(p)
    draft.parents.append(parent)
    draft.score += p
