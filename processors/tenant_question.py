"""What a tenant may ask: one view, of one tenant, in one shape. A statement goes in; one of our own making comes out.

    SELECT * | expression [AS name], …  FROM view(since = …, until = …, …)
        [WHERE column = value [AND …]] [ORDER BY column [DESC] [NULLS LAST], …] [LIMIT n [OFFSET n]]

    expression   columns and numbers with + - * / and parentheses
    since, until '2026-11-01', a number of seconds, {name:String}, or now() | today() [- INTERVAL 7 DAY], in toString() or not

Nothing of the statement is handed on. It is read word by word, and written anew from words of ours, plain names in backticks,
numbers, and bound values; the tenant is the token's. So what a statement could mean to ClickHouse beyond this does not matter.

Expressions stand in the list of columns alone. A condition compares a column with a value, which cannot fail on a row:
ClickHouse may look at it before it looks at whose row it is. So a condition names columns of the view, and nothing that the
list of columns names with AS: ClickHouse would put the expression in its place. The order is made of the tenant's rows alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NoReturn

from ..schemas.errors import TidegateError

_USAGE: Final = ("by", "since", "until")
_RANGE: Final = ("since", "until")
# The views, and what each takes beside the tenant. One stands here once the tests have seen that all it reads is the tenant's.
VIEWS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "blocks": _RANGE,
        "cost_by": _USAGE,
        "days_by": _USAGE,
        "errors_by": _USAGE,
        "expensive_users": _RANGE,
        "findings_by": _USAGE,
        "latency_by": _USAGE,
        "phi_leaks": _RANGE,
        "policy_states": _RANGE,
        "prompt_versions": ("prompt", *_RANGE),
        "retrieval_by": _USAGE,
        "slowest_calls": (*_RANGE, "rows"),
        "tokens_by": _USAGE,
        "unpriced_models": _RANGE,
    }
)
# Formats that hold the answer and nothing else: some tell of how much was read, which is everybody's.
FORMATS: Final = frozenset(
    {
        *("Arrow", "ArrowStream", "CSV", "CSVWithNames", "CSVWithNamesAndTypes", "JSON", "JSONCompact", "JSONCompactEachRow"),
        *("JSONCompactEachRowWithNames", "JSONCompactEachRowWithNamesAndTypes", "JSONEachRow", "JSONStrings", "Markdown"),
        *(
            "Native",
            "Null",
            "Parquet",
            "Pretty",
            "PrettyCompact",
            "RowBinary",
            "RowBinaryWithNames",
            "RowBinaryWithNamesAndTypes",
        ),
        *("TabSeparated", "TabSeparatedWithNames", "TabSeparatedWithNamesAndTypes", "TSV", "TSVWithNames"),
        *("TSVWithNamesAndTypes", "Vertical"),
    }
)

# The longest question that people wrote is a tenth of this.
MAX_CHARACTERS: Final = 8_192
# Parentheses in one another; each is a call of the reader's own.
_MAX_DEPTH: Final = 20
_SYNTAX: Final = 62
_DENIED: Final = 497

# What clients ask before anything is asked of them. Of the settings they get those that are as ClickHouse comes.
_SETTINGS: Final = "SELECT name, value, readonly FROM system.settings"
_HANDSHAKE: Final[Mapping[str, str]] = {
    "select 1": "SELECT 1",
    "select 1 as check": "SELECT 1 AS check",
    "select version()": "SELECT version()",
    "select timezone()": "SELECT timezone()",
    "select version(), timezone()": "SELECT version(), timezone()",
    "select currentdatabase()": "SELECT 'tidegate' AS `currentDatabase()`",
    f"{_SETTINGS.lower()} limit 10000": f"{_SETTINGS} WHERE NOT changed OR name = 'readonly'",
    "show databases": "SELECT 'tidegate' AS name",
    **dict.fromkeys(
        ("show tables", "show tables from tidegate"),
        f"SELECT arrayJoin([{', '.join(repr(view) for view in VIEWS)}]) AS name",
    ),
}

_WORDS: Final = re.compile(
    r"""\s*(?:
        (?P<word>[A-Za-z]\w{0,63}(?!\w))
      | (?P<number>\d{1,15}(?:\.\d{1,9})?(?![\w.]))
      | (?P<text>'(?:[^'\\]|\\[\\']|'')*')
      | (?P<slot>\{\s*\w+\s*:\s*\w+\s*\})
      | (?P<sign><=|>=|!=|<>|[-+*/(),=<>])
      | (?P<end>\Z)
    )""",
    re.VERBOSE | re.ASCII,
)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
_WHOLE: Final = re.compile(r"-?\d{1,18}\Z", re.ASCII)
_WHOLE_TYPES: Final = frozenset(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
_TEXT_TYPES: Final = frozenset({"String", "Date", "DateTime", "DateTime64"})
_COMPARISONS: Final = ("=", "!=", "<>", "<", "<=", ">", ">=")
_UNITS: Final = ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR")


class QuestionRefused(TidegateError):
    """A question that a tenant may not ask. `code` is ClickHouse's number for it; the message says what may be asked."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}. DB::Exception: {reason}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Question:
    """A statement that is safe to ask for its tenant, with the values that are bound in it."""

    sql: str
    values: dict[str, Any] = field(default_factory=dict)


def question(statement: str, given: Mapping[str, str], tenant: str) -> Question:
    """What to ask for `tenant`. `given`: the request's parameters, as ClickHouse escapes them. Raises `QuestionRefused`."""
    if len(statement) > MAX_CHARACTERS:
        raise QuestionRefused(_SYNTAX, f"a tenant's question has at most {MAX_CHARACTERS} characters")
    known = _HANDSHAKE.get(" ".join(statement.split()).lower())
    return Question(known) if known is not None else _Reader(statement, given, tenant).question()


class _Reader:
    """Reads a statement from left to right, and writes its own."""

    def __init__(self, statement: str, given: Mapping[str, str], tenant: str) -> None:
        self._statement = statement
        self._given = given
        self._tenant = tenant
        self._values: dict[str, Any] = {}
        self._named: set[str] = set()
        self._at = 0
        self._next()

    def _next(self) -> None:
        found = _WORDS.match(self._statement, self._at)
        if found is None:
            self._refuse()
        self._end, self._kind, self._text = found.end(), str(found.lastgroup), found[str(found.lastgroup)]

    def _advance(self) -> str:
        taken, self._at = self._text, self._end
        self._next()
        return taken

    def _is(self, *words: str) -> bool:
        return self._kind in ("word", "sign") and self._text.upper() in words

    def _take(self, *words: str) -> bool:
        """Go on behind one of these words or signs, if it is next."""
        if not self._is(*words):
            return False
        self._advance()
        return True

    def _expect(self, *words: str) -> None:
        if not self._take(*words):
            self._refuse()

    def _of(self, kind: str) -> str:
        if self._kind != kind:
            self._refuse()
        return self._advance()

    def _refuse(self) -> NoReturn:
        near = ascii(self._statement[self._at : self._at + 20].strip())
        raise QuestionRefused(
            _DENIED,
            f"a tenant may ask SELECT columns FROM view(since = '…', until = '…') [WHERE column = value AND …]"
            f" [ORDER BY column] [LIMIT n], and nothing else; not understood at {near}",
        )

    # statements

    def question(self) -> Question:
        if self._take("DESCRIBE", "DESC"):
            self._take("TABLE")
            sql = f"DESCRIBE (SELECT * FROM {self._sample(self._view())})"
        else:
            sql = self._select()
        if self._kind != "end":
            self._refuse()
        return Question(sql, self._values)

    def _select(self) -> str:
        self._expect("SELECT")
        columns = "*" if self._take("*") else self._columns()
        self._expect("FROM")
        view = self._view()
        parts = [f"SELECT {columns} FROM {self._called(view)}"]
        if self._take("WHERE"):
            parts.append(f"WHERE {self._conditions()}")
        if self._take("ORDER"):
            self._expect("BY")
            parts.append(f"ORDER BY {self._order()}")
        if self._take("LIMIT"):
            parts.append(f"LIMIT {self._count()}")
            if self._take("OFFSET"):
                parts.append(f"OFFSET {self._count()}")
        return " ".join(parts)

    def _view(self) -> str:
        view = self._of("word")
        if view not in VIEWS:
            raise QuestionRefused(_DENIED, f"a tenant may ask these views: {', '.join(VIEWS)}")
        return view

    def _columns(self) -> str:
        columns = [self._column()]
        while self._take(","):
            columns.append(self._column())
        return ", ".join(columns)

    def _column(self) -> str:
        expression = self._sum(0)
        if not self._take("AS"):
            return expression
        name = self._name()
        self._named.add(name)
        return f"{expression} AS {name}"

    def _sum(self, depth: int) -> str:
        found = self._product(depth)
        while self._is("+", "-"):
            found = f"{found} {self._advance()} {self._product(depth)}"
        return found

    def _product(self, depth: int) -> str:
        found = self._factor(depth)
        while self._is("*", "/"):
            found = f"{found} {self._advance()} {self._factor(depth)}"
        return found

    def _factor(self, depth: int) -> str:
        if self._kind == "number":
            return self._advance()
        if depth < _MAX_DEPTH and self._take("("):
            inner = self._sum(depth + 1)
            self._expect(")")
            return f"({inner})"
        return self._name()

    def _name(self) -> str:
        return f"`{self._of('word')}`"

    def _count(self) -> str:
        number = self._of("number")
        if not _WHOLE.match(number):
            self._refuse()
        return number

    def _order(self) -> str:
        orders = [self._ordered()]
        while self._take(","):
            orders.append(self._ordered())
        return ", ".join(orders)

    def _ordered(self) -> str:
        order = self._name()
        if self._is("ASC", "DESC"):
            order += f" {self._advance().upper()}"
        if self._take("NULLS"):
            if not self._is("FIRST", "LAST"):
                self._refuse()
            order += f" NULLS {self._advance().upper()}"
        return order

    def _conditions(self) -> str:
        conditions = [self._condition()]
        while self._take("AND"):
            conditions.append(self._condition())
        return " AND ".join(conditions)

    def _condition(self) -> str:
        column = self._name()
        if column in self._named:
            raise QuestionRefused(
                _DENIED, f"WHERE takes columns of the view, and {column} is a name given with AS; give it another name"
            )
        if self._take("IS"):
            negated = " NOT" if self._take("NOT") else ""
            self._expect("NULL")
            return f"{column} IS{negated} NULL"
        if not self._is(*_COMPARISONS):
            self._refuse()
        comparison = self._advance()
        if self._take("-"):
            return f"{column} {comparison} -{self._of('number')}"
        return f"{column} {comparison} {self._advance() if self._kind == 'number' else self._bound(self._value())}"

    # views and their values

    def _called(self, view: str) -> str:
        self._expect("(")
        told: dict[str, str] = {}
        while not self._is(")"):
            name = self._of("word")
            if name in told or name not in (*VIEWS[view], "tenant"):
                raise QuestionRefused(_SYNTAX, f"{view} takes, once each: {', '.join(VIEWS[view])}; the tenant is the token's")
            self._expect("=")
            told[name] = self._argument(name)
            if not self._take(","):
                break
        self._expect(")")
        if missing := [name for name in VIEWS[view] if name not in told]:
            raise QuestionRefused(_SYNTAX, f"{view} also needs {', '.join(missing)}")
        told["tenant"] = self._bound(self._tenant)
        return f"{view}({', '.join(f'{name} = {value}' for name, value in told.items())})"

    def _argument(self, name: str) -> str:
        if name in _RANGE and self._is("NOW", "TODAY", "TOSTRING"):
            return self._moment()
        value = self._advance() if self._kind == "number" else self._value()
        if name == "rows":
            if not _WHOLE.match(str(value)) or int(value) < 0:
                self._refuse()
            return self._bound(int(value))
        if name == "tenant" and value != self._tenant:
            raise QuestionRefused(_DENIED, "a token is of one tenant: leave `tenant` out, or give that one")
        return self._bound(str(value))

    def _moment(self) -> str:
        wrapped = self._take("TOSTRING")
        if wrapped:
            self._expect("(")
        if not self._is("NOW", "TODAY"):
            self._refuse()
        moment = f"{self._advance().lower()}()"
        self._expect("(")
        self._expect(")")
        if self._is("-", "+"):
            sign = self._advance()
            self._expect("INTERVAL")
            number = self._count()
            if not self._is(*_UNITS):
                self._refuse()
            moment += f" {sign} INTERVAL {number} {self._advance().upper()}"
        if wrapped:
            self._expect(")")
        return f"toString({moment})"

    def _value(self) -> str | int:
        """A text in quotes, or the value of a parameter."""
        if self._kind == "text":
            text = self._advance()[1:-1].replace("''", "'")
            return _ESCAPED.sub(r"\1", text)
        name, _, kind = self._of("slot")[1:-1].partition(":")
        name, kind = name.strip(), kind.strip()
        if kind not in _TEXT_TYPES | _WHOLE_TYPES:
            raise QuestionRefused(_DENIED, f"a tenant's parameters are {', '.join(sorted(_TEXT_TYPES | _WHOLE_TYPES))}")
        if name not in self._given:
            raise QuestionRefused(_SYNTAX, f"the parameter {name} has no value")
        value = _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), self._given[name])
        if kind in _TEXT_TYPES:
            return value
        if not _WHOLE.match(value):
            raise QuestionRefused(_SYNTAX, f"the parameter {name} is no whole number")
        return int(value)

    def _bound(self, value: str | int) -> str:
        name = f"v{len(self._values)}"
        self._values[name] = value
        return f"{{{name}:{'String' if isinstance(value, str) else 'Int64'}}}"

    def _sample(self, view: str) -> str:
        """The view over no time at all."""
        sample: dict[str, str | int] = {"by": "model", "since": "2026-01-01", "until": "2026-01-01", "prompt": "", "rows": 1}
        told = {name: self._bound(sample[name]) for name in VIEWS[view]} | {"tenant": self._bound(self._tenant)}
        return f"{view}({', '.join(f'{name} = {value}' for name, value in told.items())})"
