"""Reads a YAML document and checks it against a JSON schema; every mistake is told with its line."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dualstore.errors import ConfigurationError

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

Place: TypeAlias = tuple[str | int, ...]
"""The keys and indexes that lead to a part of a document."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with a document.

    Attributes:
        line: where, counted from 1.
        column: where in the line, counted from 1.
        message: what, and how to mend it.
    """

    line: int
    column: int
    message: str


class DocumentError(ConfigurationError):
    """A document is not what it should be.

    Args:
        name: of the document, for people.
        mistakes: at least one.
    """

    def __init__(self, name: str, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda each: (each.line, each.column)))
        super().__init__("\n".join(f"{name}:{m.line}:{m.column}: {m.message}" for m in self.mistakes))


@dataclass(frozen=True, slots=True)
class Document:
    """A document that its schema allows.

    Attributes:
        name: of its file.
        content: plain values.
    """

    name: str
    content: Any

    def mistake(self, place: Place, message: str, *, at_key: bool = False) -> Mistake:
        """A mistake at a part of the document; `at_key`: at its key, not at its value."""
        line, column = _position(self.content, place, at_key=at_key)
        return Mistake(line + 1, column + 1, message)


def read_document(text: str, schema: Mapping[str, Any], *, name: str) -> Document:
    """Parse and check a document.

    YAML 1.2, so that `off` is a word and `09:30` no number; a key that stands twice is a mistake.

    Args:
        text: the YAML.
        schema: a JSON schema, draft 2020-12. The `description` of a subschema with a pattern says what is
            to be written there.
        name: of the document, for messages.

    Raises:
        DocumentError: it is no YAML, or the schema does not allow it; names every mistake with its line.
    """
    # Imported here: both take a quarter of a second, and most processes that know of plans read none.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from ruamel.yaml import YAML  # noqa: PLC0415
    from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415

    try:
        content = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (0, 0) if mark is None else (mark.line, mark.column)
        problem = f"not YAML: {error.problem or error.context}".replace("\n", " ")
        raise DocumentError(name, [Mistake(line + 1, column + 1, problem)]) from None
    except YAMLError as error:
        raise DocumentError(name, [Mistake(1, 1, f"not YAML: {error}")]) from None
    document = Document(name, content)
    mistakes = [
        mistake
        for error in Draft202012Validator(schema).iter_errors(content)
        for mistake in _mistakes(document, error)
    ]
    if mistakes:
        raise DocumentError(name, mistakes)
    return document


def read_file(path: Path, schema: Mapping[str, Any]) -> Document:
    """As `read_document`, from a file.

    Raises:
        ConfigurationError: the file cannot be read.
        DocumentError: see `read_document`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); check its name") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not UTF-8; save it as UTF-8") from None
    return read_document(text, schema, name=str(path))


def _mistakes(document: Document, error: "ValidationError") -> Iterator[Mistake]:
    place = tuple(error.absolute_path)
    where = ".".join(str(step) for step in place if isinstance(step, str))
    prefix = f"{where}: " if where else ""
    if error.validator == "additionalProperties":
        known = list(_schema(error).get("properties", ()))
        written: Mapping[str, Any] = error.instance  # type: ignore[assignment] # no other kind has properties
        for key in written.keys() - set(known):
            message = f"{prefix}{key} is not known here{_suggestion(str(key), known)}"
            yield document.mistake((*place, key), message, at_key=True)
        return
    yield document.mistake(place, f"{prefix}{_said(error)}")


def _schema(error: "ValidationError") -> Mapping[str, Any]:
    return error.schema if isinstance(error.schema, Mapping) else {}


def _said(error: "ValidationError") -> str:
    value: Any = error.validator_value
    found: Any = error.instance
    schema = _schema(error)
    match error.validator:
        case "required":
            lacking = [key for key in value if key not in found]
            return f"{', '.join(lacking)} is missing: add it"
        case "enum":
            allowed = [str(each) for each in value]
            return f"{found!r} is none of {', '.join(allowed)}{_suggestion(str(found), allowed)}"
        case "const":
            return f"{found!r} is not {value!r}"
        case "pattern" | "type" | "anyOf" if "description" in schema:
            return f"{_shown(found)} is not {schema['description']}"
        case _:
            return error.message


def _shown(value: object) -> str:
    return "a list or mapping" if isinstance(value, list | dict) else repr(value)


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _position(content: Any, place: Place, *, at_key: bool) -> tuple[int, int]:
    """Line and column from 0; of the nearest part around it that has any."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq  # noqa: PLC0415 - as in `read_document`

    found = (0, 0)
    for depth, step in enumerate(place):
        last = depth == len(place) - 1
        if isinstance(content, CommentedMap) and step in content:
            line_and_column = content.lc.key(step) if last and at_key else content.lc.value(step)
        elif isinstance(content, CommentedSeq) and isinstance(step, int) and step < len(content):
            line_and_column = content.lc.item(step)
        else:
            break
        found = (line_and_column[0], line_and_column[1])
        content = content[step]
    return found
