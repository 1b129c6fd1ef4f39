"""The operations that demo tasks consist of, each a docstring sentence and its lines of Python.

An operation takes the result of the previous one, an int, a list of ints or a string, and gives a
value of the same or another of these types. Constants are written in the sentence exactly as in the
code. To answer, a model must choose the right lines and copy the right tokens into them.

Slots of both templates: v and w are the input and output variables; a and b numbers; k and m small
numbers; p and q quoted words; `ints`, `words`, `pairs`, `names` and `swaps` are literals of two to
eight entries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

_WORDS = """
ant ape bat bay bean bear bell bird boat book bow bus cake cart cat clay coal corn cow
cup dawn deer desk dog door drum duck farm fern fish fog fox frog gate goat gold hat
hill ice jam jar kite lake lamb lamp leaf lime lion mint moon nest oak oil owl park pear
pine plum pond rain rice ring road rose salt sand seal seed ship silk snow star sun tea
toad tree wind wolf wood
"""
WORDS = _WORDS.split()
TYPES = {"int": "int", "list": "list[int]", "str": "str"}
PARAMETERS = {
    "int": ("number", "size", "age"),
    "list": ("values", "numbers", "items"),
    "str": ("text", "line", "phrase"),
}
VARIABLES = "abcdefgh"
"""Names of the operations' results, in order. They appear in the docstring and in the code, so that
the model can find the sentence that a line belongs to."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of operation, as templates of its sentence and its code."""

    kind: str
    takes: str
    gives: str
    sentence: str
    code: str

    @property
    def copies_literal(self) -> bool:
        """Whether it has a literal of several entries. Such operations teach copying fastest."""
        return any(f"{{{name}}}" in self.sentence for name in LITERALS)


def _number(rng: Random) -> str:
    return str(rng.randint(2, 60))


def _small(rng: Random) -> str:
    return str(rng.randint(2, 9))


def _word(rng: Random) -> str:
    return f"'{rng.choice(WORDS)}'"


def _literal(entry: str, fewest: int, most: int) -> Callable[[Random], str]:
    """A function that draws a literal: `fewest` to `most` entries of the form `entry`, joined by
    commas, without a repeated key."""

    def draw(rng: Random) -> str:
        count = rng.randint(fewest, most)
        keys = rng.sample(range(2, 61), count)
        words = rng.sample(WORDS, count)
        entries = (
            entry.format(key=key, number=_number(rng), word=f"'{word}'", other=_word(rng))
            for key, word in zip(keys, words, strict=True)
        )
        return ", ".join(entries)

    return draw


LITERALS: dict[str, Callable[[Random], str]] = {
    "ints": _literal("{key}", 2, 8),
    "words": _literal("{word}", 2, 6),
    "pairs": _literal("{key}: {number}", 2, 6),
    "names": _literal("{key}: {word}", 2, 6),
    "swaps": _literal("{word}: {other}", 2, 6),
}
SLOTS: dict[str, Callable[[Random], str]] = {
    "a": _number,
    "b": _number,
    "k": _small,
    "m": _small,
    "p": _word,
    "q": _word,
    **LITERALS,
}

