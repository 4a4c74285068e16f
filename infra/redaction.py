"""What people are shown of other people's words: without the tokens of the Hub in them."""

import re

_HUB_TOKEN = re.compile(r"\b(hf|api_org)_(?:jwt_[\w.-]+|\w{6,})")
_IDENTITY_TOKEN = re.compile(r"\beyJ[\w-]{4,}\.[\w-]+\.[\w-]*")


def without_tokens(text: str) -> str:
    """The text with every Hub token and every JWT in it replaced, whosever it is."""
    return _IDENTITY_TOKEN.sub("***", _HUB_TOKEN.sub(r"\1_***", text))
