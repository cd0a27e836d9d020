"""The static call graph of a package: which function calls which, as far as the source alone tells."""

from __future__ import annotations

import ast
import builtins
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from house_code import Import, Module, Package, components

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
# Functions that give back what they were given, as far as its class goes.
SAME_CLASS = {"replace", "copy", "deepcopy"}
# A method with such a name is more likely one of these than the package's own.
EVERYDAY = {name for kind in (dict, list, set, str, bytes, tuple, Path) for name in dir(kind)}
TYPES = {name for name, value in vars(builtins).items() if isinstance(value, type)} - {"object", "super"}


@dataclass(frozen=True)
class Value:
    """What an expression stands for: a module, function or class of the package, an instance, or one from elsewhere."""

    kind: Literal["module", "function", "class", "instance", "external"]
    module: str = ""
    name: str = ""


EXTERNAL = Value("external")


@dataclass(frozen=True)
class Function:
    """A function or method; `owner` is its class."""

    module: Module
    node: FunctionNode
    owner: str = ""

    @property
    def name(self) -> str:
        return f"{self.owner}.{self.node.name}" if self.owner else self.node.name

    @property
    def key(self) -> str:
        return f"{self.module.name}:{self.name}"


class Class:
    """A class at the top level of a module: its methods, properties and annotated fields."""

    def __init__(self, module: Module, node: ast.ClassDef) -> None:
        self.module, self.node = module, node
        self.methods: dict[str, Function] = {}
        self.properties: set[str] = set()
        self.fields: dict[str, ast.expr] = {}
        for item in node.body:
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                self.methods.setdefault(item.name, Function(module, item, node.name))
                if {"property", "cached_property"} & {_last_name(each) for each in item.decorator_list}:
                    self.properties.add(item.name)
            elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                self.fields[item.target.id] = item.annotation
        self.attributes = {
            sub.attr
            for sub in ast.walk(node)
            if isinstance(sub, ast.Attribute) and isinstance(sub.ctx, ast.Store) and _last_name(sub.value) == "self"
        }


