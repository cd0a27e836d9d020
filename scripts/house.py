"""Measures the package by reading its source; nothing of it is imported. Called by scripts/house.

How it counts:

Files are the package's *.py files. Lines are physical lines, blank ones and comments included.
A root module is a *.py file beside the package's __init__.py; __init__.py and __main__.py are none.
A room is a sub-package at the root, with all that is below it, or a *.py file at the root.
A table of contents is an __init__.py with nothing but a docstring, imports and __all__. It is never a short file.
Public definitions are the functions and classes at the top level of a file whose names begin without an underscore.
Function lengths run from `def` to the last line. Methods count, functions inside functions do not count apart.
p90 is the smallest length that nine of ten do not exceed.
An import edge goes from a file to the file it imports. The __init__.py files on the way to that file are no edges.
At import time: the import stands outside functions. Imports under `if TYPE_CHECKING` never count.
A cycle is a group of modules, or of rooms, that all reach one another.
Unused: no other module of the package imports the public definition or names it through its module.
A re-export in a room's __init__.py is no use; one in the package's own __init__.py, or in its __all__, is.
A definition that a decorator registers counts as used. So do recipes, which are addressed by name.
`Any` counts wherever the name stands, imports aside; dict[str, Any] likewise.

How it follows calls:

Calls are resolved through imports, also those inside functions and through re-exports.
A class that is called stands for its __new__, __init__ and __post_init__.
A receiver is known where it is self, a constructor's result, or annotated as a parameter, field or return value.
Any other method or property is resolved by its name where one class alone has that name, and to nothing otherwise.
Names that dict, list, set, str, bytes, tuple or Path have too are not resolved by name alone.
Functions inside functions are part of the function that holds them.
A function that is passed along and not called, a table of functions and importlib are not followed.
Depth is the number of functions in the longest chain, the first one included.
Functions that call one another in a circle are one step.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from house_calls import Calls
from house_code import Module, Package, cycles
from house_picture import draw

ROOT = Path(__file__).resolve().parents[1]
# Where a walk begins: module and function, the first that exists. A module is named from the package on.
WALKS = {
    "train": [("cli.training", "train"), ("cli.train", "train"), ("cli", "train")],
    "publish": [("cli.publishing", "publish"), ("cli.publish", "publish"), ("cli", "publish")],
    "create_model": [("models.zoo", "_entry_point"), ("models.zoo", "create_model")],
}
SHORT = 50
ENTRANCES = {"__init__", "__main__"}
ADDRESSED_BY_NAME = {"recipes"}
OWN = "its own module"
# Decorators that register nothing.
PLAIN_DECORATORS = set(
    "dataclass contextmanager asynccontextmanager cache lru_cache cached_property wraps total_ordering final "
    "runtime_checkable overload singledispatch no_grad inference_mode deprecated".split()
)


def measure(package: Package, calls: Calls) -> dict[str, Any]:
    """Every measure, with the names behind the counts."""
    modules = list(package.modules.values())
    lengths = [module.lines for module in modules]
    total = sum(lengths)
    functions = [length for module in modules for length in function_lengths(module.tree)]
    public = [(module, node) for module in modules for name, node in module.definitions.items() if name[0] != "_"]
    documented = sum(ast.get_docstring(node) is not None for _, node in public)
    short = {name_of(package, m): m.lines for m in modules if m.lines < SHORT and not is_contents(m)}
    unused = unused_definitions(package, public)
    return {
        "root_modules": sum(m.path.parent == package.folder and m.path.stem not in ENTRANCES for m in modules),
        "sub_packages": sum(module.is_init and module.path.parent != package.folder for module in modules),
        "files": len(modules),
        "lines": total,
        "public_definitions": len(public),
        "public_per_1000_lines": round(1000 * len(public) / max(total, 1), 1),
        "public_documented": round(documented / max(len(public), 1), 3),
        "short_files": dict(sorted(short.items())),
        "short_files_share": round(len(short) / len(modules), 3),
        "file_length": spread(lengths),
        "function_length": spread(functions),
        "module_cycles_at_import": cycles(package.module_edges(deferred=False)),
        "module_cycles_with_functions": cycles(package.module_edges(deferred=True)),
        **room_measures(package),
        "unused": unused,
        "dict_str_any": sum(is_dict_str_any(node) for module in modules for node in ast.walk(module.tree)),
        "any": sum(is_any(node) for module in modules for node in ast.walk(module.tree)),
        "walks": {name: walk_measures(calls, name) for name in WALKS},
    }


def room_measures(package: Package) -> dict[str, Any]:
    """Imports between rooms, those inside functions apart, and the cycles they make."""
    at_import, inside = package.room_edges("import"), package.room_edges("call")
    deferred = {room: targets - at_import[room] for room, targets in inside.items()}
    both = {room: at_import[room] | inside[room] for room in at_import}
    return {
        "room_edges_at_import": pairs(at_import),
        "room_edges_in_functions_only": pairs(deferred),
        "room_cycles_at_import": cycles(at_import),
        "room_cycles_with_functions": cycles(both),
    }


def pairs(edges: Mapping[str, Iterable[str]]) -> list[str]:
    return [f"{source} -> {target}" for source in sorted(edges) for target in sorted(edges[source])]


def name_of(package: Package, module: Module) -> str:
    return module.path.relative_to(package.folder).as_posix()


def spread(lengths: list[int]) -> dict[str, float]:
    """Median, p90 and maximum.

    >>> spread([1, 2, 3, 10])
    {'median': 2.5, 'p90': 10, 'max': 10}
    """
    if not lengths:
        return {"median": 0, "p90": 0, "max": 0}
    ordered = sorted(lengths)
    nine_of_ten = ordered[math.ceil(0.9 * len(ordered)) - 1]
    return {"median": statistics.median(ordered), "p90": nine_of_ten, "max": ordered[-1]}


def function_lengths(node: ast.AST) -> Iterator[int]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (child.end_lineno or child.lineno) - child.lineno + 1
        else:
            yield from function_lengths(child)


def is_contents(module: Module) -> bool:
    """An __init__.py that holds a docstring, imports and __all__ at most."""
    return module.is_init and all(_is_contents_line(node) for node in module.tree.body)


def _is_contents_line(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Import | ast.ImportFrom)


def is_any(node: ast.AST) -> bool:
    return (isinstance(node, ast.Name) and node.id == "Any") or (isinstance(node, ast.Attribute) and node.attr == "Any")


def is_dict_str_any(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and isinstance(node.slice, ast.Tuple)):
        return False
    key, *values = node.slice.elts
    is_str = isinstance(key, ast.Name) and key.id == "str"
    return node.value.id in ("dict", "Dict") and is_str and len(values) == 1 and is_any(values[0])


def unused_definitions(package: Package, public: list[tuple[Module, Any]]) -> list[dict[str, Any]]:
    """The public definitions that no other module uses, and who does: its own module, tests or scripts."""
    inside = {used for module in package.modules.values() for used in uses(package, module)}
    outside = {folder: outside_uses(package, folder) for folder in ("tests", "scripts")}
    promised = set(_all(package.modules[package.name]))
    found = []
    for module, node in public:
        place, room = (module.name, node.name), package.room(module.name)
        registered = any(_decorator(each) not in PLAIN_DECORATORS for each in node.decorator_list)
        if registered or place in inside or node.name in promised or room in ADDRESSED_BY_NAME:
            continue
        own = any(isinstance(sub, ast.Name) and sub.id == node.name for sub in ast.walk(module.tree))
        users = [*([OWN] if own else []), *(name for name in outside if place in outside[name])]
        found.append({"name": node.name, "place": package.place(module, node.lineno), "used_by": users})
    return found


def uses(package: Package, module: Module) -> Iterator[tuple[str, str | None]]:
    """The definitions of other modules that a module names."""
    contents = module.is_init and module.name != package.name
    loaded = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
    for place in named(package, module):
        if place[0] != module.name and not (contents and place[1] not in loaded):
            yield place


def named(package: Package, module: Module) -> Iterator[tuple[str, str | None]]:
    """Where the names are defined that a file imports, or reaches through a module that it imports."""
    modules: dict[str, str] = {}
    for item in package.imports_of(module):
        if item.target and item.attribute:
            if place := package.find(item.target, item.attribute):
                yield place
        elif item.target:
            modules[item.bound] = item.target
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and (path := _dotted(node)):
            yield from _through(package, modules, path)


def _through(package: Package, modules: dict[str, str], path: list[str]) -> Iterator[tuple[str, str | None]]:
    """`a.b.c` where `a` is a module of the package: what `c` is."""
    at = modules.get(path[0])
    for name in path[1:]:
        place = package.find(at, name) if at else None
        if place is None:
            return
        if place[1] is not None:
            yield place
            return
        at = place[0]


def outside_uses(package: Package, folder: str) -> set[tuple[str, str | None]]:
    """What the Python files of a folder beside the package name of it."""
    found: set[tuple[str, str | None]] = set()
    for path in sorted((package.folder.parent / folder).rglob("*")):
        if path.suffix not in ("", ".py") or not path.is_file():
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):  # a shell script
            continue
        found |= set(named(package, Module(f"{folder}.{path.stem}", path, tree, 0)))
    return found


def _all(module: Module) -> list[str]:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [str(item.value) for item in ast.walk(node.value) if isinstance(item, ast.Constant)]
    return []


def _decorator(node: ast.expr) -> str:
    path = _dotted(node.func if isinstance(node, ast.Call) else node)
    return path[-1] if path else ""


def _dotted(node: ast.expr) -> list[str]:
    """`a.b.c` as its three names; empty for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    inner = _dotted(node.value) if isinstance(node, ast.Attribute) else []
    return [*inner, node.attr] if inner and isinstance(node, ast.Attribute) else []


