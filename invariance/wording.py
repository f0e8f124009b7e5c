"""How numbers and names are put into sentences."""

import re
import unicodedata
from collections.abc import Iterable


def printable(text: object) -> str:
    """A text from a file, for one line on a terminal: control characters and the like are written as escapes."""
    # Of the spaces, Python takes only one to be printable.
    return "".join(
        each if each.isprintable() or unicodedata.category(each) == "Zs" else ascii(each)[1:-1] for each in str(text)
    )


def markdown_text(text: object) -> str:
    """A text from a file, for Markdown, on one line: it makes no tags, links, pictures or cells of a table."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"[\\|]|\](?=\()", r"\\\g<0>", printable(text)))


def join(items: Iterable[object], word: str = "and") -> str:
    """Items as a phrase: "3", "3 and 4", "3, 4 and 5"."""
    texts = list(map(str, items))
    return f" {word} ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
