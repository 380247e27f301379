"""The registry of error classes: complete, without unused entries, open to plug-ins, closed to anything else."""

from __future__ import annotations

import ast
import pickle
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm_embed_kernels import error_classes
from mm_embed_kernels.error_class_entries import HTTP
from mm_embed_kernels.error_classes import PLUGINS, by_subject, declare, lookup, transient_names
from mm_embed_kernels.errors import SampleError

ROOT = Path(__file__).parents[2]
PACKAGES = ("mm_embed_kernels", "mm_resources", "mm_assets")
# `error_class IN ('a', 'b')`, `e.error_class <> 'a'` in a statement.
_IN_SQL = re.compile(r"error_class\s*(?:=|<>|!=|(?:NOT\s+)?IN)\s*(\('[^)]*\)|'[^']*')", re.IGNORECASE)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that forgets what the test declares."""
    monkeypatch.setattr(error_classes, "_by_name", dict(error_classes._by_name))
    monkeypatch.setattr(error_classes, "_declared", dict(error_classes._declared))


class Scan(ast.NodeVisitor):
    """Error classes that a module records (first argument of SampleError, key of an event) or compares with."""

    def __init__(self, constants: dict[str, str]) -> None:
        self.constants = constants
        self.assigned: dict[str, list[ast.expr]] = defaultdict(list)
        self.recorded: set[str] = set()
        self.compared: set[str] = set()
        self.unclear: list[int] = []

    def visit_Module(self, node: ast.Module) -> None:
        for item in ast.walk(node):
            for target in item.targets if isinstance(item, ast.Assign) else ():
                if isinstance(target, ast.Name):
                    self.assigned[target.id].append(item.value)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        given = [word.value for word in node.keywords if word.arg == "error_class"]
        if name == "SampleError":
            (cause,) = given or node.args[:1]
            self._record(cause, strict=True)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "error_class":
                self._record(value, strict=False)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if "error_class" in ast.unparse(node.left):
            listed = [item for other in node.comparators for item in getattr(other, "elts", [other])]
            values = [item.value for item in listed if isinstance(item, ast.Constant)]
            self.compared |= {value for value in values if isinstance(value, str) and value}
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            for words in _IN_SQL.findall(node.value):
                self.compared |= set(re.findall(r"'([^']+)'", words))

    def _record(self, cause: ast.expr, strict: bool) -> None:
        match cause:
            case ast.Constant(value=str(name)):
                self.recorded.add(name)
            case ast.IfExp(body=one, orelse=other):
                self._record(one, strict)
                self._record(other, strict)
            case ast.BoolOp(values=values):
                for value in values:
                    self._record(value, strict)
            case ast.JoinedStr(values=[ast.Constant(value="http_"), *_]):
                self.recorded.add(HTTP)
            case ast.Name(id=name) if name in self.constants:
                self.recorded.add(self.constants[name])
            case ast.Name(id=name) if strict and name in self.assigned:
                for value in self.assigned[name]:
                    self._record(value, strict)
            case ast.Attribute(attr="error_class") | ast.Subscript() | ast.Constant(value=None):
                pass  # of another error, or of a stored row
            case _ if strict:
                self.unclear.append(cause.lineno)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def scan_all() -> dict[str, Scan]:
    trees = dict(modules())
    constants = {
        target.id: statement.value.value
        for tree in trees.values()
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name) and isinstance(statement.value.value, str)
    }
    scans = {path: Scan(constants) for path in trees}
    for path, tree in trees.items():
        scans[path].visit(tree)
    return scans


def test_every_class_of_the_packages_is_declared_and_none_is_unused() -> None:
    scans = scan_all()
    built_in = {item.name for subject, group in by_subject().items() if subject != PLUGINS for item in group}
    unclear = [f"{path}:{line}" for path, scan in scans.items() for line in scan.unclear]
    assert unclear == [], "SampleError takes a literal name here, so that this test sees it"
    recorded = {name: path for path, scan in scans.items() for name in scan.recorded}
    assert {name: path for name, path in recorded.items() if name not in built_in} == {}
    assert built_in - set(recorded) == set(), "nothing records these"
    compared = {name: path for path, scan in scans.items() for name in scan.compared}
    assert {name: path for name, path in compared.items() if lookup(name) is None} == {}
    assert {"blob_missing", "memory_limit", "http_403"} <= set(compared)


def test_the_scan_sees_each_way_of_recording() -> None:
    scan = Scan({"REJECTED": "rejected"})
    scan.visit(
        ast.parse(
            """