def root_of(calls: Calls, walk: str) -> str | None:
    """The function that a walk begins with, as `module:function`."""
    for module, name in WALKS[walk]:
        key = f"{calls.package.name}.{module}:{name}"
        if key in calls.functions:
            return key
    return None


def walk_measures(calls: Calls, walk: str) -> dict[str, Any] | None:
    """Depth, functions and files of a walk; None where its first function is not found."""
    root = root_of(calls, walk)
    if root is None:
        return None
    reached = calls.reachable(root)
    files = {calls.functions[key].module.name for key in reached}
    return {"root": root, "depth": len(calls.deepest(root)), "functions": len(reached), "files": len(files)}


def markdown(found: dict[str, Any]) -> str:
    """The measures as a table."""
    file_length, function_length = found["file_length"], found["function_length"]
    users = [row["used_by"] for row in found["unused"]]
    rows = [
        ("root modules", found["root_modules"]),
        ("sub-packages", found["sub_packages"]),
        ("files", found["files"]),
        ("lines", f"{found['lines']:,}"),
        ("public definitions", found["public_definitions"]),
        ("public definitions per 1,000 lines", found["public_per_1000_lines"]),
        ("public definitions with a docstring", f"{found['public_documented']:.0%}"),
        ("public definitions that no other module uses", len(users)),
        ("- of these, used in their own module alone", users.count([OWN])),
        ("- of these, used by tests or scripts", sum(bool({"tests", "scripts"} & set(each)) for each in users)),
        ("- of these, used by nobody", sum(not each for each in users)),
        (f"files under {SHORT} lines", f"{len(found['short_files'])} ({found['short_files_share']:.0%})"),
        ("file length: median / p90 / max", _spread(file_length)),
        ("function length: median / p90 / max", _spread(function_length)),
        ("import cycles between modules, at import time", len(found["module_cycles_at_import"])),
        ("import cycles between modules, imports in functions included", len(found["module_cycles_with_functions"])),
        ("imports between rooms, at import time", len(found["room_edges_at_import"])),
        ("imports between rooms, in functions only", len(found["room_edges_in_functions_only"])),
        ("import cycles between rooms, at import time", len(found["room_cycles_at_import"])),
        ("import cycles between rooms, imports in functions included", len(found["room_cycles_with_functions"])),
        ("`dict[str, Any]`", found["dict_str_any"]),
        ("`Any`", found["any"]),
    ]
    for name, walk in found["walks"].items():
        text = f"{walk['depth']} / {walk['functions']} / {walk['files']}" if walk else "not found"
        rows.append((f"walk `{name}`: depth / functions / files", text))
    table = ["| measure | value |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*table, "", *_names(found)])


def _spread(found: dict[str, float]) -> str:
    return " / ".join(f"{found[key]:g}" for key in ("median", "p90", "max"))


def _names(found: dict[str, Any]) -> Iterator[str]:
    """The names behind the counts, a line each."""
    short = ", ".join(f"{name} ({lines})" for name, lines in found["short_files"].items())
    yield f"- Files under {SHORT} lines: {short or 'none'}."
    for key, title in (
        ("module_cycles_at_import", "Cycles between modules, at import time"),
        ("module_cycles_with_functions", "Cycles between modules, imports in functions included"),
        ("room_cycles_at_import", "Cycles between rooms, at import time"),
        ("room_cycles_with_functions", "Cycles between rooms, imports in functions included"),
    ):
        yield f"- {title}: {'; '.join(' <-> '.join(group) for group in found[key]) or 'none'}."
    yield f"- Imports between rooms, in functions only: {', '.join(found['room_edges_in_functions_only']) or 'none'}."


def chain(calls: Calls, walk: str) -> str:
    """One deepest chain of a walk, a function a line."""
    root = root_of(calls, walk)
    if root is None:
        tried = ", ".join(f"{module}:{name}" for module, name in WALKS[walk])
        raise SystemExit(f"expected one of {tried} in {calls.package.name}, found none; add the new place to WALKS")
    steps = calls.deepest(root)
    lines = []
    for number, group in enumerate(steps, 1):
        before = steps[number - 2] if number > 1 else []
        entered = [key for key in group if not before or any(key in calls.edges[caller] for caller in before)]
        key = root if number == 1 else entered[0]
        function = calls.functions[key]
        others = f"  (and {len(group) - 1} in a circle with it)" if len(group) > 1 else ""
        lines.append(
            f"{number:>3}  {calls.package.place(function.module, function.node.lineno)}  {function.name}{others}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/house", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", type=Path, default=ROOT / "vcreg_hub", help="the package's folder")
    parser.add_argument("--json", action="store_true", help="every measure as JSON, with all names")
    parser.add_argument("--unused", action="store_true", help="list the public definitions that no other module uses")
    parser.add_argument("--walk", choices=WALKS, help="print one deepest chain of a walk")
    parser.add_argument("--draw", type=Path, metavar="FILE.svg", help="draw the rooms and the imports between them")
    options = parser.parse_args()
    package = Package(options.package)
    if options.draw:
        options.draw.write_text(draw(package), encoding="utf-8")
        print(options.draw)
        return
    calls = Calls(package)
    if options.walk:
        print(chain(calls, options.walk))
        return
    found = measure(package, calls)
    if options.json:
        print(json.dumps(found, indent=1))
    elif options.unused:
        for row in found["unused"]:
            print(f"{row['place']}  {row['name']}  ({', '.join(row['used_by']) or 'nobody'})")
    else:
        print(markdown(found))


if __name__ == "__main__":
    main()
