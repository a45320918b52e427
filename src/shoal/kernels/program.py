"""A network recorded once as a list of C operations, then run with one call per step.

`Recorder` collects operations over values (each written once); `lower` turns them into records of csrc/program.c:
a residual addition is folded into the product before it, rows are quantised where a product needs them, and values
share buffers when their lives do not overlap.

Fields of a record by code (unused ones are 0):
  EMBED      out, weights[0], columns, f scale          NORM       in, out, p weight, columns, f eps
  QUANTIZE   in, columns                                 HEAD_NORM  in, out, p weight, heads, columns head_dim, f eps
  ROPE       out (in place), heads, columns head_dim, count rotated dims, p table
  WRITE_KV   in k, in2 v, layer                          GATED      in gate, in2 up, out, columns, layer 1 for GELU,
                                                                   count which of the feed-forwards (set by Executor)
  ADD        in, in2, out, columns                       GATHER     in, out, columns (over output rows)
  TAP        in, columns, layer (over output rows)       SOFTCAP    out (in place), columns, f cap
  PRODUCTS   in, columns, count, outs, adds, targets, weights, biases
  ATTENTION  in q, out, heads, count window or 0, layer, f scale, g softcap
  EXPERTS    in x, in2 router, out, columns, p gate, p2 up, weights[0] down, heads per token, count experts,
             flags 1 to renormalise, layer 1 for GELU
`flags` 1 on a row operation: quantise the row it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from shoal.kernels.native import Op


class Code(IntEnum):
    EMBED = 0
    NORM = 1
    QUANTIZE = 2
    HEAD_NORM = 3
    ROPE = 4
    WRITE_KV = 5
    GATED = 6
    ADD = 7
    GATHER = 8
    TAP = 9
    SOFTCAP = 10
    PRODUCTS = 11
    ATTENTION = 12
    EXPERTS = 13


IN_PLACE = frozenset({Code.ROPE, Code.SOFTCAP})


@dataclass(frozen=True, slots=True)
class Node:
    """One operation over value numbers. `addresses` of packed matrices, vectors and tables are plain integers.

    reads, writes   values, in the order of the record's in/in2 and out/outs.
    width           elements per row of what `columns` means for the code.
    is_quantized    PRODUCTS and EXPERTS: the weights want quantised rows of reads[0].
    adds            PRODUCTS: outputs that add to what their buffer holds.
    """

    code: Code
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    width: int
    on_outputs: bool = False
    is_quantized: bool = False
    quantizes: bool = False
    adds: tuple[bool, ...] = ()
    targets: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    biases: tuple[int, ...] = ()
    heads: int = 0
    layer: int = 0
    count: int = 0
    flags: int = 0
    f: float = 0.0
    g: float = 0.0
    p: int = 0
    p2: int = 0


@dataclass(slots=True)
class Recorder:
    """Nodes in program order; `columns[v]` elements per row of value v.

    given  a value that no node writes: whoever runs the program fills it before each step. -1: there is none.
    """

    nodes: list[Node] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    given: int = -1

    def value(self, columns: int) -> int:
        self.columns.append(columns)
        return len(self.columns) - 1

    def add(self, node: Node) -> None:
        self.nodes.append(node)


@dataclass(frozen=True, slots=True)
class Lowered:
    """Records ready to run. `columns[b]` elements per row of buffer b; `result` the buffer of the result.

    narrow  buffers that ever hold output rows only: the others need room for every row of a step.
    given   buffer that is filled from outside before each step, or -1.
    """

    ops: Sequence[Op]
    columns: tuple[int, ...]
    result: int
    narrow: frozenset[int] = frozenset()
    given: int = -1


def lower(recorder: Recorder, result: int) -> Lowered:
    """Records computing `result`, which keeps its buffer to the end."""
    nodes, alias = _fold_additions(recorder.nodes)
    nodes = _place_quantization(nodes)
    slots, columns = _assign_buffers(nodes, alias, recorder, result)
    wide = {slots[value] for node in nodes for value in node.writes if not node.on_outputs}
    given = slots.get(recorder.given, -1)
    narrow = frozenset(range(len(columns))) - wide - {given}
    return Lowered([_record(node, slots) for node in nodes], tuple(columns), slots[result], narrow, given)


def _last_uses(nodes: Sequence[Node]) -> dict[int, int]:
    last: dict[int, int] = {}
    for index, node in enumerate(nodes):
        for value in (*node.reads, *node.writes):
            last[value] = index
    return last


def _fold_additions(nodes: Sequence[Node]) -> tuple[list[Node], dict[int, int]]:
    """ADD(x, y) right after the product that writes y becomes that product adding to x's buffer.

    Returns the nodes and, for each value that lives in another's buffer, that other value.
    """
    last = _last_uses(nodes)
    alias = {node.writes[0]: node.reads[0] for node in nodes if node.code in IN_PLACE}
    folded: list[Node] = []
    for index, node in enumerate(nodes):
        before = folded[-1] if folded else None
        if node.code is Code.ADD and before is not None and before.code is Code.PRODUCTS and len(before.writes) == 1:
            x, y = node.reads
            if y == before.writes[0] and last[y] == index and last[x] == index and x not in before.reads:
                folded[-1] = replace(before, writes=node.writes, adds=(True,))
                alias[node.writes[0]] = x
                continue
        folded.append(node)
    return folded, alias


def _place_quantization(nodes: Sequence[Node]) -> list[Node]:
    """Before each consumer of quantised rows, its input is what was quantised last: by its producer, or by QUANTIZE."""
    placed: list[Node] = []
    current = -1
    for node in nodes:
        if node.is_quantized and current != node.reads[0]:
            value = node.reads[0]
            producer = placed[-1]
            if producer.code in (Code.NORM, Code.GATED, Code.GATHER) and producer.writes == (value,):
                placed[-1] = replace(producer, quantizes=True)
            else:
                placed.append(Node(Code.QUANTIZE, (value,), (), node.width, node.on_outputs, quantizes=True))
            current = value
        if node.code is Code.EXPERTS:
            current = -1  # experts reuse scratch of their own, not the shared rows; forget to stay safe
        if node.code in IN_PLACE and current == node.reads[0]:
            current = -1
        placed.append(node)
    return placed


def _assign_buffers(
    nodes: Sequence[Node], alias: dict[int, int], recorder: Recorder, result: int
) -> tuple[dict[int, int], list[int]]:
    """Linear scan: a buffer is free again after the last use of every value that lived in it."""
    columns, given = recorder.columns, recorder.given

    def home(value: int) -> int:
        while value in alias:
            value = alias[value]
        return value

    last: dict[int, int] = {}
    for index, node in enumerate(nodes):
        for value in (*node.reads, *node.writes):
            last[home(value)] = index
        if node.code in (Code.GATHER, Code.TAP):  # reads other rows than it writes: nothing later may reuse its input
            last[home(node.reads[0])] = len(nodes)
    last[home(result)] = len(nodes)
    slots: dict[int, int] = {given: 0} if given >= 0 else {}
    widths: list[int] = [columns[given]] if given >= 0 else []
    free: list[int] = []
    for index, node in enumerate(nodes):
        for value in node.writes:
            if home(value) not in slots:
                wanted = columns[home(value)]
                slot = next((slot for slot in free if widths[slot] == wanted), None)
                if slot is None:
                    widths.append(wanted)
                    slot = len(widths) - 1
                else:
                    free.remove(slot)
                slots[home(value)] = slot
            slots[value] = slots[home(value)]
        used = dict.fromkeys(home(value) for value in (*node.reads, *node.writes))
        free += [slots[value] for value in used if last[value] == index]
    return slots, widths


def _record(node: Node, slots: dict[int, int]) -> Op:
    op = Op(code=node.code, in1=-1, in2=-1, out=-1, columns=node.width, heads=node.heads, layer=node.layer)
    op.count, op.on_outputs, op.f, op.g = node.count, node.on_outputs, node.f, node.g
    op.p, op.p2 = node.p or None, node.p2 or None
    op.flags = node.flags or int(node.quantizes)
    reads = [slots[value] for value in node.reads]
    op.in1, op.in2 = [*reads, -1, -1][:2]
    for index, value in enumerate(node.writes):
        op.outs[index] = slots[value]
    if node.writes:
        op.out = slots[node.writes[0]]
    for index, address in enumerate(node.weights):
        op.weights[index] = address
    for index, address in enumerate(node.biases):
        op.biases[index] = address or None
    for index, is_added in enumerate(node.adds):
        op.adds[index] = is_added
    for index, target in enumerate(node.targets):
        op.targets[index] = target
    return op