_INT = [
    ("add", "int", "add {a}.", "{w} = {v} + {a}"),
    ("subtract", "int", "subtract {a}.", "{w} = {v} - {a}"),
    ("multiply", "int", "multiply by {k}.", "{w} = {v} * {k}"),
    ("divide", "int", "divide by {k}.", "{w} = {v} // {k}"),
    ("remainder", "int", "take the remainder by {a}.", "{w} = {v} % {a}"),
    ("distance", "int", "take the distance to {a}.", "{w} = abs({v} - {a})"),
    ("cap", "int", "cap at {a}.", "{w} = min({v}, {a})"),
    ("lift", "int", "lift to {a}.", "{w} = max({v}, {a})"),
    ("square", "int", "square it.", "{w} = {v} * {v}"),
    ("negate", "int", "negate it.", "{w} = -{v}"),
    (
        "if_above",
        "int",
        "if above {a}, subtract {b}.",
        "{w} = {v}\nif {w} > {a}:\n    {w} = {w} - {b}",
    ),
    (
        "if_even",
        "int",
        "if even, add {a}, else subtract {b}.",
        "if {v} % 2 == 0:\n    {w} = {v} + {a}\nelse:\n    {w} = {v} - {b}",
    ),
    (
        "if_divisible",
        "int",
        "if divisible by {k}, multiply by {m}.",
        "{w} = {v}\nif {w} % {k} == 0:\n    {w} = {w} * {m}",
    ),
    (
        "loop",
        "int",
        "loop {k} times: double and add {a}.",
        "{w} = {v}\nfor _ in range({k}):\n    {w} = {w} * 2 + {a}",
    ),
    (
        "halve",
        "int",
        "while above {a}, halve it.",
        "{w} = {v}\nwhile {w} > {a}:\n    {w} = {w} // 2",
    ),
    ("map", "int", "map {pairs}.", "{w} = {{{pairs}}}.get({v}, {v})"),
    ("name", "str", "name {names}, else {p}.", "{w} = {{{names}}}.get({v}, {p})"),
    ("say", "str", "say {p} if above {a}, else {q}.", "{w} = {p} if {v} > {a} else {q}"),
    ("write", "str", "write it as text.", "{w} = str({v})"),
    ("digits", "list", "list its digits.", "{w} = [int(i) for i in str(abs({v}))]"),
    ("multiples", "list", "list {k} multiples.", "{w} = [{v} * i for i in range({k})]"),
]
_LIST = [
    ("keep_above", "list", "keep those above {a}.", "{w} = [i for i in {v} if i > {a}]"),
    ("keep_below", "list", "keep those below {a}.", "{w} = [i for i in {v} if i < {a}]"),
    (
        "keep_divisible",
        "list",
        "keep those divisible by {k}.",
        "{w} = [i for i in {v} if i % {k} == 0]",
    ),
    ("drop_even", "list", "drop the even ones.", "{w} = [i for i in {v} if i % 2 != 0]"),
    ("drop_any", "list", "drop any of {ints}.", "{w} = [i for i in {v} if i not in ({ints})]"),
    ("add_each", "list", "add {a} to each.", "{w} = [i + {a} for i in {v}]"),
    ("multiply_each", "list", "multiply each by {k}.", "{w} = [i * {k} for i in {v}]"),
    ("remainder_each", "list", "take each modulo {a}.", "{w} = [i % {a} for i in {v}]"),
    ("cap_each", "list", "cap each at {a}.", "{w} = [min(i, {a}) for i in {v}]"),
    ("square_each", "list", "square each.", "{w} = [i * i for i in {v}]"),
    ("replace_each", "list", "turn {a} into {b}.", "{w} = [{b} if i == {a} else i for i in {v}]"),
    ("map_each", "list", "map each {pairs}.", "{w} = [{{{pairs}}}.get(i, i) for i in {v}]"),
    ("sort", "list", "sort the list.", "{w} = sorted({v})"),
    ("sort_down", "list", "sort it downwards.", "{w} = sorted({v}, reverse=True)"),
    ("reverse", "list", "reverse the list.", "{w} = {v}[::-1]"),
    ("drop_repeats", "list", "drop repeats.", "{w} = list(dict.fromkeys({v}))"),
    ("first", "list", "keep the first {k}.", "{w} = {v}[:{k}]"),
    ("skip", "list", "drop the first {k}.", "{w} = {v}[{k}:]"),
    ("one_in", "list", "keep one in {k}.", "{w} = {v}[::{k}]"),
    ("extend", "list", "extend by {ints}.", "{w} = {v} + [{ints}]"),
    ("sum", "int", "take the sum.", "{w} = sum({v})"),
    ("sum_below", "int", "sum those below {a}.", "{w} = sum(i for i in {v} if i < {a})"),
    ("largest", "int", "take the largest, or {a} if empty.", "{w} = max({v}, default={a})"),
    ("smallest", "int", "take the smallest, or {a} if empty.", "{w} = min({v}, default={a})"),
    ("length", "int", "take the length.", "{w} = len({v})"),
    ("count_above", "int", "count those above {a}.", "{w} = sum(i > {a} for i in {v})"),
    (
        "fold",
        "int",
        "fold from {a}: double and add each.",
        "{w} = {a}\nfor i in {v}:\n    {w} = {w} * 2 + i",
    ),
    (
        "score",
        "int",
        "score {a} if even, else {b}.",
        "{w} = 0\nfor i in {v}:\n    if i % 2 == 0:\n        {w} += {a}\n"
        "    else:\n        {w} += {b}",
    ),
    ("join", "str", "join with {p}.", "{w} = {p}.join(str(i) for i in {v})"),
]
_STR = [
    ("upper", "str", "make it upper case.", "{w} = {v}.upper()"),
    ("title", "str", "make it title case.", "{w} = {v}.title()"),
    ("mirror", "str", "mirror the text.", "{w} = {v}[::-1]"),
    ("replace", "str", "replace {p} by {q}.", "{w} = {v}.replace({p}, {q})"),
    ("append", "str", "append {p}.", "{w} = {v} + {p}"),
    ("prepend", "str", "prepend {p}.", "{w} = {p} + {v}"),
    ("repeat", "str", "repeat it {k} times.", "{w} = {v} * {k}"),
    ("cut", "str", "cut to {a} letters.", "{w} = {v}[:{a}]"),
    ("skip_letters", "str", "skip {k} letters.", "{w} = {v}[{k}:]"),
    (
        "remove_letters",
        "str",
        "remove the letters of {p}.",
        "{w} = ''.join(i for i in {v} if i not in {p})",
    ),
    (
        "swap_words",
        "str",
        "swap words {swaps}.",
        "{w} = ' '.join({{{swaps}}}.get(i, i) for i in {v}.split())",
    ),
    ("sort_words", "str", "sort the words.", "{w} = ' '.join(sorted({v}.split()))"),
    (
        "drop_words",
        "str",
        "drop words {words}.",
        "{w} = ' '.join(i for i in {v}.split() if i not in ({words}))",
    ),
    (
        "if_has",
        "str",
        "if it has {p}, append {q}.",
        "{w} = {v}\nif {p} in {w}:\n    {w} = {w} + {q}",
    ),
    (
        "if_longer",
        "str",
        "if longer than {a}, prepend {p}.",
        "{w} = {v}\nif len({w}) > {a}:\n    {w} = {p} + {w}",
    ),
    ("add_words", "str", "add words {words}.", "{w} = {v}\nfor i in ({words}):\n    {w} = {w} + i"),
    ("count_letters", "int", "count the letters.", "{w} = len({v})"),
    ("count_words", "int", "count the words.", "{w} = len({v}.split())"),
    ("count_text", "int", "count {p}.", "{w} = {v}.count({p})"),
    ("find", "int", "find {p}.", "{w} = {v}.find({p})"),
    ("word_lengths", "list", "list the word lengths.", "{w} = [len(i) for i in {v}.split()]"),
]
OPERATIONS = tuple(
    Operation(kind, takes, gives, sentence, code)
    for takes, rows in (("int", _INT), ("list", _LIST), ("str", _STR))
    for kind, gives, sentence, code in rows
)
BY_KIND = {operation.kind: operation for operation in OPERATIONS}
