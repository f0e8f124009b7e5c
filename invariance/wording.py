"""How numbers and names are put into sentences."""

from collections.abc import Iterable


def join(items: Iterable[object], word: str = "and") -> str:
    """Items as a phrase: "3", "3 and 4", "3, 4 and 5"."""
    texts = list(map(str, items))
    return f" {word} ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
