"""The syntax of `prompt.template`: {COLUMN} is replaced by the text of that column in the row.

{{COLUMN}} stands for the literal text {COLUMN}. All other braces are plain text, so a template may
contain code.
"""

import re
from collections.abc import Mapping

PROMPT = "prompt"
"""The field {prompt} is the text of the column that `prompt.column` names."""
_FIELD = re.compile(r"\{\{([^\W\d]\w*)\}\}|\{([^\W\d]\w*)\}")


def fields_of(template: str) -> list[str]:
    """The column names in a template, each once, in order of appearance."""
    found = (match[2] for match in _FIELD.finditer(template))
    return list(dict.fromkeys(name for name in found if name is not None))


def fill(template: str, texts: Mapping[str, str]) -> str:
    """Replace each {COLUMN} by its text. Braces within these texts are left as they are."""
    return _FIELD.sub(lambda m: f"{{{m[1]}}}" if m[1] is not None else texts[m[2]], template)
