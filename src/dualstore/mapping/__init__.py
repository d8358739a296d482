"""Items as SQL rows and back, without loss: columns for what SQL should see, an overflow for the rest."""

from dualstore.mapping.codecs import TYPES, Codec, codec_for
from dualstore.mapping.converters import Converter
from dualstore.mapping.documents import typed_item, typed_json
from dualstore.mapping.entities import Entity, discriminated, discriminator_of
from dualstore.mapping.models import map_table, shape_of_model, unmapped_table
from dualstore.mapping.rows import (
    BOOKKEEPING_COLUMNS,
    OVERFLOW_COLUMN,
    REVISION_COLUMN,
    STAMP_COLUMN,
    Mirrored,
)
from dualstore.mapping.splits import (
    UNMAPPED_PREFIX,
    EntityTable,
    Mapped,
    SplitMapping,
    missing_indexes,
    split_table,
)
from dualstore.mapping.tables import MappedColumn, TableMapping, Unfit, Unreadable
from dualstore.mapping.text import escape, quoted, unescape

__all__ = [
    "BOOKKEEPING_COLUMNS",
    "OVERFLOW_COLUMN",
    "REVISION_COLUMN",
    "STAMP_COLUMN",
    "TYPES",
    "UNMAPPED_PREFIX",
    "Codec",
    "Converter",
    "Entity",
    "EntityTable",
    "Mapped",
    "MappedColumn",
    "Mirrored",
    "SplitMapping",
    "TableMapping",
    "Unfit",
    "Unreadable",
    "codec_for",
    "discriminated",
    "discriminator_of",
    "escape",
    "map_table",
    "missing_indexes",
    "quoted",
    "shape_of_model",
    "split_table",
    "typed_item",
    "typed_json",
    "unescape",
    "unmapped_table",
]
