"""The log's file: conversations written as they happen, listed, searched, read and deleted.

Owns the file and what keeps it safe: one transaction for each write, several programs at once, this
user alone may read it. Knows nothing of terminals and engines.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from mtp_cli.conversation.saved import Conversation
from mtp_cli.conversation.template import Message
from mtp_cli.errors import MtpError
from mtp_cli.log.schema import bring_up_to_date, transaction

_WAIT_S = 5  # for another program that writes: each write takes milliseconds
_AGAIN_S = 0.01  # until the next try where SQLite does not wait by itself
_N_WORDS = 16  # of a text in which something was found


@dataclass(frozen=True)
class About:
    """What a conversation was held with.

    model:    the path of its file; heads, draft_model: likewise, None for none
    sampling: fields of `Sampling`
    settings: other options, by name
    """

    model: str
    name: str
    fingerprint: str
    heads: str | None = None
    draft_model: str | None = None
    system: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a conversation is written on. revision: its newest write that is known here."""

    id: int
    revision: int


@dataclass(frozen=True)
class Entry:
    """A line of the list. n: exchanges; asked: the first question, or what was found."""

    id: int
    updated_s: float
    model: str
    n: int
    asked: str


@dataclass(frozen=True)
class Kept:
    """A conversation of the log.

    conversation: all that was answered; unanswered: a last question without an answer
    exact: what `Session.resume` takes
    """

    place: Place
    created_s: float
    about: About
    conversation: Conversation
    unanswered: str | None
    exact: bytes | None


class Log:
    """The file at `path`, made where there is none. MtpError for all that is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._faults():
            _make(path)
            self._connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
        try:
            with self._faults():
                self._set_up()
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self) -> None:
        self._use_wal()
        for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        bring_up_to_date(self._connection)

    def _use_wal(self) -> None:
        """A file that is new is changed to it once. SQLite does not wait for another program that
        writes to it just then, whatever the timeout."""
        ends = time.monotonic() + _WAIT_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > ends:
                    raise
            time.sleep(_AGAIN_S)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except MtpError as error:
            raise MtpError(f"{self.path}: {error}") from error
        except (sqlite3.Error, OSError, UnicodeError, ValueError, LookupError, TypeError) as error:
            raise MtpError(f"{self.path}: {_fault(error)}") from error

    def write(
        self,
        place: Place | None,
        about: About,
        messages: Sequence[Message],
        n_same: int,
        exact: bytes | None,
    ) -> Place:
        """Let the conversation be `messages`, the last of which may be a question.

        Where another program has gone on with it, or deleted it, this is a new one from now on.

        n_same: exchanges that are there already
        """
        with self._faults(), transaction(self._connection):
            if place is None or not self._is_newest(place):
                place, n_same = self._begin(), 0
            place = Place(place.id, place.revision + 1)
            self._connection.execute(
                "UPDATE conversations SET revision = ?, updated_s = ?, about = ?, fingerprint = ?, "
                "exact = ? WHERE id = ?",
                (place.revision, time.time(), _json(about), about.fingerprint, exact, place.id),
            )
            self._connection.execute(
                "DELETE FROM exchanges WHERE conversation = ? AND turn >= ?", (place.id, n_same)
            )
            self._connection.executemany(
                "INSERT INTO exchanges (conversation, turn, asked, reasoning, answer) "
                "VALUES (?, ?, ?, ?, ?)",
                _rows(place.id, messages, n_same),
            )
        return place

    def _is_newest(self, place: Place) -> bool:
        found = self._connection.execute(
            "SELECT revision FROM conversations WHERE id = ?", (place.id,)
        ).fetchone()
        return bool(found == (place.revision,))

    def _begin(self) -> Place:
        now = time.time()
        cursor = self._connection.execute(
            "INSERT INTO conversations (revision, created_s, updated_s, about, fingerprint) "
            "VALUES (0, ?, ?, '', '')",
            (now, now),
        )
        assert cursor.lastrowid is not None
        return Place(cursor.lastrowid, 0)

    def newest(self, fingerprint: str | None = None) -> int | None:
        """The conversation that was written last, of one model where it is named; None for none."""
        with self._faults():
            found = self._connection.execute(
                "SELECT id FROM conversations WHERE ? IN ('', fingerprint) "
                "ORDER BY updated_s DESC, id DESC LIMIT 1",
                (fingerprint or "",),
            ).fetchone()
        return None if found is None else int(found[0])

    def read(self, id_: int) -> Kept | None:
        with self._faults():
            found = self._connection.execute(
                "SELECT revision, created_s, about, exact FROM conversations WHERE id = ?", (id_,)
            ).fetchone()
            if found is None:
                return None
            exchanges = self._connection.execute(
                "SELECT asked, reasoning, answer FROM exchanges WHERE conversation = ? "
                "ORDER BY turn",
                (id_,),
            ).fetchall()
            revision, created_s, about, exact = found
            return _kept(Place(id_, revision), created_s, json.loads(about), exchanges, exact)

    def entries(self, n_most: int) -> list[Entry]:
        """The newest first."""
        return self._entries(
            "SELECT c.id, c.updated_s, c.about, "
            "(SELECT count(*) FROM exchanges WHERE conversation = c.id), "
            "(SELECT asked FROM exchanges WHERE conversation = c.id ORDER BY turn LIMIT 1) "
            "FROM conversations c ORDER BY c.updated_s DESC, c.id DESC LIMIT ?",
            (n_most,),
        )

    def search(self, words: Sequence[str], n_most: int) -> list[Entry]:
        """Exchanges in which all `words` are, the best first; `n` says which of its conversation.

        A word that ends in * stands for all that begin so.
        """
        return self._entries(
            "SELECT c.id, c.updated_s, c.about, e.turn + 1, "
            f"snippet(words, -1, '', '', '…', {_N_WORDS}) "
            "FROM words JOIN exchanges e ON e.id = words.rowid "
            "JOIN conversations c ON c.id = e.conversation "
            "WHERE words MATCH ? ORDER BY words.rank LIMIT ?",
            (" ".join(map(_quoted, words)), n_most),
        )

    def _entries(self, query: str, parameters: tuple[object, ...]) -> list[Entry]:
        with self._faults():
            rows = self._connection.execute(query, parameters).fetchall()
            return [
                Entry(id_, updated_s, str(json.loads(about)["name"]), n, asked or "")
                for id_, updated_s, about, n, asked in rows
            ]

    def delete(self, ids: Sequence[int] | None) -> int:
        """Delete conversations, None for all, so that nothing of them stays in the file; how many
        there were."""
        with self._faults():
            with transaction(self._connection):
                n = 0
                for id_ in self._all() if ids is None else ids:
                    n += self._connection.execute(
                        "DELETE FROM conversations WHERE id = ?", (id_,)
                    ).rowcount
                # The index keeps deleted words until its parts are merged.
                self._connection.execute("INSERT INTO words (words) VALUES ('optimize')")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return n

    def _all(self) -> list[int]:
        return [id_ for (id_,) in self._connection.execute("SELECT id FROM conversations")]

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def path() -> Path:
    """Where the log lies: XDG_STATE_HOME, or the platform's own place for such files."""
    return platformdirs.user_state_path("mtp-chat", appauthor=False) / "conversations.db"