class Calls:
    """Function key -> keys of the functions that it calls."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.classes: dict[tuple[str, str], Class] = {}
        self.functions: dict[str, Function] = {}
        for module in package.modules.values():
            for node in module.definitions.values():
                if isinstance(node, ast.ClassDef):
                    found = self.classes[module.name, node.name] = Class(module, node)
                    self.functions |= {method.key: method for method in found.methods.values()}
                else:
                    function = Function(module, node)
                    self.functions[function.key] = function
        self.edges = {key: set(Scope(self, function).steps()) for key, function in self.functions.items()}

    @cached_property
    def owners(self) -> dict[str, list[Class]]:
        """Member name -> the classes that have it, as a method, a property, a field or an attribute of self."""
        found: dict[str, list[Class]] = defaultdict(list)
        for each in self.classes.values():
            for name in {*each.methods, *each.fields, *each.attributes}:
                found[name].append(each)
        return found

    def only(self, name: str) -> Function | None:
        """The method that alone in the package has this name."""
        owners = self.owners.get(name, [])
        return owners[0].methods.get(name) if len(owners) == 1 and name not in EVERYDAY else None

    def lineage(self, module: str, name: str) -> Iterator[Class]:
        """A class of the package and its bases in the package, nearest first."""
        todo, seen = [(module, name)], set()
        while todo:
            key = todo.pop(0)
            if key in seen or key not in self.classes:
                continue
            seen.add(key)
            found = self.classes[key]
            yield found
            for base in found.node.bases:
                value = ModuleScope(self, found.module).value(base.value if isinstance(base, ast.Subscript) else base)
                if value and value.kind == "class":
                    todo.append((value.module, value.name))

    def method(self, value: Value, name: str, *, above: bool = False) -> Function | None:
        for index, each in enumerate(self.lineage(value.module, value.name)):
            if name in each.methods and not (above and index == 0):
                return each.methods[name]
        return None

    def reachable(self, root: str) -> set[str]:
        found, todo = {root}, [root]
        while todo:
            new = self.edges[todo.pop()] - found
            found |= new
            todo += new
        return found

    def deepest(self, root: str) -> list[list[str]]:
        """One deepest chain from `root`, step by step; functions that call one another in a circle are one step."""
        inside = self.reachable(root)
        groups = components({key: self.edges[key] for key in inside})
        group_of = {key: index for index, group in enumerate(groups) for key in group}
        chains: list[list[int]] = []
        for index, group in enumerate(groups):  # what a group calls comes before it
            below = {group_of[called] for key in group for called in self.edges[key]} - {index}
            best = max((chains[each] for each in sorted(below)), key=len, default=[])
            chains.append([index, *best])
        return [groups[index] for index in chains[group_of[root]]]


class ModuleScope:
    """Names as the top level of a module sees them."""

    def __init__(self, calls: Calls, module: Module) -> None:
        self.calls, self.module, self.package = calls, module, calls.package
        self.busy: set[str] = set()

    def name(self, name: str) -> Value | None:
        """What a name stands for; None when that is not known."""
        if name in self.module.definitions or name in self.package.names[self.module.name]:
            bound = self.package.names[self.module.name].get(name)
            if name not in self.module.definitions and bound and bound.target is None:
                return EXTERNAL
            return self.found(self.package.find(self.module.name, name))
        for node in self.module.tree.body:
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                return self.guarded(name, node.value)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                return self.annotated(node.annotation)
        return EXTERNAL if name in TYPES else None

    def guarded(self, name: str, value: ast.expr) -> Value | None:
        """The value of an assignment, or None when finding it needs the name itself."""
        if name in self.busy:
            return None
        self.busy.add(name)
        try:
            return self.value(value)
        finally:
            self.busy.discard(name)

    def found(self, place: tuple[str, str | None] | None) -> Value | None:
        if place is None:
            return None
        module, name = place
        if name is None:
            return Value("module", module)
        is_class = isinstance(self.package.modules[module].definitions[name], ast.ClassDef)
        return Value("class" if is_class else "function", module, name)

    def value(self, node: ast.expr) -> Value | None:
        """What is known of an expression."""
        match node:
            case ast.Name(id=name):
                return self.name(name)
            case ast.Attribute(value=base, attr=name):
                return self.attribute(base, name)
            case ast.Call():
                return self.result(node)
            case ast.Await(value=inner) | ast.NamedExpr(value=inner) | ast.Starred(value=inner):
                return self.value(inner)
            case ast.IfExp(body=one, orelse=other):
                return self.value(one) or self.value(other)
            case ast.BoolOp(values=values):
                return next((found for each in values if (found := self.value(each))), None)
            case ast.Constant(value=None):
                return None
            case ast.Constant() | ast.JoinedStr() | ast.List() | ast.Dict() | ast.Set() | ast.Tuple():
                return EXTERNAL
            case ast.ListComp() | ast.DictComp() | ast.SetComp() | ast.GeneratorExp():
                return EXTERNAL
        return None

    def attribute(self, base: ast.expr, name: str) -> Value | None:
        owner = self.value(base)
        if owner is None or owner.kind == "function":
            return None
        if owner.kind == "module":
            return self.found(self.package.find(owner.module, name))
        if owner.kind == "external":
            return EXTERNAL
        if method := self.calls.method(owner, name):
            if method.node.name in self.calls.classes[method.module.name, method.owner].properties:
                return self.returned(method)
            return Value("function", method.module.name, method.name)
        for each in self.calls.lineage(owner.module, owner.name):
            if name in each.fields:
                return ModuleScope(self.calls, each.module).annotated(each.fields[name])
        return None

    def result(self, node: ast.Call) -> Value | None:
        """What a call gives."""
        called = self.value(node.func)
        if called is None:
            return None
        if called.kind == "class":
            return Value("instance", called.module, called.name)
        if called.kind == "function":
            return self.returned(self.calls.functions[f"{called.module}:{called.name}"])
        if called.kind == "external" and _last_name(node.func) in SAME_CLASS and node.args:
            return self.value(node.args[0])
        return EXTERNAL if called.kind == "external" else None

    def returned(self, function: Function, *, yielded: bool = False) -> Value | None:
        annotation = function.node.returns
        if yielded and isinstance(annotation, ast.Subscript):
            inner = annotation.slice
            annotation = inner.elts[0] if isinstance(inner, ast.Tuple) else inner
        if annotation is not None and _last_name(annotation) == "Self":
            return Value("instance", function.module.name, function.owner)
        return ModuleScope(self.calls, function.module).annotated(annotation)

    def annotated(self, node: ast.expr | None) -> Value | None:
        """What has this annotation."""
        match node:
            case ast.Constant(value=str(text)):
                return self.annotated(ast.parse(text, mode="eval").body)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self.annotated(left) or self.annotated(right)
            case ast.Subscript(value=outer, slice=inner):
                if _last_name(outer) in ("Annotated", "Optional", "type"):
                    first = self.annotated(inner.elts[0] if isinstance(inner, ast.Tuple) else inner)
                    if _last_name(outer) == "type" and first and first.kind == "instance":
                        return Value("class", first.module, first.name)
                    return first
                return self.annotated(outer)
            case ast.Name() | ast.Attribute():
                if _last_name(node) in ("Any", "Self", "object"):
                    return None
                found = ModuleScope(self.calls, self.module).value(node)
                if found and found.kind == "class":
                    return Value("instance", found.module, found.name)
                return found if found and found.kind == "external" else None
        return None


class Scope(ModuleScope):
    """Names as a function sees them; the functions inside it share its names."""

    def __init__(self, calls: Calls, function: Function) -> None:
        super().__init__(calls, function.module)
        self.function = function
        self.imports: dict[str, Import] = {}
        for item in self.package.imports_of(function.module, function.node):
            self.imports.setdefault(item.bound, item)
        self.annotations: dict[str, ast.expr] = {}
        self.assigned: dict[str, list[ast.expr]] = defaultdict(list)
        self.entered: dict[str, ast.expr] = {}
        self.inner: set[str] = set()
        for node in ast.walk(function.node):
            self._bind(node)

    def _bind(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() if node is not self.function.node:
                self.inner.add(node.name)
            case ast.arg(arg=name, annotation=annotation):
                self.assigned.setdefault(name, [])
                if annotation is not None:
                    self.annotations.setdefault(name, annotation)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                self.annotations.setdefault(name, annotation)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        self.assigned[target.id].append(value)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                self.assigned[name].append(value)
            case ast.withitem(context_expr=value, optional_vars=ast.Name(id=name)):
                self.entered.setdefault(name, value)
            case ast.Name(id=name, ctx=ast.Store()):
                self.assigned.setdefault(name, [])

    def name(self, name: str) -> Value | None:
        if name == "self" and self.function.owner:
            return Value("instance", self.module.name, self.function.owner)
        if name == "cls" and self.function.owner:
            return Value("class", self.module.name, self.function.owner)
        if name in self.inner:
            return EXTERNAL
        if item := self.imports.get(name):
            if item.target is None:
                return EXTERNAL
            if item.attribute is None:
                return Value("module", item.target)
            return self.found(self.package.find(item.target, item.attribute))
        if name in self.annotations and (found := self.annotated(self.annotations[name])):
            return found
        if name in self.entered:
            return self._entered(name)
        if name in self.assigned:
            return next((found for each in self.assigned[name] if (found := self.guarded(name, each))), None)
        return super().name(name)

    def _entered(self, name: str) -> Value | None:
        value = self.entered[name]
        if isinstance(value, ast.Call):
            called = self.guarded(name, value.func)
            if called and called.kind == "function":
                return self.returned(self.calls.functions[f"{called.module}:{called.name}"], yielded=True)
        return self.guarded(name, value)

    def annotated(self, node: ast.expr | None) -> Value | None:
        found = super().annotated(node)
        if found is None and isinstance(node, ast.Name) and node.id in self.imports:
            value = self.name(node.id)
            return Value("instance", value.module, value.name) if value and value.kind == "class" else None
        return found

    def called(self, node: ast.Call) -> Iterator[Function | None]:
        if isinstance(node.func, ast.Attribute) and _is_super(node.func.value):
            here = Value("class", self.module.name, self.function.owner)
            yield self.calls.method(here, node.func.attr, above=True)
            return
        called = self.value(node.func)
        if called is None:
            if isinstance(node.func, ast.Attribute) and self.value(node.func.value) is None:
                yield self.calls.only(node.func.attr)
        elif called.kind == "function":
            yield self.calls.functions[f"{called.module}:{called.name}"]
        elif called.kind == "class":
            yield from (self.calls.method(called, name) for name in ("__new__", "__init__", "__post_init__"))
        elif called.kind == "instance":
            yield self.calls.method(called, "__call__") or self.calls.method(called, "forward")

    def _property(self, node: ast.Attribute) -> Function | None:
        owner = self.value(node.value)
        found = self.calls.only(node.attr) if owner is None else None
        if owner and owner.kind == "instance":
            found = self.calls.method(owner, node.attr)
        if found and found.node.name in self.calls.classes[found.module.name, found.owner].properties:
            return found
        return None

    def steps(self) -> Iterator[str]:
        """The keys of the functions that the body of this one calls."""
        for node in (sub for statement in self.function.node.body for sub in ast.walk(statement)):
            found: list[Function | None] = []
            if isinstance(node, ast.Call):
                found = list(self.called(node))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found = [self._property(node)]
            yield from (each.key for each in found if each)


def _is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def _last_name(node: ast.expr) -> str:
    """`c` of `a.b.c`, of `c`, of `c(...)`; "" for anything else."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Call(func=func):
            return _last_name(func)
    return ""
