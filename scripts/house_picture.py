"""Draws the rooms of a package in layers, with the imports between them. The same code gives the same SVG."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from xml.sax.saxutils import escape

from house_code import Package

Edge = tuple[str, str]
BOX_HEIGHT, GAP, ROW, MARGIN = 42, 20, 92, 40
LANE = 14  # the width that an arrow takes where it passes a layer
SWEEPS = 24
INK, PALE, PAPER, RED = "#1f2937", "#6b7280", "#fbfaf7", "#b91c1c"
FILL = {True: ("#dbeafe", "#1d4ed8"), False: ("#f1f0ea", "#78716c")}  # a sub-package; a root module
FONT = "DejaVu Sans, Verdana, Arial, sans-serif"


@dataclass
class Node:
    """A room, or the place where an arrow passes a layer."""

    name: str
    layer: int
    width: float
    x: float = 0.0
    up: list[Node] = field(default_factory=list)
    down: list[Node] = field(default_factory=list)

    @property
    def is_room(self) -> bool:
        return not self.name.startswith("->")


@dataclass(frozen=True)
class Room:
    name: str
    files: int
    lines: int
    is_package: bool

    @property
    def size(self) -> str:
        files = f"{self.files} file{'s' * (self.files != 1)}, " if self.is_package else ""
        return f"{files}{self.lines:,} line{'s' * (self.lines != 1)}"

    @property
    def width(self) -> float:
        return max(80.0, 9.0 * len(self.name) + 44, 6.4 * len(self.size) + 20)


def rooms_of(package: Package) -> dict[str, Room]:
    found: dict[str, list[int]] = defaultdict(list)
    for name, module in package.modules.items():
        found[package.room(name)].append(module.lines)
    below = {module.path.parent.name for module in package.modules.values() if module.path.parent != package.folder}
    return {name: Room(name, len(lines), sum(lines), name in below) for name, lines in sorted(found.items())}


def acyclic(edges: list[Edge]) -> tuple[set[Edge], set[Edge]]:
    """The edges that make no cycle, earlier ones preferred, and the edges that close one.

    >>> acyclic([("a", "b"), ("b", "a")])
    ({('a', 'b')}, {('b', 'a')})
    """
    kept: set[Edge] = set()
    closing: set[Edge] = set()
    for edge in edges:
        (closing if edge[0] in reach(kept, edge[1]) else kept).add(edge)
    return kept, closing


def preferred(package: Package, at_import: set[Edge], inside: set[Edge]) -> list[Edge]:
    """The edges, first those made at import time, first those of many statements: an odd one closes the cycle."""
    rooms = [(package.room(item.source), package.room(item.reached)) for item in package.imports if item.reached]
    number = Counter(rooms)
    return sorted(at_import | inside, key=lambda edge: (edge not in at_import, -number[edge], edge))


def reach(edges: set[Edge], start: str) -> set[str]:
    """What can be reached from a room, itself included."""
    found, todo = {start}, [start]
    while todo:
        at = todo.pop()
        new = {target for source, target in edges if source == at} - found
        found |= new
        todo += sorted(new)
    return found


def reduced(edges: set[Edge]) -> set[Edge]:
    """The transitive reduction: an arrow that a longer way implies is left out.

    >>> sorted(reduced({("a", "b"), ("b", "c"), ("a", "c")}))
    [('a', 'b'), ('b', 'c')]
    """
    return {edge for edge in edges if edge[1] not in reach(edges - {edge}, edge[0])}


def layers_of(names: list[str], edges: set[Edge]) -> dict[str, int]:
    """The longest way down from each room; 0 for a room that imports none."""
    found: dict[str, int] = {}

    def layer(name: str) -> int:
        if name not in found:
            found[name] = max((layer(target) + 1 for source, target in edges if source == name), default=0)
        return found[name]

    for name in names:
        layer(name)
    return found


def lay_out(rooms: dict[str, Room], edges: set[Edge]) -> tuple[list[list[Node]], dict[Edge, list[Node]]]:
    """The layers from the bottom up with every node placed, and the nodes that each arrow passes, from the top down."""
    layer = layers_of(list(rooms), edges)
    nodes = {name: Node(name, layer[name], room.width) for name, room in rooms.items()}
    rows: list[list[Node]] = [[] for _ in range(max(layer.values()) + 1)]
    for node in nodes.values():
        rows[node.layer].append(node)
    paths = {}
    lanes: dict[tuple[str, int], Node] = {}
    for source, target in sorted(edges):
        path = [nodes[source]]
        for level in range(layer[source] - 1, layer[target], -1):
            # Arrows to the same room share their way, so that they are one line for the last part of it.
            lane = lanes.get((target, level))
            if lane is None:
                lane = lanes[target, level] = Node(f"->{target}", level, LANE)
                rows[level].append(lane)
            path.append(lane)
        path.append(nodes[target])
        paths[source, target] = path
        for above, below in pairwise(path):
            if below not in above.down:
                above.down.append(below)
                below.up.append(above)
    order(rows)
    place(rows)
    return rows, paths


def crossings(rows: list[list[Node]]) -> int:
    """How many pairs of lines between neighbouring layers cross."""
    count = 0
    for row in rows[1:]:
        below = {id(node): index for index, node in enumerate(rows[row[0].layer - 1])}
        ends = [sorted(below[id(each)] for each in node.down) for node in row]
        for left in range(len(ends)):
            for right in range(left + 1, len(ends)):
                count += sum(a > b for a in ends[left] for b in ends[right])
    return count


def order(rows: list[list[Node]]) -> None:
    """Order each layer for few crossings: by the mean place of what a node touches, then by swaps of neighbours."""
    best, fewest = [list(row) for row in rows], crossings(rows)
    for sweep in range(SWEEPS):
        upward = sweep % 2 == 0
        for row in rows if upward else rows[::-1]:
            _sort_by_neighbours(rows, row, upward)
        _swap_neighbours(rows)
        if (now := crossings(rows)) < fewest:
            best, fewest = [list(row) for row in rows], now
    for row, kept in zip(rows, best):
        row[:] = kept


def _sort_by_neighbours(rows: list[list[Node]], row: list[Node], upward: bool) -> None:
    at = {id(node): (index + 0.5) / len(each) for each in rows for index, node in enumerate(each)}

    def mean(node: Node) -> float:
        near = node.down if upward else node.up
        return sum(at[id(each)] for each in near) / len(near) if near else at[id(node)]

    row.sort(key=mean)


def _swap_neighbours(rows: list[list[Node]]) -> None:
    for row in rows:
        for index in range(len(row) - 1):
            before = _crossings_of(rows, row[index], row[index + 1])
            if _crossings_of(rows, row[index + 1], row[index]) < before:
                row[index], row[index + 1] = row[index + 1], row[index]


def _crossings_of(rows: list[list[Node]], left: Node, right: Node) -> int:
    """The crossings between the lines of two nodes that stand side by side."""
    count = 0
    for level, near in ((left.layer - 1, "down"), (left.layer + 1, "up")):
        if 0 <= level < len(rows):
            at = {id(node): index for index, node in enumerate(rows[level])}
            count += sum(at[id(a)] > at[id(b)] for a in getattr(left, near) for b in getattr(right, near))
    return count


def place(rows: list[list[Node]]) -> None:
    """Give every node its x: near what it touches, without overlap."""
    for row in rows:
        _spread(row, [0.0] * len(row))
    for sweep in range(200):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            _spread(row, [_wish(node) for node in row])
    _straighten(rows)
    left = min(node.x - node.width / 2 for row in rows for node in row)
    for row in rows:
        for node in row:
            node.x += MARGIN - left


def _straighten(rows: list[list[Node]]) -> None:
    """Put the passages of an arrow below one another, as far down as the layers leave room for it."""
    for row in rows[::-1]:
        for node in row:
            if node.is_room or any(not each.is_room for each in node.up):
                continue
            run, span = [node], _room_for(rows, node)
            while (below := run[-1].down[0]) and not below.is_room:
                low, high = _room_for(rows, below)
                both = max(span[0], low), min(span[1], high)
                if both[0] > both[1]:
                    _align(run, span)
                    run, both = [], (low, high)
                run, span = [*run, below], both
            _align(run, span)


def _room_for(rows: list[list[Node]], node: Node) -> tuple[float, float]:
    """How far to the left and to the right a node can go in its layer."""
    row = rows[node.layer]
    at = next(index for index, each in enumerate(row) if each is node)
    near = (node.width / 2) + GAP / 2
    low = row[at - 1].x + row[at - 1].width / 2 + near if at else -1e6
    high = row[at + 1].x - row[at + 1].width / 2 - near if at + 1 < len(row) else 1e6
    return min(low, node.x), max(high, node.x)


def _align(run: list[Node], span: tuple[float, float]) -> None:
    middle = sum(node.x for node in run) / len(run)
    for node in run:
        node.x = min(max(middle, span[0]), span[1])


def _wish(node: Node) -> float:
    # A line between two passages weighs most, so that long arrows run straight.
    near = [(each.x, (1 if node.is_room else 2) * (1 if each.is_room else 4)) for each in [*node.up, *node.down]]
    return sum(x * weight for x, weight in near) / sum(weight for _, weight in near) if near else node.x


def _spread(row: list[Node], wishes: list[float]) -> None:
    """The places nearest to the wishes, in least squares, that keep the order and the gaps of a layer."""
    offsets = [0.0]
    for one, other in pairwise(row):
        offsets.append(offsets[-1] + (one.width + other.width) / 2 + GAP)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, number of nodes; means never fall
    for node, wish, offset in zip(row, wishes, offsets):
        weight = 1.0 if node.is_room else 4.0
        blocks.append((wish - offset, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (m1, w1, n1), (m2, w2, n2) = blocks[-2:]
            blocks[-2:] = [((m1 * w1 + m2 * w2) / (w1 + w2), w1 + w2, n1 + n2)]
    means = [mean for mean, _, number in blocks for _ in range(number)]
    for node, mean, offset in zip(row, means, offsets):
        node.x = mean + offset


def draw(package: Package) -> str:
    """The picture of a package's rooms as SVG text."""
    rooms = rooms_of(package)
    at_import = {(one, other) for one, others in package.room_edges("import").items() for other in others}
    inside = {(one, other) for one, others in package.room_edges("call").items() for other in others}
    kept, closing = acyclic(preferred(package, at_import, inside))
    edges = reduced(kept)
    rows, paths = lay_out(rooms, edges)
    width = max(node.x + node.width / 2 for row in rows for node in row) + MARGIN
    top = MARGIN + 34
    height = top + ROW * (len(rows) - 1) + BOX_HEIGHT + 126

    def y(node: Node) -> float:
        return top + ROW * (len(rows) - 1 - node.layer)

    ports = _ports(paths)
    lines = [_arrow(path, edge in at_import, y, ports) for edge, path in sorted(paths.items())]
    nodes = {node.name: node for row in rows for node in row if node.is_room}
    lines += [_back(nodes[one], nodes[other], y) for one, other in sorted(closing)]
    lines += [_box(node, rooms[node.name], y(node), package.name) for row in rows for node in row if node.is_room]
    width = max(width, 760)
    title = f"The rooms of {package.name}: an arrow points at what a room imports"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="{FONT}" role="img" aria-label="{escape(title)}">',
        "<defs>",
        *(_marker(name, colour) for name, colour in (("import", INK), ("call", PALE), ("cycle", RED))),
        "</defs>",
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="10" fill="{PAPER}"/>',
        f'<text x="{MARGIN}" y="{MARGIN}" font-size="17" font-weight="bold" fill="{INK}">{escape(title)}</text>',
    ]
    return (
        "\n".join([*head, *lines, *_caption(len(at_import | inside), len(edges | closing), height, closing), "</svg>"])
        + "\n"
    )


