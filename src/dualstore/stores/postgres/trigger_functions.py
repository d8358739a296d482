"""The PL/pgSQL that the triggers of a mapped table run: made per table, so that every column is named."""

from dataclasses import dataclass
from hashlib import blake2b

from dualstore.mapping import REVISION_COLUMN as REVISION
from dualstore.mapping import STAMP_COLUMN as STAMP
from dualstore.mapping import TableMapping, quoted
from dualstore.stores.postgres.key_texts import key_texts, lane_of, stored_key, typed_key

PAUSED_SQLSTATE = "DS001"
"""What the triggers raise where the writes of a table pause."""

WRITER = "current_setting('dualstore.writer', true)"
_FRESH = "uuid_send(gen_random_uuid())"
_IDENTIFIER_SIZE_BYTES = 63

# A custom setting that was once set for a transaction is empty afterwards, not null.
NOT_MIRROR = f"{WRITER} IS DISTINCT FROM 'mirror'"


@dataclass(frozen=True)
class Trigger:
    """One trigger of a table.

    Attributes:
        name: the trigger's; those of a table fire in the order of their names.
        event: when it fires.
        each: `ROW` or `STATEMENT`.
        condition: the WHEN, or "".
        function: the name of its function in the schema `dualstore`, quoted with it.
        body: the function's text.
    """

    name: str
    event: str
    each: str
    condition: str
    function: str
    body: str

    @property
    def fingerprint(self) -> str:
        """Says whether the trigger on a table is this one."""
        described = repr((self.event, self.each, self.condition, self.function, self.body))
        return f"dualstore {blake2b(described.encode(), digest_size=8).hexdigest()}"


def sql_table(mapping: TableMapping) -> str:
    """The SQL table's name, quoted, with its schema."""
    table = mapping.table
    return ".".join(quoted(part) for part in (table.schema, table.name) if part is not None)


def table_triggers(mapping: TableMapping, *, departed: str = "", arrived: str = "") -> tuple[Trigger, ...]:
    """The triggers of one SQL table.

    Args:
        mapping: of the SQL table.
        departed: what is done first of all when the deletion of a row is noted, in PL/pgSQL.
        arrived: what is done at last before another change is noted.
    """
    noting = _note(mapping, departed, arrived)
    unnoted = _unless("mirror", receipted(mapping))
    stamp, note = function_named(mapping, "stamp"), function_named(mapping, "note")
    refuse = function_named(mapping, "truncate")
    unasked = _unless("mirror", "authority", receipted(mapping))
    inserted = f"CASE WHEN NEW.{STAMP} IS NULL THEN {NOT_MIRROR} ELSE {unasked} END"
    # Of writes that dualstore makes as the authority, those need a stamp that it did not ask for: a cascade,
    # or what a trigger of the team's own does.
    updated = f"NEW.{STAMP} IS NULL OR NEW.{REVISION} = OLD.{REVISION} OR {unasked}"
    return (
        Trigger("dualstore_stamp_insert", "BEFORE INSERT", "ROW", inserted, stamp, _stamp(mapping)),
        Trigger("dualstore_stamp_update", "BEFORE UPDATE", "ROW", updated, stamp, _stamp(mapping)),
        Trigger("dualstore_note", "AFTER INSERT OR UPDATE OR DELETE", "ROW", unnoted, note, noting),
        Trigger("dualstore_truncate", "BEFORE TRUNCATE", "STATEMENT", "", refuse, _truncate(mapping)),
    )


def receipted(mapping: TableMapping) -> str:
    """What `dualstore.writer` is while the authority writes one SQL table, this one, at stage `complete`.

    Its statement leaves a receipt itself, so its changes are not to be noted (ADR 30). Rows of other tables
    that it changes, by cascades or the team's own triggers, are another writer's.
    """
    return f"receipted {blake2b(sql_table(mapping).encode(), digest_size=8).hexdigest()}"


# The server reads a condition anew for each statement that fires its trigger: 1 KB of its tree takes 4 µs.
def _unless(*writers: str) -> str:
    return f"({WRITER} = ANY ({literal('{' + ','.join(writers) + '}')})) IS NOT TRUE"


def function_named(mapping: TableMapping, purpose: str) -> str:
    """A name that no other table's function has, and that a person recognises."""
    full = sql_table(mapping)
    digest = blake2b(full.encode(), digest_size=4).hexdigest()
    room = _IDENTIFIER_SIZE_BYTES - len(purpose) - len(digest) - 2
    readable = mapping.table.name.encode()[:room].decode(errors="ignore")
    return f"dualstore.{quoted(f'{purpose}_{readable}_{digest}')}"


def literal(text: str) -> str:
    """A text as SQL, whatever `standard_conforming_strings` is."""
    quoted_text = "'" + text.replace("'", "''").replace("\\", "\\\\") + "'"
    return f"E{quoted_text}" if "\\" in text else quoted_text


def _stamp(mapping: TableMapping) -> str:
    return f"""
BEGIN
    IF {NOT_MIRROR} AND EXISTS (SELECT FROM dualstore.control
               WHERE table_name = {literal(mapping.shape.name)} AND role = 'authority') THEN
        NEW.{STAMP} := {_FRESH};
        NEW.{REVISION} := nextval('dualstore.revision');
    END IF;
    RETURN NEW;
END"""


