"""A Jinja2 environment in which no template can use more than so much memory and time.

Knows templates as programs and nothing of what they say. Jinja2's sandbox keeps a template from
reaching out; it lets it double a string for ever. So loops are counted here, all that a template
makes is weighed, and what may become far larger than what goes into it is estimated before.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

TEMPLATE = "<template>"
"""The file that a traceback names where a template is at fault."""

_MAX_BYTES = 16 << 20  # made by one rendering: 500 times the longest template known
_TIMES_GIVEN = 256  # and so often what it was given: texts may be cut and joined many times
_MAX_CPU_S = 0.5  # of one rendering, which takes milliseconds
_CPU_S_A_MESSAGE = 0.01  # on top: some templates look through all messages at each of them
_MAX_BITS = 4096  # of an integer: powers of longer ones take for ever, with no step to be counted
_STEPS_A_LOOK = 64  # from one look at the clock to the next: each is a call of the system
_BYTES_A_STEP = 4096  # that may be made in one: what makes more takes longer
_BYTES_A_PIECE = 80  # that a character may become where a text is taken apart

_DIGITS = re.compile(r"\d+")
_FORMATS = frozenset(("format", "format_map", "%"))
_GROWS = frozenset(("batch", "indent", "slice", "tojson", "truncate", "wordwrap", "xmlattr"))
_PADS = frozenset(("center", "expandtabs", "ljust", "rjust", "to_bytes", "translate", "zfill"))
_TAKES_APART = frozenset(("items", "list", "pprint", "rsplit", "sort", "split", "splitlines"))
_LOOKS_AT_WORDS = frozenset(("unique", "urlize", "wordcount"))


class TooMuchError(Exception):
    """A template used more than it may; the text goes on from "the chat template"."""


class Budget:
    """What one rendering may use. messages: what it is for."""

    def __init__(self, messages: Sequence[object] = ()) -> None:
        self._max_bytes = sys.maxsize
        self._max_bytes = _MAX_BYTES + _TIMES_GIVEN * self._weight(messages)
        self._n_bytes = 0
        self._n_steps = 0.0  # since the last look at the clock
        self._end_s = time.thread_time() + _MAX_CPU_S + _CPU_S_A_MESSAGE * len(messages)

    def step(self, n: float = 1) -> None:
        """Count a step of a loop, or what takes as long as `n`."""
        self._n_steps += n
        if self._n_steps >= _STEPS_A_LOOK:
            self._n_steps = 0
            if time.thread_time() > self._end_s:
                raise TooMuchError("comes to no end")

    def keep(self, value: Any) -> Any:
        """Count what was made; `value` itself."""
        n_bytes = sys.getsizeof(value)
        self.step(1 + n_bytes / _BYTES_A_STEP)
        self._n_bytes += n_bytes
        if isinstance(value, (list, tuple, dict)):
            self._weight(value)
            self._n_bytes += sum(sys.getsizeof(part) for part in value if isinstance(part, str))
        self._admit(self._n_bytes)
        return value

    def foresee(self, name: str, subject: Any, arguments: Sequence[Any]) -> None:
        """Refuse a method, a filter or an operator whose result would be too large.

        subject: what it is applied to; of `join` the items, and between them the argument
        """
        factor = max(map(self._factor, arguments), default=1)
        if name in _FORMATS and isinstance(subject, str):
            n_fields = subject.count("%") + subject.count("{")
            self._admit(sys.getsizeof(subject) + _widths(subject) + n_fields * factor)
        elif name in _GROWS | _PADS:  # with the size of an argument
            self._admit(self._weight(subject) * factor)
        elif name in _TAKES_APART | _LOOKS_AT_WORDS and isinstance(subject, str):
            self._admit(sys.getsizeof(subject) * _BYTES_A_PIECE)
        elif name == "replace" and len(arguments) > 1:
            old, new = str(arguments[0]), str(arguments[1])
            self._admit(str(subject).count(old) * sys.getsizeof(new))
        elif name == "join" and isinstance(subject, Sized):
            self._admit(self._weight(subject) + len(subject) * factor)

    def foresee_product(self, operator: str, left: Any, right: Any) -> None:
        """The same of `*` and `**`."""
        if isinstance(left, int) and isinstance(right, int):
            times = right if operator == "**" else 1
            if left.bit_length() * times + right.bit_length() > _MAX_BITS:
                raise TooMuchError("counts too far")
        elif operator == "*":
            number, value = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(number, int):
                self._admit(self._weight(value) * number)

    def _weight(self, value: Any) -> int:
        """Bytes of `value` were it written out: what is in it twice counts twice."""
        n_bytes, waiting = 0, [value]
        while waiting:
            item = waiting.pop()
            n_bytes += sys.getsizeof(item)
            if isinstance(item, Mapping):
                waiting += (*item.keys(), *item.values())
            elif isinstance(item, (list, tuple)):
                waiting += item
            self._admit(n_bytes + sys.getsizeof(waiting))
        return n_bytes

    def _factor(self, argument: Any) -> int:
        if isinstance(argument, tuple):  # of a format, with widths in it
            return max(map(self._factor, argument), default=1)
        return abs(argument) if isinstance(argument, int) else self._weight(argument)

    def _admit(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            raise TooMuchError("makes far more text than it is given")


def _widths(text: str) -> int:
    """All numbers in a format together; among them are the widths that it asks for."""
    return sum(int(digits[:20]) for digits in _DIGITS.findall(text))


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """All renderings of one template; budget: of the one under way."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, optimized=False, finalize=self._finalized)
        self.budget = Budget()
        self.globals["namespace"] = _Namespace
        del self.globals["lipsum"]  # text by the megabyte, for web pages
        for name, function in self.filters.items():
            self.filters[name] = self.bounded(name, function)
        self.filters |= {"_step": self._step, "_kept": self._kept}

    def template(self, source: str) -> tuple[jinja2.Template, nodes.Template]:
        """`source` compiled, and parsed; it raises what Jinja2 and Python raise."""
        self.budget = Budget()  # constant parts are made here
        parsed = self.parse(source)
        counted = _Counted().visit(self.parse(source))
        code = self.compile(counted, filename=TEMPLATE)
        return self.template_class.from_code(self, code, self.make_globals(None)), parsed

    def rendered(
        self, template: jinja2.Template, variables: Mapping[str, Any], budget: Budget
    ) -> str:
        """What `template` says, within `budget`; it raises whatever the template does."""
        self.budget = budget
        return "".join(map(budget.keep, template.generate(variables)))

    def concat(self, pieces: Iterable[str]) -> str:
        parts = list(pieces)
        self.budget.foresee("join", parts, [""])
        return str(self.budget.keep("".join(parts)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%":
            self.budget.foresee("%", left, [right])
        elif operator != "+":
            self.budget.foresee_product(operator, left, right)
        return self.budget.keep(super().call_binop(context, operator, left, right))

    def call(self, _context: Context, _called: Any, /, *args: Any, **kwargs: Any) -> Any:
        name, subject = getattr(_called, "__name__", ""), getattr(_called, "__self__", None)
        if name == "join" and args:
            subject, args = _listed(args[0]), (subject,)
            self.budget.foresee(name, subject, args)
            subject, args = args[0], (subject,)
        elif isinstance(subject, (str, bytes, int)):
            self.budget.foresee(name, subject, [*args, *kwargs.values()])
        return self.budget.keep(super().call(_context, _called, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The sandbox's own `str.format`, which is none of the string any more."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @functools.wraps(wrapped)
        def foreseen(*args: Any, **kwargs: Any) -> str:
            self.budget.foresee("format", value.__self__, [*args, *kwargs.values()])
            return wrapped(*args, **kwargs)

        return foreseen

    def bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that uses no more than the rendering under way may."""
        at = 1 if hasattr(function, "jinja_pass_arg") else 0  # some get the environment first

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            args = (*args[:at], *map(_listed, args[at:]))
            if len(args) > at:
                self.budget.foresee(name, args[at], [*args[at + 1 :], *kwargs.values()])
            return self.budget.keep(function(*args, **kwargs))

        return bounded

    def _step(self, _nothing: None) -> None:
        self.budget.step()

    def _kept(self, value: Any) -> Any:
        return self.budget.keep(value)

    def _finalized(self, value: Any) -> Any:
        return self.budget.keep(value)


class _Namespace(Namespace):
    """Jinja2's own, which says nothing of what is in it: it may hold itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Counted(NodeTransformer):
    """Puts a count into every loop, and has weighed what else would be made unseen."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        step = nodes.ExprStmt(_filter(nodes.Const(None), "_step"))
        self.generic_visit(node)
        node.body.insert(0, step.set_lineno(node.lineno, override=True))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "join")

    def _kept(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        is_read = getattr(node, "ctx", "load") == "load"  # and no target of an assignment
        return _filter(node, "_kept") if is_read else node

    visit_List = visit_Tuple = visit_Dict = _kept

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "_kept") if isinstance(node.arg, nodes.Slice) else node


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _listed(value: Any) -> Any:
    """`value`, whole where it would come one by one, as what `map` gives."""
    return list(value) if isinstance(value, Iterator) else value
