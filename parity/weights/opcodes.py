"""A pickle read as data: a machine with nothing on its stack that could be called.

Python's unpickler imports what a pickle names and calls it. This one knows a table of names, each with the function
of ours that stands for it, and builds numbers, texts, lists and dictionaries. It imports nothing, sets no attribute,
and takes no key but text for a key: whatever else was one is kept as an ``Odd``, whose hash is its identity, so that
no key's own hash is ever asked for (that of a tuple of tuples can take longer than the universe).
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

_MOST_MEMO = 1 << 32  # positions of the memo; as a text they may be any number
_MOST_OPERATIONS = 20_000_000


class RefusedName(Exception):
    """The pickle asks for a function or class that is not in the table."""


class Damaged(Exception):
    """What was read is no pickle, or not a whole one."""


class Odd:
    """Stands for what is not looked at: an object of a log, a key that is no text.

    Attributes:
        what: the kind of thing, in words.
    """

    def __init__(self, what: str) -> None:
        self.what = what


class Name:
    """A function or class that the pickle asks for, by its full name; never the thing itself."""

    def __init__(self, full: str, stand_in: Callable[..., Any]) -> None:
        self.full, self.stand_in = full, stand_in


Table = Mapping[str, Callable[..., Any]]


def read_pickle(file: IO[bytes], *, table: Table, persistent: Callable[[Any], Any]) -> Any:
    """Return what one pickle holds, read from where ``file`` stands to its end mark.

    Args:
        table: full name -> what stands for it, called with the arguments that the pickle has for it.
        persistent: called with each persistent id, which is how torch names a storage.

    Raises:
        RefusedName: a name that is not in ``table``.
        Damaged: anything else that is wrong.
    """
    machine = _Machine(table, persistent)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if count > _MOST_OPERATIONS:
                raise Damaged(f"more than {_MOST_OPERATIONS} operations")
            machine.do(operation.name, argument)
        return machine.stack.pop()
    except (RefusedName, Damaged):
        raise
    except Exception as error:  # a stack that is empty, a number that is none: whatever a damaged pickle comes to
        raise Damaged(f"{type(error).__name__} in its pickle") from None


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_VALUES = frozenset((*_NUMBERS, *_TEXTS, *_BYTES))
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, table: Table, persistent: Callable[[Any], Any]) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._table, self._persistent = table, persistent

    def do(self, operation: str, argument: Any) -> None:
        """Do one operation of a pickle."""
        if operation in _VALUES:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation])
        elif operation in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[operation])))
        else:
            method = getattr(self, f"_{operation.lower()}", None)
            if method is None:
                raise Damaged(f"operation {operation}, which no checkpoint needs")
            method(argument)

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise Damaged("an empty stack in its pickle")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _since_mark(self) -> list[Any]:
        return self._take(len(self.stack) - self._marks.pop())

    def _proto(self, version: int) -> None: ...

    def _frame(self, size: int) -> None: ...

    def _stop(self, _: None) -> None: ...

    def _mark(self, _: None) -> None:
        self._marks.append(len(self.stack))

    def _pop(self, _: None) -> None:
        self.stack.pop()

    def _pop_mark(self, _: None) -> None:
        self._since_mark()

    def _dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _empty_list(self, _: None) -> None:
        self.stack.append([])

    def _list(self, _: None) -> None:
        self.stack.append(self._since_mark())

    def _append(self, _: None) -> None:
        (value,) = self._take(1)
        _expect(self.stack[-1], list).append(value)

    def _appends(self, _: None) -> None:
        values = self._since_mark()
        _expect(self.stack[-1], list).extend(values)

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _dict(self, _: None) -> None:
        self.stack.append(mapping(_pairs(self._since_mark())))

    def _setitem(self, _: None) -> None:
        pairs = _pairs(self._take(2))
        self._fill(pairs)

    def _setitems(self, _: None) -> None:
        pairs = _pairs(self._since_mark())
        self._fill(pairs)

    def _fill(self, pairs: Iterator[tuple[Any, Any]]) -> None:
        if not isinstance(self.stack[-1], Odd):
            _expect(self.stack[-1], dict).update(mapping(pairs))

    def _empty_set(self, _: None) -> None:
        self.stack.append(Odd("set"))

    def _additems(self, _: None) -> None:
        self._since_mark()

    def _frozenset(self, _: None) -> None:
        self._since_mark()
        self.stack.append(Odd("frozenset"))

    def _put(self, index: int) -> None:
        if not 0 <= index < _MOST_MEMO:
            raise Damaged("a place of the memo that no pickle has")
        self._memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self._memo[index])

    _binget = _long_binget = _get

    def _global(self, names: str) -> None:
        self.stack.append(self._name(*names.split(" ", 1)))

    def _stack_global(self, _: None) -> None:
        self.stack.append(self._name(*self._take(2)))

    def _name(self, module: Any, name: Any) -> Name:
        full = f"{_expect(module, str)}.{_expect(name, str)}".replace("__builtin__.", "builtins.", 1)
        if full not in self._table:
            raise RefusedName(full)
        return Name(full, self._table[full])

    def _reduce(self, _: None) -> None:
        name, arguments = self._take(2)
        self.stack.append(_expect(name, Name).stand_in(*_expect(arguments, tuple)))

    _newobj = _reduce

    def _newobj_ex(self, _: None) -> None:
        name, arguments, _words = self._take(3)
        self.stack.append(_expect(name, Name).stand_in(*_expect(arguments, tuple)))

    def _build(self, _: None) -> None:
        """Drop an object's attributes: only what it holds as a dictionary or list is of interest."""
        self._take(1)

    def _persid(self, identity: str) -> None:
        self.stack.append(self._persistent(identity))

    def _binpersid(self, _: None) -> None:
        (identity,) = self._take(1)
        self.stack.append(self._persistent(identity))


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Damaged(f"a {type(value).__name__} in its pickle where a {kind.__name__} belongs")
    return value


def _pairs(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(values[::2], values[1::2], strict=True)


def mapping(pairs: Iterator[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a dictionary whose keys are texts, or stand for what is none."""
    return {key if isinstance(key, str) else Odd(described(key)): value for key, value in pairs}


def described(value: Any) -> str:
    """Return what something is, in a few words, without asking it for its text.

    >>> described(3), described(10**400), described([1, 2]), described({}), described(None)
    ('number 3', 'number of 1329 bits', 'list of 2', 'dict of 0', 'None')
    """
    if isinstance(value, (bool, type(None))):
        return str(value)
    if isinstance(value, int):
        return f"number {value}" if value.bit_length() < 64 else f"number of {value.bit_length()} bits"
    if isinstance(value, float):
        return f"number {value}"
    if isinstance(value, (list, tuple, dict)):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, str):
        return f"text of {len(value)} letters"
    return value.what if isinstance(value, Odd) else type(value).__name__.lower()
