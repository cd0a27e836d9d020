"""Reads a package from its source, without importing it: modules, imports and top-level definitions."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
When = Literal["import", "call", "typing"]


@dataclass(frozen=True)
class Module:
    """A file of the package."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def is_init(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """Functions and classes at the top level, also below an `if` or a `try`."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return {node.name: node for node in top_level(self.tree.body) if isinstance(node, kinds)}


@dataclass(frozen=True)
class Import:
    """One name that an import statement binds.

    `target` is a module of the package, or None for one from elsewhere. `attribute` is the name taken out of the
    target, or None when the module itself is bound. `reached` is the module that the statement imports.
    """

    source: str
    bound: str
    target: str | None
    attribute: str | None
    reached: str | None
    when: When
    line: int


class Package:
    """The modules of a package and the imports between them."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "__init__.py").is_file():
            raise SystemExit(f"expected the folder of a package, got {folder}: it has no __init__.py; pass --package")
        self.folder = folder.resolve()
        self.name = self.folder.name
        self.modules = {module.name: module for module in self._read()}
        self.imports = [found for module in self.modules.values() for found in self.imports_of(module)]

    def _read(self) -> Iterator[Module]:
        for path in sorted(self.folder.rglob("*.py")):
            parts = [self.name, *path.relative_to(self.folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            text = path.read_text(encoding="utf-8")
            yield Module(".".join(parts), path, ast.parse(text, str(path)), len(text.splitlines()))

    def place(self, module: Module, line: int) -> str:
        """Where a line stands: `pkg/room/file.py:12`."""
        return f"{module.path.relative_to(self.folder.parent).as_posix()}:{line}"

    def room(self, name: str) -> str:
        """The sub-package of a module, or the root module itself."""
        parts = name.split(".")
        return parts[1] if len(parts) > 1 else parts[0]

    def imports_of(self, module: Module, node: ast.AST | None = None) -> Iterator[Import]:
        """What a module, or a node in it, imports."""
        for statement, when in import_statements(node or module.tree):
            yield from self._bindings(module, statement, when)

    def _bindings(self, module: Module, node: ast.Import | ast.ImportFrom, when: When) -> Iterator[Import]:
        for alias in node.names:
            if isinstance(node, ast.Import):
                bound = alias.asname or alias.name.split(".")[0]
                reached = self._known(alias.name)
                target = reached if alias.asname else self._known(bound)
                yield Import(module.name, bound, target, None, reached, when, node.lineno)
                continue
            stem = self._stem(module, node)
            bound = alias.asname or alias.name
            inner = self._known(f"{stem}.{alias.name}")
            if inner and (stem == module.name or alias.name not in self._hidden(stem)):
                yield Import(module.name, bound, inner, None, inner, when, node.lineno)
            else:
                target = self._known(stem)
                yield Import(module.name, bound, target, alias.name, target, when, node.lineno)

    def _hidden(self, name: str) -> set[str]:
        """Names that a package's __init__.py binds to something else than its file of that name, as in
        `from .walk import walk`: what others take out of the package is then the function, not the file.
        """
        module = self.modules[name]
        found = set(module.definitions)
        for node, when in import_statements(module.tree):
            if when == "import" and isinstance(node, ast.ImportFrom) and self._stem(module, node) != name:
                found |= {alias.asname or alias.name for alias in node.names}
        return found

    def _known(self, name: str) -> str | None:
        return name if name in self.modules else None

    def _stem(self, module: Module, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.name.split(".")
        up = node.level - 1 if module.is_init else node.level
        return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])

    @cached_property
    def names(self) -> dict[str, dict[str, Import]]:
        """Module -> name -> the import that binds it: at the top level, for type checking, or in `__getattr__`."""
        found: dict[str, dict[str, Import]] = {name: {} for name in self.modules}
        for module in self.modules.values():
            lazy = module.definitions.get("__getattr__")
            items = [item for item in self.imports_of(module) if item.when != "call"]
            for item in [*items, *(self.imports_of(module, lazy) if lazy else ())]:
                found[module.name].setdefault(item.bound, item)
        return found

    def find(self, module: str, name: str) -> tuple[str, str | None] | None:
        """Where a name of a module is defined, through re-exports: (module, name), or (module, None) for a module."""
        seen: set[tuple[str, str]] = set()
        while (module, name) not in seen:
            seen.add((module, name))
            if name in self.modules[module].definitions:
                return module, name
            bound = self.names[module].get(name)
            if bound is None:
                return (f"{module}.{name}", None) if f"{module}.{name}" in self.modules else None
            if bound.target is None:
                return None
            if bound.attribute is None:
                return bound.target, None
            module, name = bound.target, bound.attribute
        return None

    def module_edges(self, *, deferred: bool) -> dict[str, set[str]]:
        """Module -> modules that it imports when it is imported itself; `deferred` adds those inside functions."""
        edges: dict[str, set[str]] = {name: set() for name in self.modules}
        for item in self.imports:
            if item.reached and (item.when == "import" or (deferred and item.when == "call")):
                edges[item.source].add(item.reached)
        return edges

    def room_edges(self, when: When) -> dict[str, set[str]]:
        """Room -> other rooms that its files import, at import time or inside functions."""
        edges: dict[str, set[str]] = {self.room(name): set() for name in self.modules}
        for item in self.imports:
            if item.reached and item.when == when and self.room(item.source) != self.room(item.reached):
                edges[self.room(item.source)].add(self.room(item.reached))
        return edges


def top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body and of the `if`, `try` and `with` blocks in it."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from top_level(getattr(node, block, []))
            for handler in getattr(node, "handlers", []):
                yield from top_level(handler.body)


def import_statements(node: ast.AST, when: When = "import") -> Iterator[tuple[ast.Import | ast.ImportFrom, When]]:
    """Every import below a node, and when it is executed."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, when
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and when == "import":
        when = "call"
    typing = node.body if isinstance(node, ast.If) and _is_type_checking(node.test) else []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield from import_statements(child, "typing" if child in typing else when)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def components(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected components of a graph, each sorted; what a component reaches comes before it.

    >>> components({"a": ["b"], "b": ["a", "c"], "c": []})
    [['c'], ['a', 'b']]
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    waiting: set[str] = set()
    found: list[list[str]] = []
    for start in sorted(edges):
        walk: list[tuple[str, Iterator[str]]] = [] if start in order else [(start, iter(sorted(edges[start])))]
        if walk:
            order[start] = low[start] = len(order)
            stack.append(start)
            waiting.add(start)
        while walk:
            node, children = walk[-1]
            for child in children:
                if child not in order:
                    order[child] = low[child] = len(order)
                    stack.append(child)
                    waiting.add(child)
                    walk.append((child, iter(sorted(edges.get(child, ())))))
                    break
                if child in waiting:
                    low[node] = min(low[node], order[child])
            else:
                walk.pop()
                if walk:
                    low[walk[-1][0]] = min(low[walk[-1][0]], low[node])
                if low[node] == order[node]:
                    at = stack.index(node)
                    found.append(sorted(stack[at:]))
                    waiting -= set(stack[at:])
                    del stack[at:]
    return found


def cycles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of two or more that all reach one another, and what points at itself."""
    return sorted(group for group in components(edges) if len(group) > 1 or group[0] in edges[group[0]])