def _note(mapping: TableMapping, departed: str, arrived: str) -> str:
    """An outbox row for each change of a key, in one statement with the look at the control record.

    At stage `complete` nobody works the outbox off: there dualstore's own changes leave a finished row, which
    still answers for a COMMIT whose reply was lost, unless they leave a receipt themselves, and all others
    none. The role may change between the two looks at it, hence the loop. A transaction at REPEATABLE READ,
    as dualstore's own never are, would go by the role of its first statement, though the authority has moved
    since: it is refused.
    """
    name = literal(mapping.shape.name)
    change = _entry(name, "named", "made", "replaced")
    departure = _entry(name, "former", _FRESH, f"OLD.{STAMP}")
    return f"""
DECLARE
    named text[];
    former text[];
    made bytea;
    replaced bytea;
    deletion text;
    found_role text;
    found_stage text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' AND EXISTS (
        SELECT FROM dualstore.control WHERE table_name = {name}
        AND (role = 'paused' OR (role = 'authority' AND stage <> 'complete'))
    ) THEN
{_refuse_level(mapping)}
    END IF;
    IF TG_OP = 'DELETE' THEN{departed}
        named := {key_texts(mapping, "OLD")};
        replaced := OLD.{STAMP};
        deletion := current_setting('dualstore.deletion', true);
        IF starts_with(deletion, OLD.{REVISION} || ':') THEN
            made := decode(split_part(deletion, ':', 2), 'hex');
        ELSE
            made := {_FRESH};
        END IF;
    ELSE
        named := {key_texts(mapping, "NEW")};
        made := NEW.{STAMP};
        IF TG_OP = 'UPDATE' THEN
            former := {key_texts(mapping, "OLD")};
            IF former = named THEN
                former := NULL;
                replaced := OLD.{STAMP};
            END IF;
        END IF;{arrived}
    END IF;
    LOOP
{change}
        IF FOUND THEN
            IF former IS NOT NULL THEN
{departure}
            END IF;
            EXIT;
        END IF;
        SELECT role, stage INTO found_role, found_stage FROM dualstore.control WHERE table_name = {name};
        IF found_role = 'mirror' THEN
            IF TG_OP = 'DELETE' OR former IS NOT NULL THEN
{_doubt(mapping, "OLD")}
            END IF;
            IF TG_OP <> 'DELETE' THEN
{_doubt(mapping, "NEW")}
            END IF;
        ELSIF found_role = 'paused' THEN
{_refuse(mapping, "pause: its authority is about to move", "Try again in a few seconds.")}
        END IF;
        EXIT WHEN found_role IS DISTINCT FROM 'authority' OR found_stage = 'complete';
    END LOOP;
    RETURN NULL;
END"""


def _entry(name: str, key: str, stamp: str, predecessor: str) -> str:
    return f"""
        INSERT INTO dualstore.outbox (table_name, lane, key, stamp, predecessor, done_at)
        SELECT {name}, {lane_of(key)}, {key}, {stamp}, {predecessor},
               CASE stage WHEN 'complete' THEN clock_timestamp() END
        FROM dualstore.control
        WHERE table_name = {name} AND role = 'authority'
          AND (stage <> 'complete' OR {WRITER} = 'authority');"""


def _doubt(mapping: TableMapping, row: str) -> str:
    return f"""
                INSERT INTO dualstore.dirty (table_name, key, item_key, nonce, reason)
                VALUES ({literal(mapping.shape.name)}, {stored_key(mapping, row)}, {typed_key(mapping, row)},
                        gen_random_uuid()::text, 'written around dualstore')
                ON CONFLICT (table_name, sha256(key)) DO UPDATE SET item_key = EXCLUDED.item_key,
                    nonce = EXCLUDED.nonce, reason = EXCLUDED.reason, since = clock_timestamp();"""


def _refuse(mapping: TableMapping, why: str, hint: str) -> str:
    message = literal(f"writes to {sql_table(mapping)} {why}")
    return (
        f"            RAISE EXCEPTION USING ERRCODE = '{PAUSED_SQLSTATE}', MESSAGE = {message}, "
        f"HINT = {literal(hint)};"
    )


def _refuse_level(mapping: TableMapping) -> str:
    message = literal(
        f"writes to {sql_table(mapping)} must be made at READ COMMITTED while dualstore replicates it: an "
        "older snapshot would not show that the authority has moved"
    )
    hint = literal("Begin the transaction at ISOLATION LEVEL READ COMMITTED.")
    return f"        RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = {message}, HINT = {hint};"


def _truncate(mapping: TableMapping) -> str:
    """TRUNCATE fires no row triggers: the other side would never hear of it."""
    refuse = _refuse(
        mapping,
        "must not be a TRUNCATE while dualstore replicates it: nothing would tell the other database",
        "DELETE its rows; or take the table to stage off first.",
    )
    return f"""
BEGIN
    IF EXISTS (SELECT FROM dualstore.control WHERE table_name = {literal(mapping.shape.name)}
               AND (role = 'mirror' OR role = 'paused' OR (role = 'authority' AND stage <> 'complete'))) THEN
{refuse}
    END IF;
    RETURN NULL;
END"""
