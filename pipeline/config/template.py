"""A prompt template: text in which {COLUMN} is a row's own text; {{COLUMN}} stays as {COLUMN}.

Other braces are text, as code has them.
"""

import re
from collections.abc import Mapping

PROMPT = "prompt"
"""{prompt} is the text of prompt.column, whatever that is called."""
_FIELD = re.compile(r"\{\{([^\W\d]\w*)\}\}|\{([^\W\d]\w*)\}")


def fields_of(template: str) -> list[str]:
    """The columns that a template names, each once."""
    found = (match[2] for match in _FIELD.finditer(template))
    return list(dict.fromkeys(name for name in found if name is not None))


def fill(template: str, texts: Mapping[str, str]) -> str:
    """The template with each column's text in its places; a text's own braces stay."""
    return _FIELD.sub(lambda m: f"{{{m[1]}}}" if m[1] is not None else texts[m[2]], template)