def _marker(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 1 L10 5 L0 9 z" fill="{colour}"/></marker>'
    )


def _ports(paths: dict[Edge, list[Node]]) -> dict[tuple[int, int], float]:
    """(upper node, lower node) -> how far from the upper one's middle their line begins; reversed, where it ends."""
    steps = {(id(a), id(b)): (a, b) for path in paths.values() for a, b in pairwise(path)}
    found = {}
    for end in (0, 1):
        groups: dict[int, list[tuple[Node, Node]]] = defaultdict(list)
        for pair in steps.values():
            groups[id(pair[end])].append(pair)
        for pairs in groups.values():
            pairs.sort(key=lambda pair: pair[1 - end].x)
            room = pairs[0][end]
            step = min(16.0, 0.7 * room.width / len(pairs)) if room.is_room else 0.0
            for index, (one, other) in enumerate(pairs):
                key = (id(one), id(other)) if end == 0 else (id(other), id(one))
                found[key] = step * (index - (len(pairs) - 1) / 2)
    return found


def _arrow(path: list[Node], solid: bool, y: Callable[[Node], float], ports: dict[tuple[int, int], float]) -> str:
    """A smooth line from a room down to another, through the places kept free for it."""
    text = ""
    for above, below in pairwise(path):
        x1, x2 = above.x + ports[id(above), id(below)], below.x + ports[id(below), id(above)]
        y1, y2 = y(above) + BOX_HEIGHT, y(below) - 1
        bend = (y2 - y1) * 0.55
        text += f" V{y1:.1f}" if text else f"M{x1:.1f} {y1:.1f}"
        text += f" C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
    kind, colour = ("import", INK) if solid else ("call", PALE)
    dash = f'stroke-width="1.3" marker-end="url(#{kind})"'
    if not solid:
        dash = f'stroke-width="1" stroke-dasharray="4 3" marker-end="url(#{kind})"'
    title = escape(f"{path[0].name} imports {path[-1].name}{'' if solid else ', inside functions only'}")
    return f'<path d="{text}" fill="none" stroke="{colour}" {dash}><title>{title}</title></path>'