def _make(file: Path) -> None:
    """An empty file for this user's eyes only; SQLite gives those beside it the same rights."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    if os.name == "posix":
        file.chmod(0o600)


def _fault(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "the system does not say why"
    if isinstance(error, sqlite3.OperationalError):  # locked, full, read-only
        return str(error)
    return "damaged; moved away, it makes room for a new one"


def _json(about: About) -> str:
    return json.dumps(asdict(about))


def _quoted(word: str) -> str:
    """A word as FTS5 takes it literally."""
    body = word.rstrip("*")
    return '"' + body.replace('"', '""') + '"' + ("*" if body != word else "")


def _rows(id_: int, messages: Sequence[Message], n_same: int) -> Iterator[tuple[object, ...]]:
    for turn in range(n_same, (len(messages) + 1) // 2):
        asked, *answered = messages[2 * turn : 2 * turn + 2]
        reasoning = answer = None
        if answered:
            reasoning, answer = answered[0].get("reasoning"), answered[0]["content"]
        yield id_, turn, asked["content"], reasoning, answer


def _kept(
    place: Place,
    created_s: float,
    fields: Mapping[str, Any],
    exchanges: Sequence[tuple[str, str | None, str | None]],
    exact: bytes | None,
) -> Kept:
    about = About(**fields)
    messages: list[Message] = []
    unanswered = None
    for asked, reasoning, answer in exchanges:
        if answer is None:
            unanswered = asked
            break
        message = Message(role="assistant", content=answer)
        if reasoning is not None:
            message["reasoning"] = reasoning
        messages += [Message(role="user", content=asked), message]
    conversation = Conversation(about.system, messages, about.name, about.sampling)
    return Kept(place, created_s, about, conversation, unanswered, exact)
