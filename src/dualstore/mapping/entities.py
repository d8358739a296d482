"""Which items are one entity of a DynamoDB table: by an attribute's value, or by a prefix of the key."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from pynamodb.attributes import DiscriminatorAttribute
from pynamodb.models import Model

from dualstore.errors import MappingError
from dualstore.expressions import KeyCondition
from dualstore.items import Item, Key, KeySchema, canonical_numeral, content_of

Told: TypeAlias = tuple[str, str | bool]
"""A value by which an entity is told: its DynamoDB type, `S`, `N` or `BOOL`, and its content."""

_FORMS = (
    '{"attribute": "type", "values": ["credential"]}, {"key_prefix": {"sk": "CRED#"}}, both in one, '
    '{"discriminator": true} or {"otherwise": true}'
)


@dataclass(frozen=True, slots=True)
class Entity:
    """What is asked of an item for it to be of an entity; all of it must hold.

    Attributes:
        attribute: the attribute whose value tells, or None.
        values: the values of it that are this entity's.
        prefixes: what the named key attributes begin with.
        discriminator: whether the attribute and its values are to be taken from the PynamoDB model.
        rest: whether these are the items that are of no other entity.
    """

    attribute: str | None = None
    values: tuple[Told, ...] = ()
    prefixes: tuple[tuple[str, str], ...] = ()
    discriminator: bool = False
    rest: bool = False

    @staticmethod
    def by_attribute(attribute: str, *values: str | float | Decimal | bool) -> "Entity":
        """Items whose attribute has one of these values.

        Args:
            attribute: its name in DynamoDB.
            *values: strings, numbers or Booleans.

        Raises:
            MappingError: there is no value, or one of another type.
        """
        if not values:
            raise MappingError(f"Entity.by_attribute({attribute!r}) names no value: give at least one")
        return Entity(attribute, tuple(dict.fromkeys(_told(attribute, value) for value in values)))

    @staticmethod
    def by_key_prefix(**prefixes: str) -> "Entity":
        """Items whose key attributes begin with these texts, such as `sk="CRED#"`.

        Raises:
            MappingError: there is no prefix, or an empty one.
        """
        if not prefixes or not all(isinstance(each, str) and each for each in prefixes.values()):
            raise MappingError('Entity.by_key_prefix needs a text for each key attribute, as in sk="CRED#"')
        return Entity(prefixes=tuple(sorted(prefixes.items())))

    @staticmethod
    def by_discriminator() -> "Entity":
        """Items of the PynamoDB model, by its `DiscriminatorAttribute`, and of its subclasses.

        A subclass that is bound to a SQL table of its own keeps its items to itself.
        """
        return Entity(discriminator=True)

    @staticmethod
    def otherwise() -> "Entity":
        """Items that are of no other entity, for a SQL table of the team's own that is to take them."""
        return Entity(rest=True)

    @staticmethod
    def of_document(document: Mapping[str, Any]) -> "Entity":
        """Read what `document` wrote, and what a configuration says.

        Raises:
            MappingError: it is of another form.
        """
        if document in ({"discriminator": True}, {"otherwise": True}):
            return Entity.otherwise() if "otherwise" in document else Entity.by_discriminator()
        unknown = dict(document)
        attribute, values = unknown.pop("attribute", None), unknown.pop("values", ())
        prefixes = unknown.pop("key_prefix", {})
        well_formed = (
            not unknown
            and isinstance(values, Sequence)
            and not isinstance(values, str)
            and isinstance(prefixes, Mapping)
            and (attribute is None or isinstance(attribute, str))
            and (attribute is None) == (not values)
            and bool(attribute or prefixes)
        )
        if not well_formed:
            raise MappingError(f"an entity is told by {_FORMS}: write it in one of these forms")
        told = Entity.by_attribute(attribute, *values) if attribute is not None else Entity()
        begun = Entity.by_key_prefix(**prefixes) if prefixes else Entity()
        return Entity(told.attribute, told.values, begun.prefixes)

    def document(self) -> dict[str, Any]:
        """The same as JSON, for `of_document`."""
        if self.discriminator or self.rest:
            return {"otherwise" if self.rest else "discriminator": True}
        document: dict[str, Any] = {}
        if self.attribute is not None:
            document |= {"attribute": self.attribute, "values": [_plain(value) for value in self.values]}
        if self.prefixes:
            document["key_prefix"] = dict(self.prefixes)
        return document

    def __str__(self) -> str:
        asked = [f"{name} begins with {prefix!r}" for name, prefix in self.prefixes]
        if self.attribute is not None:
            asked.append(f"{self.attribute} is {' or '.join(repr(_plain(value)) for value in self.values)}")
        return " and ".join(asked) or ("all the rest" if self.rest else "the model's discriminator")

    def matches(self, item: Item) -> bool:
        """Whether an item is of this entity."""
        told = self.attribute is None or _told_by(item, self.attribute) in self.values
        return told and self._begins(item)

    def of_key(self, key: Key) -> bool | None:
        """Whether the item at a key is of this entity; None where the key alone does not tell."""
        if not self._begins(key):
            return False
        return None if self.attribute is not None else True

    def of_range(self, keys: KeySchema, asked: KeyCondition) -> bool | None:
        """As `of_key`, of all the items that a Query of the table itself reads: None: of some, perhaps."""
        certain = self.attribute is None
        for name, prefix in self.prefixes:
            if name == keys.partition.name:
                told = asked.partition["S"].startswith(prefix)
            else:
                told = _range_begins(prefix, asked)
            if told is False:
                return False
            certain = certain and told is True
        return True if certain else None

    def excludes(self, other: "Entity") -> bool:
        """Whether no item can be of both, as far as what is asked for shows."""
        if (
            self.attribute is not None
            and self.attribute == other.attribute
            and not set(self.values) & set(other.values)
        ):
            return True
        theirs = dict(other.prefixes)
        return any(
            name in theirs and not (prefix.startswith(theirs[name]) or theirs[name].startswith(prefix))
            for name, prefix in self.prefixes
        )

    def asks_the_same(self, other: "Entity") -> bool:
        """Whether both look at the same attributes, so that what does not exclude itself overlaps."""
        return self.attribute == other.attribute and dict(self.prefixes).keys() == dict(other.prefixes).keys()

    def check(self, place: str, keys: KeySchema) -> None:
        """See that it can be asked of a table's items.

        Args:
            place: what is mapped, for the message.
            keys: the table's key.

        Raises:
            MappingError: it cannot; the message says what to change.
        """
        types = {attribute.name: attribute.type for attribute in keys.attributes}
        for name, _ in self.prefixes:
            if name not in types:
                raise MappingError(
                    f"{place}: {name!r} is no key attribute of the DynamoDB table, whose key is "
                    f"({', '.join(keys.names)}): tell the entity by a prefix of one of these, or by_attribute"
                )
            if types[name] != "S":
                raise MappingError(
                    f"{place}: key attribute {name!r} is of type {types[name]}, which has no prefixes: "
                    "tell the entity by_attribute"
                )

    def _begins(self, item: Item) -> bool:
        for name, prefix in self.prefixes:
            text = item[name].get("S") if name in item else None
            if text is None or not text.startswith(prefix):
                return False
        return True


