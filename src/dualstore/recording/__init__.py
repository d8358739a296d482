"""Recording: which operations come, when, and on which keys by a salted hash; never a key, never a value."""

from dualstore.recording.files import RecordingFiles, RecordingFull
from dualstore.recording.identities import Identities, place_hash
from dualstore.recording.lines import Line, Lost, Note, Opened, TableNamed, Touch, size_class_bytes
from dualstore.recording.reading import is_recording, read_lines
from dualstore.recording.recorder import Recorder

__all__ = [
    "Identities",
    "Line",
    "Lost",
    "Note",
    "Opened",
    "Recorder",
    "RecordingFiles",
    "RecordingFull",
    "TableNamed",
    "Touch",
    "is_recording",
    "place_hash",
    "read_lines",
    "size_class_bytes",
]
