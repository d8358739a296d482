"""The reference pages name everything that exists and nothing that does not, and no link leads nowhere."""

import ast
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from contract.divergences import DIVERGENCES
from dualstore import errors
from dualstore.cli import main
from dualstore.config import Configuration, TableSettings
from dualstore.telemetry.names import ATTRIBUTES, METRICS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "tests").glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    }
)

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_TEST_PLACE = re.compile(r"`((?:tests|src|benchmarks|examples|alembic)/[\w./-]*)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def sections(page: Path) -> dict[str, str]:
    """The text below each heading of the second level."""
    _, *parts = re.split(r"^## +(.+?) *$", prose(page), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, cell by cell, without their headings."""
    lines = [line.strip() for line in text.splitlines()]
    separators = {number for number, line in enumerate(lines) if re.fullmatch(r"\|[-|: ]+\|", line)}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if line.startswith("|") and number not in separators and number + 1 not in separators
    ]


def code(cell: str) -> str:
    """The one thing in a cell that stands between backticks."""
    (found,) = _CODE.findall(cell)
    return str(found)


# Configuration


def configuration_sections() -> dict[str, type[BaseModel]]:
    nested = {
        f"[{name}]": field.annotation
        for name, field in Configuration.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    of_tables = {
        f"[tables.<name>.{name}]": field.annotation
        for name, field in TableSettings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    return {**nested, "[tables.<name>]": TableSettings, **of_tables}


def keys_of(section: type[BaseModel]) -> dict[str, str]:
    """Each key with its default as the page writes it."""
    return {
        name: "required"
        if field.default is PydanticUndefined
        else "none"
        if field.default is None
        else f"`{field.default}`"
        for name, field in section.model_fields.items()
        if not isinstance(field.default, BaseModel)
    }


def test_every_section_of_the_configuration_is_documented() -> None:
    documented = {code(name) for name in sections(REFERENCE / "configuration.md") if name.startswith("`")}
    assert documented == set(configuration_sections())


@pytest.mark.parametrize("section", configuration_sections())
def test_every_key_of_the_configuration_is_documented_with_its_default(section: str) -> None:
    text = sections(REFERENCE / "configuration.md")[f"`{section}`"]
    documented = {code(key): default for key, default, _ in (row for row in rows(text) if len(row) == 3)}
    assert documented == keys_of(configuration_sections()[section])


# Telemetry


def test_every_metric_is_documented_with_its_kind_unit_and_attributes() -> None:
    documented = {
        code(metric): (kind, code(unit), tuple(_CODE.findall(attributes)))
        for metric, kind, unit, attributes, _ in rows(sections(REFERENCE / "telemetry.md")["Metrics"])
    }
    assert documented == {
        metric.name: (str(metric.kind), metric.unit, tuple(ATTRIBUTES[label] for label in metric.labels))
        for metric in METRICS
    }


def test_every_attribute_is_documented() -> None:
    documented = {code(name) for name, _ in rows(sections(REFERENCE / "telemetry.md")["Attributes"])}
    assert documented == set(ATTRIBUTES.values())


# Errors


def test_every_error_is_documented_with_what_to_do() -> None:
    documented = [code(name) for name, *_ in rows(sections(REFERENCE / "errors.md")["What to do"])]
    existing = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.DualStoreError)
    ]
    assert documented == existing


def test_the_tree_of_errors_is_that_of_the_module() -> None:
    tree = re.compile(r"^```\n(.+?)^```$", re.MULTILINE | re.DOTALL)
    (documented,) = tree.findall((REFERENCE / "errors.md").read_text(encoding="utf-8"))
    (existing,) = tree.findall(errors.__doc__ or "")
    assert documented == existing


# Command line


def commands(group: click.Group = main, prefix: str = "dualstore") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            arguments = [each.human_readable_name.upper() for each in command.params if _is_argument(each)]
            yield " ".join([prefix, name, *arguments]), command


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)


COMMANDS = dict(commands())


def test_the_list_of_commands_leads_to_each_of_them() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert isinstance(command, click.Command)
        assert command.name == name
    assert main.get_command(context, "no-such-command") is None


def test_every_command_is_listed() -> None:
    folder = ROOT / "src" / "dualstore" / "cli"
    defined = {
        name
        for path in folder.rglob("*.py")
        for name in re.findall(
            r"^@click\.(?:group|command)\(.*\n(?:@.*\n|    .*\n|\)\n)*def (\w+)",
            path.read_text("utf-8"),
            re.MULTILINE,
        )
    }
    assert defined - {"main"} == set(main.list_commands(click.Context(main)))


def default_of(option: Any) -> str | None:
    """An option's default as the page writes it; None where that is the page's own words."""
    return f"`{option.default}`" if option.show_default else None


def test_every_command_is_documented() -> None:
    documented = {code(name) for name in sections(REFERENCE / "command-line.md") if name.startswith("`")}
    assert documented == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_documented_with_its_default(name: str) -> None:
    text = sections(REFERENCE / "command-line.md")[f"`{name}`"]
    documented = {code(row[0]).split()[0]: row[1] for row in rows(text) if row[0].startswith("`--")}
    options = {
        next(flag for flag in each.opts if flag.startswith("--")): each
        for each in COMMANDS[name].params
        if not _is_argument(each)
    }
    assert set(documented) == set(options)
    for flag, option in options.items():
        expected = default_of(option)
        assert documented[flag] == expected or expected is None, flag


# Stand-ins


@pytest.mark.parametrize("engine", DIVERGENCES)
def test_every_known_difference_of_a_stand_in_is_documented(engine: str) -> None:
    text = sections(REFERENCE / "stand-ins.md")[f"Differences of `{engine}`"]
    documented = [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]
    assert documented == list(DIVERGENCES[engine])


# Links, and the places in the code that the pages name


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    return {
        "".join(
            "-" if letter == " " else letter
            for letter in heading.lower()
            if letter in " -_" or unicodedata.category(letter)[0] in "LN"
        )
        for _, heading in _HEADING.findall(prose(page))
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def functions_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    text = prose(page)
    missing = [
        f"{file}::{test}"
        for file, test in _TEST.findall(text)
        if not (ROOT / file).is_file() or test not in functions_in(file)
    ]
    missing += [place for place in _TEST_PLACE.findall(text) if not (ROOT / place).exists()]
    assert missing == []


def test_every_page_of_the_documentation_is_in_its_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(index))}
    decisions = (ROOT / "docs" / "adr").glob("[0-9]*.md")
    assert set((ROOT / "docs").rglob("*.md")) - {index, *decisions} <= listed
    decided = {
        (ROOT / "docs" / "adr" / link).resolve()
        for link in _LINK.findall(prose(ROOT / "docs" / "adr" / "README.md"))
    }
    assert set((ROOT / "docs" / "adr").glob("[0-9]*.md")) <= decided
