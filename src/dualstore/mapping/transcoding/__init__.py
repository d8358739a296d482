"""Blocks of DynamoDB-JSON as text for COPY: `TableMapping.encode` again, for millions of items.

The truth is `read_line` and then `TableMapping.encode`. A `Transcoder` does the same to nearly every item
many times faster, and declines the others, which then go the exact way.
"""

from dualstore.errors import ConfigurationError
from dualstore.mapping.splits import Mapped, SplitMapping
from dualstore.mapping.transcoding.accelerated import AcceleratedTranscoder
from dualstore.mapping.transcoding.exact import Reason, Rejected, Unreadable, read_line, read_lines
from dualstore.mapping.transcoding.pure import PureTranscoder
from dualstore.mapping.transcoding.rows import Transcoded, TranscodedPage, Transcoder
from dualstore.mapping.transcoding.split import SplitTranscoder


def transcoder_of(mapping: Mapped, *, accelerated: bool | None = None) -> Transcoder:
    """The transcoder of a table.

    Args:
        mapping: the table.
        accelerated: whether by the compiled accelerator; None: by it where it is installed.

    Raises:
        ConfigurationError: the accelerator was asked for, and there is none for this version.
    """
    if isinstance(mapping, SplitMapping):
        parts = [transcoder_of(part, accelerated=accelerated) for part in mapping.parts]
        return SplitTranscoder(mapping, parts)
    if accelerated is False:
        return PureTranscoder(mapping)
    try:
        return AcceleratedTranscoder(mapping)
    except ConfigurationError:
        if accelerated:
            raise
        return PureTranscoder(mapping)


__all__ = [
    "AcceleratedTranscoder",
    "PureTranscoder",
    "Reason",
    "Rejected",
    "SplitTranscoder",
    "Transcoded",
    "TranscodedPage",
    "Transcoder",
    "Unreadable",
    "read_line",
    "read_lines",
    "transcoder_of",
]
