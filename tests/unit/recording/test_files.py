"""The files of recordings: rotated, limited, and readable to the last whole block after a crash."""

from pathlib import Path

import msgspec
import pytest

from dualstore.errors import ConfigurationError
from dualstore.recording import (
    Note,
    Opened,
    RecordingFiles,
    RecordingFull,
    is_recording,
    read_lines,
    size_class_bytes,
)
from dualstore.recording.lines import VERSION

OPENED = Opened(VERSION, "r", "salt", 1000.0)


def block(*lines: object) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def files(directory: Path, *, rotate_bytes: int = 10**6, limit_bytes: int = 10**6) -> RecordingFiles:
    return RecordingFiles(directory, "r", rotate_bytes=rotate_bytes, limit_bytes=limit_bytes)


def note(at: float) -> Note:
    return Note(at=at, table="orders", operation="GetItem")


def test_a_file_that_is_large_enough_is_followed_by_another(tmp_path: Path) -> None:
    ours = files(tmp_path, rotate_bytes=1)
    for at in range(3):
        assert ours.is_due, "so every file begins with what files begin with"
        ours.append(block(OPENED, note(at)))
    assert len(list(tmp_path.iterdir())) == 3
    assert [line.at for line in read_lines(tmp_path) if isinstance(line, Note)] == [0, 1, 2]


def test_the_limit_holds_for_all_recordings_of_a_directory_together(tmp_path: Path) -> None:
    first = files(tmp_path)
    first.append(block(OPENED))
    first.close()
    taken = sum(path.stat().st_size for path in tmp_path.iterdir())
    second = RecordingFiles(tmp_path, "s", rotate_bytes=10**6, limit_bytes=taken + 1)
    with pytest.raises(RecordingFull):
        second.append(block(OPENED))
    assert len(list(tmp_path.iterdir())) == 1, "and nothing is begun that cannot be"


def test_what_a_crash_cuts_short_is_read_to_its_last_whole_block(tmp_path: Path) -> None:
    ours = files(tmp_path)
    ours.append(block(OPENED, note(1)))
    ours.append(block(note(2)))
    ours.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-12])
    assert [line.at for line in read_lines(path) if isinstance(line, Note)][:1] == [1]


def test_nobody_else_may_read_a_recording(tmp_path: Path) -> None:
    ours = files(tmp_path)
    ours.append(block(OPENED))
    ours.close()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"kind": "note", "t": 1, "n": "a", "o": "b"}\n', "no recording of version 1"),
        (b'{"kind": "recording", "version": 2, "recording": "r", "salt": "", "began": 0}\n', "of version 1"),
        (b"nonsense\n", "line 1"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    ours = files(tmp_path)
    ours.append(content)
    ours.close()
    with pytest.raises(ConfigurationError, match=said):
        list(read_lines(tmp_path))


def test_a_recording_is_told_from_a_profile_by_its_content(tmp_path: Path) -> None:
    profile = tmp_path / "profile.yml"
    profile.write_text("profile: p\n")
    assert not is_recording(profile)
    assert is_recording(tmp_path)


@pytest.mark.parametrize(
    ("size", "held"), [(0, 0), (1, 1), (2, 2), (3, 3), (110, 128), (128, 128), (129, 152), (409_600, 409_600)]
)
def test_a_size_class_holds_its_sizes(size: int, held: int) -> None:
    assert size_class_bytes(size) == held


def test_size_classes_are_a_fifth_too_large_at_most() -> None:
    for size in range(64, 5_000, 7):
        assert size <= size_class_bytes(size) <= size * 1.2
        assert size_class_bytes(size_class_bytes(size)) == size_class_bytes(size), "a class is its own"
