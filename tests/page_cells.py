"""Cells of a page: the names that they bind and read, and how to run one with no more of the page than it needs."""

import ast
import copy
import zlib
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import nn

from vae_lib import checks

CHECKS = ("check", "check_at_most")


def bound(node):
    """The names that a statement defines at the top level of a cell."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            } - of_comprehensions(node)


def of_comprehensions(node):
    """The names that comprehensions bind, each for itself alone."""
    loops = [part.target for part in ast.walk(node) if isinstance(part, ast.comprehension)]
    return {part.id for loop in loops for part in ast.walk(loop) if isinstance(part, ast.Name)}


def needs(sources):
    """The names that cells read before they define them. What a loop, function or comprehension binds is its own."""
    read, made = set(), set()
    for source in sources:
        for node in ast.parse(source).body:
            parts = list(ast.walk(node))
            names = {kind: {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, kind)}
                     for kind in (ast.Load, ast.Store)}
            own = of_comprehensions(node) | {part.arg for part in parts if isinstance(part, ast.arg)}
            own |= names[ast.Store] if isinstance(node, ast.For | ast.With | ast.FunctionDef | ast.ClassDef) else set()
            read |= names[ast.Load] - made - own
            made |= bound(node)
    return read


@cache
def makes(source):
    """The names that a cell defines."""
    return {name for node in ast.parse(source).body for name in bound(node)}


@cache
def changes(node):
    """The names that a statement defines, or puts something into."""
    stores = [part for part in ast.walk(node) if isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Store)]
    return bound(node) | {store.value.id for store in stores if isinstance(store.value, ast.Name)}


def calls(node, *names):
    """The calls of functions of these names in a statement."""
    return [part for part in ast.walk(node) if isinstance(part, ast.Call) and getattr(part.func, "id", "") in names]


class Without(ast.NodeTransformer):
    """Statements without what proves no equation: asserts, prints, pictures, and checks that are meant to fail."""

    def visit_Assert(self, node):
        return ast.Pass()

    def visit_Try(self, node):
        return ast.Pass()

    def visit_Expr(self, node):
        return ast.Pass() if calls(node, "print", "show", "Explorer") else node


@cache  # a mistake changes one cell, and all others are as they were
def cut(source):
    """The statements of a cell, cut behind each check."""
    bodies = [[]]
    for node in map(Without().visit, ast.parse(source).body):
        bodies[-1].append(node)
        bodies += [[]] if calls(node, *CHECKS) else []
    return bodies


code, reads = cache(ast.unparse), cache(needs)


def parts(sources):
    """The cells, cut behind each check, and each part only as far as a check or a later part needs it."""
    needed, kept = set(), []
    for body in reversed([list(body) for source in sources for body in cut(source)]):
        while body and not calls(body[-1], *CHECKS) and not changes(body[-1]) & needed:
            body.pop()
        proof = [body.pop()] if body and isinstance(body[-1], ast.Expr) and calls(body[-1], *CHECKS) else []
        kept.append(Part(*("\n".join(map(code, statements)) for statements in (body, proof))))
        needed = (needed - makes(kept[-1].body)) | reads(kept[-1])
    return kept[::-1]


class Part(NamedTuple):
    """Statements of a cell, and the check that follows them. A check in a loop stands in the body, with its loop."""

    body: str
    proof: str


class Page:
    """A page in parts, each of which can be run after no more of them than it reads from.

    Each part has a space of its own: what the set-up imports, and the names that it reads, as earlier parts left them.
    Networks are copied, so that no part trains what another one made. `number` is the equation whose checks count;
    with None all do.
    """

    def __init__(self, sources, number=None, seeds=None):
        self.sources, self.number, self.spaces = sources, number, {}
        self.set_up, self.parts = sources[0], parts(sources[1:])
        self.seeds = seeds or [zlib.crc32(part.body.encode()) for part in self.parts]
        self.makers, latest = [], {}
        for i, part in enumerate(self.parts):
            self.makers.append({name: latest[name] for name in reads(part) if name in latest})
            latest |= dict.fromkeys(makes(part.body), i)

    def origin(self, i):
        """What the space of part i comes from: what it and the parts that made what it reads do and read."""
        own = self.parts[i].body, *sorted(self.makers[i].items())
        return {own}.union(*map(self.origin, set(self.makers[i].values())))

    def checks(self, number):
        """The parts that end with a check of an equation."""
        return [i for i, part in enumerate(self.parts) for source in part for call in calls(ast.parse(source), *CHECKS)
                if call.args[0].value == number]

    def with_mistake(self, number, right, wrong):
        """The page with wrong code for right code, and the spaces of all parts that do not come from it."""
        if sum(source.count(right) for source in self.sources) != 1:
            raise ValueError(f"({number}) wanted code that stands once in the page, got {right!r}")
        other = Page([source.replace(right, wrong) for source in self.sources], number, self.seeds)
        other.spaces = {i: space for i, space in self.spaces.items() if other.origin(i) == self.origin(i)}
        return other

    def space(self, names):
        """What the set-up imports, and these names. The checks in it are those that count."""
        torch.set_default_dtype(torch.float32)
        space = {}
        exec(self.set_up, space)
        space |= {name: copy.deepcopy(made) if isinstance(made, nn.Module) else made for name, made in names.items()}
        return space | {name: partial(self.only, getattr(checks, name)) for name in CHECKS}

    def run(self, i):
        """The names of part i's space, after it was run."""
        if i not in self.spaces:
            space = self.space({name: self.run(maker)[name] for name, maker in self.makers[i].items()})
            torch.manual_seed(self.seeds[i])
            for source in self.parts[i]:
                exec(source, space)
            self.spaces[i] = space
        return self.spaces[i]

    def prove(self, i):
        """Run part i, and its check in any case. AssertionError if its equation does not hold."""
        exec(self.parts[i].proof, self.space(self.run(i)))

    def only(self, check, number, *sides, **options):
        """A check, if it is of the equation that counts."""
        if self.number in (None, number):
            check(number, *sides, **options)
