"""Follows the variables of a block of focus calls through its syntax tree, without running it."""

import ast
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from medeval.tools.calls.syntax import MAX_DEPTH, Dialect, MalformedError, named
from medeval.types.sample import JsonValue

# The most calls of one block: far more than any task needs.
MAX_CALLS: Final = 16

# The longest block, in characters, that is read: it bounds the parser's time and stack.
MAX_BLOCK: Final = 8_000

FUNCTION: Final = re.compile(
    r"focus_on_(columns|rows|x_values|y_values)_with_(mask|draw|highlight)"
)
IMAGE: Final = re.compile(r"image_[1-9][0-9]{0,5}")

# The variables with boxes that are bound before a program starts.
BOXES: Final[Mapping[Dialect, tuple[str, ...]]] = {
    "refocus": ("columns_bbox", "rows_bbox", "x_values_bbox", "y_values_bbox"),
    "vtool_v1": ("columns_bbox", "rows_bbox"),
    "vtool_v2": ("columns_bbox", "rows_bbox"),
}

ALLOWED: Final = (
    "a block holds only assignments and calls of the focus_on_... functions and of display, on "
    "image_1, the given boxes, earlier results and literal names"
)


@dataclass(slots=True, eq=False)
class _Image:
    """An image object of the program; `holds` names its present image: `image_1`, `result_1`."""

    holds: str


@dataclass(frozen=True, slots=True)
class _Boxes:
    variable: str


@dataclass(frozen=True, slots=True)
class _Literal:
    value: JsonValue


_Value: TypeAlias = _Image | _Boxes | _Literal


class _FailedHereError(Exception):
    """An earlier block is followed up to here: its next call failed, and the rest did not run."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What earlier blocks leave to the next: the variables, and how many calls they held."""

    names: dict[str, _Value] = field(default_factory=dict)
    n_calls: int = 0

    def reader(self, code: str, dialect: Dialect, n_executed: int | None = None) -> "BlockReader":
        """The reader of the next block, which changes a copy of the variables."""
        return BlockReader(code, dialect, deepcopy(self.names), self.n_calls, n_executed)


@dataclass(slots=True, kw_only=True)
class BlockCall:
    """One call of a block; `shown` says whether the block shows its result."""

    name: str
    arguments: dict[str, JsonValue]
    source: str
    shown: bool = False


