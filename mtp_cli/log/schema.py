"""The tables of the log, and how an older file becomes one of this version.

Knows SQL. Knows nothing of conversations.

`PRAGMA user_version` counts the steps that a file has taken. A step is never changed once it was
released: a later one changes what it made.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from mtp_cli.errors import MtpError

_TABLES = (
    """
    CREATE TABLE conversations (
        id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, not even after a deletion
        revision INTEGER NOT NULL,             -- counts the writes: who finds another one was late
        created_s REAL NOT NULL,
        updated_s REAL NOT NULL,
        about TEXT NOT NULL,                   -- JSON: model, system prompt, settings
        fingerprint TEXT NOT NULL,             -- of the model
        exact BLOB                             -- token ids, to go on with
    )
    """,
    """
    CREATE TABLE exchanges (
        id INTEGER PRIMARY KEY,
        conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
        turn INTEGER NOT NULL,
        asked TEXT NOT NULL,
        reasoning TEXT,
        answer TEXT,                           -- NULL: was never finished
        UNIQUE (conversation, turn)
    )
    """,
    "CREATE INDEX newest ON conversations (updated_s)",
)
_WORDS = (
    """
    CREATE VIRTUAL TABLE words
    USING fts5 (asked, answer, content = 'exchanges', content_rowid = 'id')
    """,
    """
    CREATE TRIGGER words_added AFTER INSERT ON exchanges BEGIN
        INSERT INTO words (rowid, asked, answer) VALUES (new.id, new.asked, new.answer);
    END
    """,
    """
    CREATE TRIGGER words_dropped AFTER DELETE ON exchanges BEGIN
        INSERT INTO words (words, rowid, asked, answer)
        VALUES ('delete', old.id, old.asked, old.answer);
    END
    """,
    "INSERT INTO words (words) VALUES ('rebuild')",  # what was kept before there was a search
)
STEPS = (_TABLES, _WORDS)


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Take the steps that the file has not taken; MtpError where it has taken more than are known.

    Several programs may open a new file at once: the first one takes the steps, the others wait.
    """
    if _version(connection) == len(STEPS):
        return
    with transaction(connection):
        version = _version(connection)
        if version > len(STEPS):
            raise MtpError("written by a newer version of mtp-chat; install that one")
        for statement in (statement for step in STEPS[version:] for statement in step):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Within it all is written or nothing, and no other program writes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise
