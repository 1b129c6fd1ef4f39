r"""The syntax of `prompt.template`: {COLUMN} is replaced by the text of that column in the row.

    {question}         the column `question`; {prompt} is the column that `prompt.column` names
    {the question}     a column's name may hold any characters
    {meta.title}       the field `title` of the column `meta`, unless a column is called so
    {{question}}       the literal text {question}
    {"a": 1}, { x; }   all other braces are text, so a template may contain code

What looks like a column and is none is refused, not passed on as text: a word, or words with
spaces, dashes or dots between them. So is a column in double braces that is nowhere else, which is
how other tools write a column.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from engine.errors import UserError

PROMPT = "prompt"
"""The field {prompt} is the text of the column that `prompt.column` names."""
_GROUP = re.compile(r"[^{}\n]+(?=\})")
_SINGLE_GROUP = re.compile(r"(?<!\{)\{[^{}]+\}")
_NAME_LIKE = re.compile(r"[^\W\d](?:[\w .\-/']*[\w?])?")
_PYTHON_FORMAT = re.compile(r"\[|:\S|![rsa]$")
"""What may follow a name in a Python format string: {meta[title]}, {score:.2f}, {name!r}."""
_TYPED_BREAK = re.compile(
    r"\\n(?!(?:abla|atural|cong|e|earrow|eg|eq|ew(?:line|command|page)|exists|geq|leq|mid|"
    r"o(?:limits|number|indent|t|tag|tin)|parallel|sim|subseteq|u|warrow)(?![a-z]))"
)
r"""A backslash and an n that do not begin a LaTeX command such as \nabla."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a template takes from a row."""

    column: str
    inner: str
    """The field within the column's structs, with a dot before each further level; empty: the
    column itself."""

    @property
    def name(self) -> str:
        return f"{self.column}.{self.inner}" if self.inner else self.column


class Template:
    """A template, read for data with certain columns."""

    def __init__(self, text: str, columns: Sequence[str], prompt_column: str) -> None:
        """
        Raises:
            UserError: braces that look like a column and name none, a column in double braces that
                is nowhere else, or no column at all.
        """
        self._columns = list(columns)
        self._column_of = {name: name for name in columns if name != PROMPT}
        if prompt_column in columns:
            self._column_of[PROMPT] = prompt_column
        self.pieces: list[str | Field] = []
        """Literal text and fields, in their order."""
        missing: list[str] = []
        doubled: list[str] = []
        end = 0
        for start, inner, is_doubled in self._groups(text):
            self.pieces.append(text[end:start])
            end = start + len(inner) + (4 if is_doubled else 2)
            field = self._field(inner)
            if is_doubled:
                doubled.append(inner)
                self.pieces.append(f"{{{inner}}}")
            elif field is not None:
                self.pieces.append(field)
            else:
                missing.append(inner)
        self.pieces.append(text[end:])
        self._check(text, missing, doubled)

    @property
    def fields(self) -> list[Field]:
        """Each once, in order of appearance."""
        return list(dict.fromkeys(its for its in self.pieces if isinstance(its, Field)))

    def fill(self, texts: Mapping[Field, str]) -> str:
        """Put each field's text in its place. Braces within these texts are left as they are."""
        return "".join(its if isinstance(its, str) else texts[its] for its in self.pieces)

    def _groups(self, text: str) -> Iterator[tuple[int, str, bool]]:
        """Each pair of braces that is not plain text: its place, what is in it, and whether the
        braces are double."""
        start = text.find("{")
        while start >= 0:
            is_doubled = text.startswith("{{", start)
            first = start + 1 + is_doubled
            inner = self._inner(text, first, "}}" if is_doubled else "}")
            if inner is None:
                start = text.find("{", start + 1)
                continue
            yield start, inner, is_doubled
            start = text.find("{", first + len(inner))

    def _inner(self, text: str, first: int, closing: str) -> str | None:
        """What is within the braces that open before `first`, if it names or seems to name a
        column."""
        names = [name for name in self._column_of if text.startswith(name + closing, first)]
        if names:
            return max(names, key=len)
        group = _GROUP.match(text, first)
        if group is None or not text.startswith(closing, group.end()):
            return None
        inner = group[0]
        is_one = self._field(inner) or self._field(inner.strip()) or _NAME_LIKE.fullmatch(inner)
        return (
            inner if is_one or self._is_python_format(inner) or self._nearest(inner, 0.8) else None
        )

    def _field(self, inner: str) -> Field | None:
        """The field that a text between braces names. The longest name of a column counts."""
        if inner in self._column_of:
            return Field(self._column_of[inner], "")
        dots = [place for place, sign in enumerate(inner) if sign == "."]
        for dot in reversed(dots):
            if inner[:dot] in self._column_of and inner[dot + 1 :]:
                return Field(self._column_of[inner[:dot]], inner[dot + 1 :])
        return None

    def _is_python_format(self, inner: str) -> bool:
        return any(
            inner.startswith(name) and _PYTHON_FORMAT.match(inner[len(name) :])
            for name in self._column_of
        )

    def _nearest(self, inner: str, likeness: float) -> str | None:
        names = {name.lower(): name for name in self._column_of}
        found = get_close_matches(inner.strip().lower(), names, 1, likeness)
        return names[found[0]] if found and len(inner) > 2 else None

    def _check(self, text: str, missing: list[str], doubled: list[str]) -> None:
        has = f"which has {', '.join(self._columns)}"
        if missing:
            shown = ", ".join(f"{{{inner}}}" for inner in dict.fromkeys(missing))
            hints = "".join(self._hint(inner) for inner in dict.fromkeys(missing))
            raise UserError(
                f"prompt.template: {shown} not in the data, {has}; {hints}name some of these, or "
                f"write {{{{{missing[0]}}}}} for braces that are text"
            )
        used = {field.column for field in self.fields}
        for inner in doubled:
            field = self._field(inner) or self._field(inner.strip())
            if field is not None and field.column not in used:
                raise UserError(
                    f"prompt.template: {{{{{inner}}}}} is the literal text {{{inner}}}, and "
                    f"the column {field.column!r} is nowhere else in the template; write "
                    f"{{{inner.strip()}}} for the column's text"
                )
        if not used:
            raise UserError(f"prompt.template={text!r}: names no column of the data, {has}")

    def _hint(self, inner: str) -> str:
        if inner == PROMPT:
            return "set prompt.column for {prompt}, "
        if self._field(inner.strip()) is not None:
            return f"write {{{inner.strip()}}} without spaces at its ends, "
        if self._is_python_format(inner):
            return "a field within a column is {COLUMN.FIELD}, and numbers are not formatted, "
        near = self._nearest(inner, 0.5)
        return f"the nearest to {{{inner}}} is {{{near}}}, " if near else ""


def names_none(template: str) -> bool:
    """Whether a template can name no column, whatever columns there are."""
    return _SINGLE_GROUP.search(template) is None


def has_typed_break(text: str) -> bool:
    r"""Whether a text on one line holds \n as two characters: typed on a command line, or in YAML
    without double quotes, they are no line break. Text with real line breaks may hold code."""
    return "\n" not in text and _TYPED_BREAK.search(text) is not None
