"""The language of a page: English as it is written in the code, another from its catalogue.

What is said for people goes through :func:`say`; ``report.json`` is assembled in English, whatever the page speaks. A
catalogue is a gettext file beside this module, ``zh.po``, so that translators' tools can be used on it. It is read as
it is: nothing has to be compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import polib
from markupsafe import Markup

ENGLISH = "en"
LANGUAGES = (ENGLISH, "zh")
_spoken: ContextVar[str] = ContextVar("language", default=ENGLISH)


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Say everything in one of :data:`LANGUAGES` for the time of a ``with`` block."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def spoken() -> str:
    """Return the language of this moment, as HTML's ``lang`` attribute has it."""
    return _spoken.get()


def msg(text: str) -> str:
    """Mark a text that is said later, through a variable: catalogues must have it. Returns it as it is."""
    return text


def say(message: str, /, **values: object) -> str:
    """Return a message in the language of this moment.

    Args:
        message: English, with ``{name}`` where a value goes; a text that no catalogue has stays as it is.
        values: what goes there.
    """
    return _translated(message).format(**values)


def say_html(message: str, /, **values: object) -> Markup:
    """Return a message that has markup of its own; values are escaped."""
    return Markup(_translated(message)).format(**values)  # noqa: S704  # messages are ours, from code and catalogue


def known(text: str) -> str:
    """Return a stored text in the language of this moment where its catalogue has it; braces in it mean nothing."""
    return _translated(text)


def listed(items: Iterable[str]) -> str:
    """Return items in a row: ``a, b, c``."""
    return _translated(", ").join(items)


def apart(items: Iterable[str]) -> str:
    """Return clauses in a row: ``a; b; c``."""
    return _translated("; ").join(items)


def together(items: Iterable[str]) -> str:
    """Return items in a row whose last is joined by a word: ``a, b and c``."""
    *first, last = items
    return say("{first} and {last}", first=listed(first), last=last) if first else last


def _translated(message: str) -> str:
    language = _spoken.get()
    return message if language == ENGLISH else catalogue(language).get(message, message)


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return the translations of a language by their English."""
    file = polib.pofile(str(Path(__file__).with_name(f"{language}.po")))
    return {entry.msgid: entry.msgstr for entry in file.translated_entries() if not entry.obsolete}