SampleError("a", "text")
errors.SampleError(error_class="b", message="text")
SampleError("c" if cut else "d", "text")
SampleError(f"http_{status}", "text")
event = {**row, "error_class": row["cause"] or "e"}
event = {"error_class": REJECTED}
SampleError(other.error_class, "text")
SampleError(cause, "text")
error_class = "k" if cut else "l"
SampleError(error_class, "text")
error.error_class in ("f", "g")
"SELECT * FROM failures WHERE error_class NOT IN ('h', 'i') OR error_class = 'j'"
"""
        )
    )
    assert scan.recorded == {"a", "b", "c", "d", "e", "http_NNN", "k", "l", "rejected"}
    assert scan.compared == {"f", "g", "h", "i", "j"}
    assert scan.unclear == [9]


def test_what_a_run_itself_tries_again_is_as_it_was() -> None:
    assert sorted(transient_names()) == ["fetch_error", "store_error"]


@pytest.mark.parametrize(
    "item", [item for group in by_subject().values() for item in group], ids=lambda i: i.name
)
def test_entries_are_sentences(item: error_classes.ErrorClass) -> None:
    assert re.fullmatch("[a-z_]+|http_NNN", item.name)
    for text in (item.meaning, item.action):
        assert re.fullmatch(r"[A-Z][^\n]*\.", text)
        assert text.count("`") % 2 == 0
        assert "  " not in text


def test_a_name_stands_once() -> None:
    names = [item.name for item in error_classes.error_classes()]
    assert len(names) == len(set(names))


def test_statuses_of_http_are_classes() -> None:
    found = lookup("http_404")
    assert found is not None
    assert (found.name, found.transient) == ("http_404", False)
    assert found.meaning == "The server answers with HTTP status 404 (Not Found)."
    assert "--class http_404" in found.action
    assert "HTTP status 999." in (lookup("http_999") or found).meaning  # some servers invent their own
    assert [lookup(name) for name in (HTTP, "http_", "http_4040", "http_404x")] == [None] * 4


@pytest.mark.parametrize(("name", "nearest"), [("trunkated", "truncated"), ("http_teapot", "http"), ("", "")])
def test_an_undeclared_class_cannot_be_raised(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} is not declared; the nearest is '.*{nearest}"):
        SampleError(name, "text")


@pytest.mark.usefixtures("registry")
def test_a_plugin_declares_its_own() -> None:
    text = {"meaning": "A letter is none of A, C, G, T.", "action": "Correct the file."}
    assert PLUGINS not in by_subject() or "bad_letter" not in [item.name for item in by_subject()[PLUGINS]]
    assert declare("bad_letter", **text) == "bad_letter"
    assert declare("bad_letter", **text) == "bad_letter"  # its module may be imported twice
    assert declare("gene_bank_busy", transient=True, **text) == "gene_bank_busy"
    assert SampleError("bad_letter", "X").error_class == "bad_letter"
    assert [item.name for item in by_subject()[PLUGINS]][-2:] == ["bad_letter", "gene_bank_busy"]
    assert set(transient_names()) == {"fetch_error", "store_error", "gene_bank_busy"}
    with pytest.raises(ValueError, match="'bad_letter' is declared already: A letter"):
        declare("bad_letter", meaning="Another.", action="Another.")
    with pytest.raises(ValueError, match="'truncated' is declared already"):
        declare("truncated", **text)


@pytest.mark.parametrize(
    ("name", "meaning", "action"),
    [("Bad", "A.", "B."), ("", "A.", "B."), ("http_418", "A.", "B."), ("bad", " ", "B."), ("bad", "A.", "")],
)
@pytest.mark.usefixtures("registry")
def test_a_declaration_is_complete(name: str, meaning: str, action: str) -> None:
    with pytest.raises(ValueError, match=f"error class {name!r}"):
        declare(name, meaning, action)
    assert name.startswith("http") or lookup(name) is None


def test_an_error_of_another_process_arrives_as_it_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child may have imported a module that declares a class, and its parent not."""
    with monkeypatch.context() as child:
        child.setattr(error_classes, "_by_name", dict(error_classes._by_name))
        child.setattr(error_classes, "_declared", {})
        sent = pickle.dumps(SampleError(declare("only_there", "A.", "B."), "text", retryable=True))
    assert lookup("only_there") is None
    error = pickle.loads(pickle.dumps(pickle.loads(sent)))
    assert isinstance(error, SampleError)
    assert (error.error_class, error.message, error.retryable) == ("only_there", "text", True)
    assert str(error) == "only_there: text"
