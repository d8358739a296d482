"""A migration plan: its file, read and checked, as the list of steps that are carried out."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from dualstore.errors import ConfigurationError
from dualstore.rollout.document import Document, DocumentError, Mistake, Place, read_document, read_file
from dualstore.rollout.durations import duration_of
from dualstore.rollout.judgement import Limits
from dualstore.rollout.registry import ACTIONS, Action, Step
from dualstore.rollout.schema import plan_schema
from dualstore.rollout.windows import Window, window_of
from dualstore.stages import Stage

PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan whose file is in order.

    Attributes:
        name: in the record.
        tables: the logical names of the tables that it moves.
        steps: in order.
        digest: of what the file says, whatever its comments and spaces.
        content: what the file says, as plain values.
        is_staging: whether rollbacks may be rehearsed.
        source: the file.
    """

    name: str
    tables: tuple[str, ...]
    steps: tuple[Step, ...]
    digest: str
    content: Mapping[str, Any]
    is_staging: bool = False
    source: str = ""

    def step(self, step_id: str) -> Step | None:
        """The step of this id, or None."""
        return next((step for step in self.steps if step.id == step_id), None)

    def steps_until(self, step_id: str | None) -> tuple[Step, ...]:
        """The steps up to the one of this id, that one included; all of them for None.

        Raises:
            ConfigurationError: there is no such step.
        """
        if step_id is None:
            return self.steps
        ids = [step.id for step in self.steps]
        if step_id not in ids:
            raise ConfigurationError(f"{self.source} has no step {step_id}; it has {', '.join(ids)}")
        return self.steps[: ids.index(step_id) + 1]


def schema_of_plans() -> dict[str, Any]:
    """The JSON schema of a plan, for editors and for `load_plan`."""
    return plan_schema({name: action.options for name, action in ACTIONS.items()})


def load_plan(path: str | Path) -> Plan:
    """Read a plan's file.

    Raises:
        DocumentError: what it says is no plan; names every mistake with its line.
        ConfigurationError: the file cannot be read.
    """
    return _plan(read_file(Path(path), schema_of_plans()))


def parse_plan(text: str, *, name: str = "plan") -> Plan:
    """As `load_plan`, of a text."""
    return _plan(read_document(text, schema_of_plans(), name=name))


def _plan(document: Document) -> Plan:
    content = json.loads(json.dumps(document.content, default=str))  # YAML's dates, and its own dictionaries
    reader = _Reader(document, content)
    steps = list(reader.steps())
    mistakes = [*reader.mistakes, *_ambiguous(document, steps, reader.places)]
    if not mistakes:
        mistakes = list(_out_of_order(document, steps, reader.places))
    if mistakes:
        raise DocumentError(document.name, mistakes)
    return Plan(
        name=content["plan"],
        tables=tuple(content["tables"]),
        steps=tuple(steps),
        digest=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        content=content,
        is_staging=content.get("environment") == "staging",
        source=document.name,
    )


class _Reader:
    """Makes steps of a document, and collects what its schema could not know.

    Args:
        document: with the lines.
        content: its plain values.
    """

    def __init__(self, document: Document, content: Mapping[str, Any]) -> None:
        self._document = document
        self._content = content
        self.mistakes: list[Mistake] = []
        self.places: dict[str, Place] = {}

    def steps(self) -> Iterator[Step]:
        """Every step, expanded, in order."""
        window = self._window(self._content, (), None)
        for number, stage in enumerate(self._content["stages"]):
            of_stage = self._window(stage, ("stages", number), window)
            for index, entry in enumerate(stage["steps"]):
                place = ("stages", number, "steps", index)
                written = {"step": entry} if isinstance(entry, str) else entry
                yield from self._expanded(written, place, stage["stage"], of_stage)

    def _expanded(
        self, written: Mapping[str, Any], place: Place, stage: str, window: Window | None
    ) -> Iterator[Step]:
        action = ACTIONS[written["step"]]
        content = self._content
        limits = Limits().overlaid(content.get("gates", {})).overlaid(written.get("gates", {}))
        step = Step(
            id=written.get("id", action.name),
            action=action.name,
            stage=stage,
            line=self._document.mistake(place, "").line,
            tables=tuple(content["tables"]),
            options={key: value for key, value in written.items() if key in action.options},
            approval=written.get("approval", action.approval),
            window=self._window(written, place, window),
            limits=limits,
            soak=duration_of(written.get("soak", "0s")),
            patience=duration_of(written.get("patience", content.get("patience", "10m"))),
            rolls_back=written.get("on_refusal", content.get("on_refusal", "halt")) == "roll_back",
            skip=written.get("skip"),
        )
        try:
            expanded = action.expand(step)
        except ValueError as error:
            self.mistakes.append(self._document.mistake(place, str(error)))
            return
        for each in expanded:
            self.places.setdefault(each.id, place)
            yield each

    def _window(self, content: Mapping[str, Any], place: Place, around: Window | None) -> Window | None:
        if "window" not in content:
            return around
        if content["window"] == "any":
            return None
        try:
            return window_of(content["window"])
        except ValueError as error:
            self.mistakes.append(self._document.mistake((*place, "window"), f"window.{error}"))
            return around


def _ambiguous(document: Document, steps: Sequence[Step], places: Mapping[str, Place]) -> Iterator[Mistake]:
    for step_id, count in Counter(step.id for step in steps).items():
        if count > 1:
            yield document.mistake(
                places[step_id], f"{count} steps are called {step_id}: give all but one an `id` of its own"
            )


def _out_of_order(
    document: Document, steps: Sequence[Step], places: Mapping[str, Place]
) -> Iterator[Mistake]:
    """Walks the stage table with the plan: every step must be possible where the steps before leave off."""
    present = Stage.OFF
    percent = 0.0
    for step in steps:
        action = ACTIONS[step.action]
        if present not in action.at:
            allowed = ", ".join(stage for stage in Stage if stage in action.at)
            yield document.mistake(
                places[step.id],
                f"{step.id} needs stage {allowed}, and the steps before it lead to "
                f"{present}{_way(present, action)}",
            )
            return  # what follows would only repeat it
        present = action.leads_to or present
        raised = step.options.get("percent")
        if raised is not None:
            if raised <= percent:
                yield document.mistake(
                    places[step.id], f"{step.id} does not raise the traffic: it is at {percent:g} % before"
                )
            percent = raised


def _way(present: Stage, action: Action) -> str:
    """The steps that lead from a stage to where an action may be done."""
    order = list(Stage)
    wanted = next((stage for stage in order[order.index(present) :] if stage in action.at), None)
    if wanted is None:
        return ": it comes too late"
    missing = [
        next(name for name, each in ACTIONS.items() if each.leads_to is stage)
        for stage in order[order.index(present) + 1 : order.index(wanted) + 1]
    ]
    return f": put {', '.join(missing)} before it"


def undone(step: Step) -> Step:
    """A step as its way back is carried out: at any time, by nobody's leave."""
    return replace(step, window=None, approval=None)