@dataclass(slots=True)
class BlockReader:
    """Follows the variables of a block. Raises MalformedError for anything that is not allowed.

    As published, mask and draw change their image and return the same object, so that `image_1`
    keeps an earlier edit; highlight returns a new object. `names` are the variables that earlier
    blocks have bound, and `n_before` is how many calls these blocks held. With `n_executed` the
    block is followed only up to the call after so many, which failed.
    """

    code: str
    dialect: Dialect
    names: dict[str, _Value] = field(default_factory=dict)
    n_before: int = 0
    n_executed: int | None = None
    _calls: list[BlockCall] = field(default_factory=list)
    _displayed: list[tuple[_Image, str] | None] = field(default_factory=list)
    _last_made: _Image | None = None

    def calls(self) -> list[BlockCall]:
        """The calls of a block, in the order in which they would run."""
        tree = parsed(self.code)
        try:
            for statement in tree.body:
                self._follow(statement)
        except _FailedHereError:
            return self._calls
        self._mark_shown()
        return self._calls

    def _follow(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                if len(names) < len(targets):
                    raise self._refused(statement, "assigns to something other than a name")
                found = self._value(value)
                self.names.update(dict.fromkeys(names, found))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self.names[name] = self._value(value)
            case ast.Expr(value=ast.Call(func=ast.Name(id="display")) as call):
                self._display(call)
            case ast.Expr(value=value):
                self._value(value)
            case ast.Pass():
                pass
            case _:
                raise self._refused(statement, f"is {_kind(statement)}")

    def _value(self, node: ast.expr) -> _Value:
        match node:
            case ast.Name(id=name):
                return self._named(node, name)
            case ast.Call(func=ast.Name(id=name)) if FUNCTION.fullmatch(name):
                return self._focus(node, name)
            case ast.Call(func=ast.Name(id=name)):
                raise self._refused(node, f"calls a function {named(name)}")
        return _Literal(self._literal(node))

    def _named(self, node: ast.expr, name: str) -> _Value:
        if name not in self.names:
            if IMAGE.fullmatch(name):
                self.names[name] = _Image(name)
            elif name in BOXES[self.dialect]:
                self.names[name] = _Boxes(name)
            else:
                raise self._refused(node, f"uses a variable {named(name)}, which is not defined")
        return self.names[name]

    def _literal(self, node: ast.expr, depth: int = 0) -> JsonValue:
        """The value of a literal, which may hold variables bound to literals."""
        if depth > MAX_DEPTH:
            raise self._refused(node, f"holds a literal nested more than {MAX_DEPTH} deep")
        match node:
            case ast.Constant(value=None | bool() | str() as value):
                return value
            case (
                ast.Constant(value=int() | float())
                | ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float()))
            ):
                return self._number(node)
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._literal(item, depth + 1) for item in items]
            case ast.Dict(keys=keys, values=values):
                return {
                    self._key(node, key): self._literal(item, depth + 1)
                    for key, item in zip(keys, values, strict=True)
                }
            case ast.Name(id=name):
                found = self._named(node, name)
                if isinstance(found, _Literal):
                    return found.value
                raise self._refused(node, f"uses {name} where a literal belongs")
        raise self._refused(node, f"holds {_kind(node)}")

    def _number(self, node: ast.expr) -> JsonValue:
        value: object = ast.literal_eval(node)
        if isinstance(value, int | float) and math.isfinite(value):
            return value
        raise self._refused(node, "holds a number that is not finite")

    def _key(self, node: ast.expr, key: ast.expr | None) -> str:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            return key.value
        raise self._refused(node, "has a dictionary with a key that is no string")

    def _focus(self, node: ast.Call, name: str) -> _Image:
        axis = name.split("_on_")[1].split("_with_")[0]
        given = self._arguments(
            node, name, ("image", f"{axis}_to_focus_on", f"all_{axis}_bounding_boxes")
        )
        image, names, boxes = given
        if not isinstance(image, _Image):
            raise self._refused(node, f"gives {name} something that is no image")
        if not isinstance(names, _Literal):
            raise self._refused(node, f"gives {name} no list of names")
        if isinstance(boxes, _Image):
            raise self._refused(node, f"gives {name} no boxes")
        if len(self._calls) == self.n_executed:
            raise _FailedHereError
        if len(self._calls) >= MAX_CALLS:
            raise self._refused(node, f"is more than the {MAX_CALLS} calls a block may hold")
        self._calls.append(
            BlockCall(
                name=name,
                arguments={
                    "image": image.holds,
                    "names": names.value,
                    "boxes": boxes.variable if isinstance(boxes, _Boxes) else boxes.value,
                },
                source=ast.get_source_segment(self.code, node) or name,
            )
        )
        made = f"result_{self.n_before + len(self._calls)}"
        self._last_made = _Image(made) if name.endswith("_highlight") else image
        self._last_made.holds = made
        return self._last_made

    def _arguments(
        self, node: ast.Call, name: str, parameters: Sequence[str]
    ) -> tuple[_Value, _Value, _Value]:
        given: dict[str, ast.expr] = dict(zip(parameters, node.args, strict=False))
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg not in parameters or keyword.arg in given:
                raise self._refused(node, f"gives {name} arguments that it does not take")
            given[keyword.arg] = keyword.value
        if len(node.args) > len(parameters) or len(given) < len(parameters):
            raise self._refused(node, f"gives {name} not its arguments {', '.join(parameters)}")
        image, names, boxes = (self._value(given[parameter]) for parameter in parameters)
        return image, names, boxes

    def _display(self, node: ast.Call) -> None:
        if len(node.args) != 1 or node.keywords:
            raise self._refused(node, "calls display with something other than one image")
        value = self._value(node.args[0])
        self._displayed.append((value, value.holds) if isinstance(value, _Image) else None)

    def _mark_shown(self) -> None:
        """Mark the call whose result the block shows; add a display call for any other image."""
        shown = self._shown()
        number = int(shown.removeprefix("result_")) if shown.startswith("result_") else 0
        if number > self.n_before:
            self._calls[number - self.n_before - 1].shown = True
            return
        self._calls.append(
            BlockCall(
                name="display",
                arguments={"image": shown},
                source=f"display({shown})",
                shown=True,
            )
        )

    def _shown(self) -> str:
        """The name of the image that the block shows the model.

        ReFocus shows the first displayed image as it was then, or the original without any.
        VTool-R1 shows the object displayed last, which a later call may still change. Its second
        version shows the last result where the block displays nothing, and the newest variable with
        an image where the object displayed last is none.
        """
        if self.dialect == "refocus":
            images = [shown for shown in self._displayed if shown is not None]
            return images[0][1] if images else "image_1"
        last = self._displayed[-1] if self._displayed else None
        if last is not None:
            return last[0].holds
        if self.dialect == "vtool_v2":
            if not self._displayed and self._last_made is not None:
                return self._last_made.holds
            given = ("image_1", *BOXES[self.dialect])
            new = [value for name, value in self.names.items() if name not in given]
            for value in reversed(new):
                if isinstance(value, _Image):
                    return value.holds
        raise MalformedError("the block shows no image: end it with display(...)")

    def _refused(self, node: ast.AST, what: str) -> MalformedError:
        line = getattr(node, "lineno", 1)
        return MalformedError(f"line {line} of the block {what}; {ALLOWED}")


def _kind(node: ast.AST) -> str:
    """A name for a construct, in an error that the model reads."""
    kinds = {
        ast.Import: "an import",
        ast.ImportFrom: "an import",
        ast.For: "a loop",
        ast.While: "a loop",
        ast.If: "a condition",
        ast.FunctionDef: "a function of its own",
        ast.Call: "a call of something other than a function by its name",
        ast.Attribute: "an attribute",
        ast.Subscript: "a subscript",
        ast.BinOp: "an operation",
        ast.ListComp: "a comprehension",
        ast.JoinedStr: "a formatted string",
    }
    return kinds.get(type(node), "Python of another kind")


def parsed(code: str) -> ast.Module:
    """The syntax tree of a block, which is not run; MalformedError where it is no Python."""
    if not code.strip():
        raise MalformedError("the block of code is empty")
    if len(code) > MAX_BLOCK:
        raise MalformedError(f"the block of code is longer than {MAX_BLOCK} characters")
    try:
        with warnings.catch_warnings():
            # Python warns of odd code, which here is the model's
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except SyntaxError as error:
        raise MalformedError(f"the code has a syntax error in line {error.lineno}") from None
    except (ValueError, MemoryError, RecursionError):
        raise MalformedError("the code cannot be read") from None