def _back(one: Node, other: Node, y: Callable[[Node], float]) -> str:
    """An arrow against the layers, which closes a cycle."""
    x1, y1, x2, y2 = (
        one.x + one.width / 2,
        y(one) + BOX_HEIGHT / 2,
        other.x + other.width / 2,
        y(other) + BOX_HEIGHT / 2,
    )
    out = max(x1, x2) + 46
    return (
        f'<path d="M{x1:.1f} {y1:.1f} C{out:.1f} {y1:.1f} {out:.1f} {y2:.1f} {x2 + 1:.1f} {y2:.1f}" fill="none" '
        f'stroke="{RED}" stroke-width="1.6" marker-end="url(#cycle)">'
        f"<title>{escape(f'{one.name} imports {other.name}, which closes a cycle')}</title></path>"
    )


def _box(node: Node, room: Room, top: float, package: str) -> str:
    fill, edge = FILL[room.is_package]
    label = "__init__" if room.name == package else room.name
    suffix = "/" if room.is_package else ".py"
    return (
        f'<g><rect x="{node.x - node.width / 2:.1f}" y="{top:.1f}" width="{node.width:.1f}" height="{BOX_HEIGHT}" '
        f'rx="6" fill="{fill}" stroke="{edge}"/>'
        f'<text x="{node.x:.1f}" y="{top + 18:.1f}" font-size="13.5" font-weight="bold" text-anchor="middle" '
        f'fill="{INK}">{escape(label)}<tspan font-weight="normal" fill="{PALE}">{suffix}</tspan></text>'
        f'<text x="{node.x:.1f}" y="{top + 33:.1f}" font-size="10.5" text-anchor="middle" '
        f'fill="{INK}">{escape(room.size)}</text></g>'
    )


def _caption(imports: int, drawn: int, height: float, closing: set[Edge]) -> list[str]:
    y = height - 90
    red = f"A red arrow closes a cycle ({len(closing)})." if closing else "There is no cycle."
    words = [
        "A solid arrow is an import made when the room is imported; a dashed one is made inside functions only.",
        f"Drawn are {drawn} of {imports} imports: what follows from others (transitive reduction) is left out.",
        "Arrows that run together lead to the same room.",
        f"A room stands above everything it imports; what imports nothing stands at the bottom. {red}",
    ]
    return [
        f'<text x="{MARGIN}" y="{y + 19 * index:.0f}" font-size="12" fill="{INK}">{escape(text)}</text>'
        for index, text in enumerate(words)
    ]