def _told(attribute: str, value: Any) -> Told:
    match value:
        case bool():
            return ("BOOL", value)
        case str():
            return ("S", value)
        case int() | float() | Decimal():
            return ("N", canonical_numeral(str(value)))
    raise MappingError(
        f"entity told by {attribute!r}: a {type(value).__name__} is no value to tell it by; "
        "give a string, a number or a Boolean"
    )


def _told_by(item: Item, attribute: str) -> Told | None:
    value = item.get(attribute)
    if value is None:
        return None
    for type_ in ("S", "BOOL"):
        if type_ in value:
            return (type_, value[type_])
    return ("N", canonical_numeral(value["N"])) if "N" in value else None


def _plain(value: Told) -> str | int | float | bool:
    type_, content = value
    if type_ != "N" or isinstance(content, bool):
        return content
    number = Decimal(content)
    return int(number) if number == number.to_integral_value() else float(number)


def _range_begins(prefix: str, asked: KeyCondition) -> bool | None:
    """Whether the sort keys that are asked for begin so; None: some of them, perhaps."""
    sort = asked.sort
    if sort is None:
        return None
    operands = [content_of(operand) for operand in sort.operands]
    if sort.operator == "=":
        return bool(operands[0].startswith(prefix))
    if sort.operator == "begins_with":
        if operands[0].startswith(prefix):
            return True
        return None if prefix.startswith(operands[0]) else False
    return None


def discriminated(models: Iterable[type[Model]]) -> dict[type[Model], Entity]:
    """The entities of models that are told apart by PynamoDB's discriminator.

    Args:
        models: those that have SQL tables of their own.

    Returns:
        For each, its own discriminator and those of its subclasses that have no table of their own.

    Raises:
        MappingError: a model has no discriminator, or none of its own.
    """
    bound = list(models)
    return {model: _discriminated(model, bound) for model in bound}


def discriminator_of(model: type[Model]) -> DiscriminatorAttribute | None:
    """The attribute by which PynamoDB tells the model's class, if it has one."""
    attributes = model.get_attributes().values()
    return next((each for each in attributes if isinstance(each, DiscriminatorAttribute)), None)


def _discriminated(model: type[Model], bound: Sequence[type[Model]]) -> Entity:
    attribute = discriminator_of(model)
    if attribute is None:
        raise MappingError(
            f"{model.__name__} has no DiscriminatorAttribute: declare one on the class that its models "
            "share, or tell the entity by_attribute or by_key_prefix"
        )
    mine = [
        value
        for class_ in attribute.get_registered_subclasses(model)
        if _nearest(class_, bound) is model and (value := attribute.get_discriminator(class_)) is not None
    ]
    if not mine:
        raise MappingError(
            f"{model.__name__} has a DiscriminatorAttribute but no discriminator of its own: write "
            f'`class {model.__name__}(…, discriminator="…")`'
        )
    return Entity.by_attribute(attribute.attr_name, *mine)


def _nearest(class_: type[Any], bound: Sequence[type[Model]]) -> type[Any] | None:
    """The closest class above that has a SQL table."""
    return next((each for each in class_.__mro__ if each in bound), None)
