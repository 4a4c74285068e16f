"""What is wrong with a value of a config, for people: pydantic's own words about types are for programmers."""

import re

from pydantic import AfterValidator
from pydantic_core import ErrorDetails

SHOWN_CHARACTERS = 120
NEEDED = {
    ("int_",): "a whole number is needed",
    ("float_", "finite_number"): "a finite number is needed",
    ("string_type",): "a text is needed",
    ("bool_",): "true or false is needed",
    ("tuple_", "list_", "set_"): 'a list is needed, as in ["a", "b"]',
    ("dict_", "model_", "mapping_"): "a table of named fields is needed",
}


def matching(pattern: str, words: str) -> AfterValidator:
    """A text that matches the whole pattern; the complaint says it in words, not as a regular expression."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"{words} is needed")
        return text

    return AfterValidator(check)


def complaint(mistake: ErrorDetails) -> str:
    """What is wrong, and the value if that doesn't say it already; no full stop."""
    value, kind = mistake.get("input"), mistake["type"]
    said = str(mistake["msg"]).removeprefix("Value error, ").replace("Input should be", "must be").rstrip(".")
    said = next((words for kinds, words in NEEDED.items() if kind.startswith(kinds)), said)
    shown = repr(value)[:SHOWN_CHARACTERS]
    told = kind == "value_error" and (isinstance(value, dict) or shown in said)
    wanted = not told and not isinstance(value, dict)
    return f"{said[0].lower()}{said[1:]}" + (f" (it is {shown})" if wanted else "")
