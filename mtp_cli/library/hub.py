"""Repositories of Hugging Face: what to take of one, and its way into Hugging Face's own cache.

Owns downloads: what is here already is not asked for, what was interrupted goes on where it ended,
and nothing is used before its size and hash are those that the hub announced. huggingface_hub knows
how to speak to the hub; its own downloads begin anew each time, so the parts are kept here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._fixes import WeakFileLock
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils.logging import set_verbosity
from huggingface_hub.utils.tqdm import disable_progress_bars

from mtp_cli.errors import MtpError
from mtp_cli.library.hub_faults import NoAnswer, in_words
from mtp_cli.library.stores import hub_cache, repository_files
from mtp_cli.paths import folder, parts
from mtp_cli.screen import say
from mtp_cli.waiting import Wait
from mtp_cli.whole_file import write_whole

_ANSWER_S = 15.0  # for a listing: longer, and there is no network that a person would wait for
# Written at once: what an interruption loses at most. With huggingface_hub's own ten times as many
# a slow download seems to stand still.
_CHUNK_BYTES = 1 << 20
_SHA256_DIGITS = 64  # large files are named by it, others by git's own hash
_WANTED = re.compile(r"/*(?P<repository>[\w.-]+/[\w.-]+?)(?::(?P<quant>[\w./-]+))?/?")


@dataclass(frozen=True)
class Wanted:
    """USER/REPO, and which of its files: a quantization or a name; the best known if empty."""

    repository: str
    quant: str = ""

    @classmethod
    def parse(cls, text: str) -> Wanted:
        match = _WANTED.fullmatch(text)
        if match is None:
            raise MtpError(f"hf:{text}: expected hf:USER/REPO or hf:USER/REPO:QUANT")
        return cls(match["repository"], match["quant"] or "")

    def __str__(self) -> str:
        return f"hf:{self.repository}" + (f":{self.quant}" if self.quant else "")


@dataclass(frozen=True)
class Remote:
    """A file of a repository. digest: its sha256, of small files git's sha1; hexadecimal"""

    name: str
    n_bytes: int
    digest: str


def fetch(text: str, *, quiet: bool = False) -> Path:
    """The first file of a model of Hugging Face, downloaded where it is not here.

    text: USER/REPO[:QUANT]; what drafts beside it (`parts.SIDECARS`) comes too

    Raises MtpError for everything that keeps it from coming; what has come stays for the next try.
    """
    wanted = Wanted.parse(text)
    here = repository_files(hub_cache(), wanted.repository)
    if (found := _certain(here, wanted)) is not None:
        return found
    set_verbosity(ERROR)  # its warnings are said in our words
    disable_progress_bars()
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    try:
        with in_words(wanted.repository, str(wanted)):
            return _Download(wanted, quiet).run()
    except NoAnswer as error:
        chosen = parts.choose(_whole(here), wanted.quant)
        if chosen is None:
            raise MtpError(str(error)) from None
        return here[chosen]


def _certain(here: dict[str, Path], wanted: Wanted) -> Path | None:
    """What of a repository is here, if the hub could name nothing better."""
    chosen = parts.choose(_whole(here), wanted.quant or parts.PREFERRED[0])
    return None if chosen is None else here[chosen]


def _whole(here: dict[str, Path]) -> list[str]:
    """Files, without the first parts of models that lack others."""
    return [name for name in here if all(part in here for part in parts.parts(name))]


class _Download:
    """One model's way here."""

    def __init__(self, wanted: Wanted, quiet: bool) -> None:
        self._wanted, self._quiet = wanted, quiet
        self._repository = wanted.repository
        self._cache = hub_cache()
        self._folder = self._cache / f"models--{wanted.repository.replace('/', '--')}"
        self._n_bytes = 0  # of all files
        self._n_done = 0  # of those that are whole
        self._part: Path | None = None  # of the file under way
        self._said = f"asking {constants.ENDPOINT.partition('://')[2]} for {wanted.repository}"

    def run(self) -> Path:
        try:
            with Wait(self._describe, sys.stderr, quiet=self._quiet):
                return self._run()
        except KeyboardInterrupt:
            self._say_kept()
            raise

    def _run(self) -> Path:
        commit, files = self._listed()
        chosen = self._chosen(files)
        self._n_bytes = sum(file.n_bytes for file in chosen)
        self._check_room(chosen)
        self._began_s = time.monotonic()
        self._n_before = sum(map(self._n_here, chosen))
        paths = [self._take(file, commit) for file in chosen]
        self._keep_main(commit)
        return paths[0]

    def _listed(self) -> tuple[str, list[Remote]]:
        """The newest commit and its files."""
        info = HfApi().model_info(self._repository, files_metadata=True, timeout=_ANSWER_S)
        files = [
            Remote(
                file.rfilename,
                file.lfs.size if file.lfs else file.size or 0,
                (file.lfs.sha256 if file.lfs else file.blob_id) or "",
            )
            for file in info.siblings or ()
        ]
        return str(info.sha), files

    def _chosen(self, files: Sequence[Remote]) -> list[Remote]:
        by_name = {file.name: file for file in files}
        model = parts.choose(by_name, self._wanted.quant)
        if model is None:
            raise MtpError(f"{self._wanted}: {_instead(self._wanted, list(by_name))}")
        names = parts.parts(model)
        if missing := [name for name in names if name not in by_name]:
            raise MtpError(f"{self._wanted}: the repository lacks {folder.listed(missing)}")
        sidecar = parts.sidecar_for(by_name, model)
        return [by_name[name] for name in (*names, *([sidecar] if sidecar else []))]

    def _blob(self, file: Remote) -> Path:
        return self._folder / "blobs" / file.digest

    def _partial(self, file: Remote) -> Path:
        return self._blob(file).with_name(f"{file.digest}.incomplete")

    def _n_here(self, file: Remote) -> int:
        for path in (self._blob(file), self._partial(file)):
            with contextlib.suppress(OSError):
                return path.stat().st_size
        return 0

    def _check_room(self, files: Sequence[Remote]) -> None:
        needed = sum(max(0, file.n_bytes - self._n_here(file)) for file in files)
        self._folder.joinpath("blobs").mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise MtpError(
                f"{self._wanted}: {_size(needed)} are to come, and {self._cache} has room for "
                f"{_size(free)}; HF_HOME names a folder on another disk"
            )

    def _take(self, file: Remote, commit: str) -> Path:
        """Download the missing part of a file, and give it its name in the cache."""
        if not self._blob(file).exists():
            lock = self._cache / ".locks" / self._folder.name / f"{file.digest}.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            self._said = f"waiting for another download of {file.name}"
            with WeakFileLock(lock):
                if not self._blob(file).exists():
                    self._receive(file, commit)
        self._n_done += file.n_bytes
        return Path(
            hf_hub_download(self._repository, file.name, revision=commit, cache_dir=self._cache)
        )

    def _receive(self, file: Remote, commit: str) -> None:
        part = self._part = self._partial(file)
        self._said = f"downloading {file.name}"
        part.touch()
        if part.stat().st_size > file.n_bytes:
            part.unlink()
            part.touch()
        with part.open("r+b") as out:
            n_before = out.seek(0, os.SEEK_END)
            if n_before < file.n_bytes:
                url = hf_hub_url(self._repository, file.name, revision=commit)
                http_get(url, out, resume_size=n_before, headers=build_hf_headers())
        self._said, self._part = f"checking {file.name}", None
        self._check(part, file)
        os.replace(part, self._blob(file))

    def _check(self, part: Path, file: Remote) -> None:
        n_bytes = part.stat().st_size
        if n_bytes < file.n_bytes:
            raise MtpError(
                f"{file.name}: {_size(n_bytes)} of {_size(file.n_bytes)} came; the same command "
                "goes on from there"
            )
        if n_bytes > file.n_bytes or _digest(part, file) != file.digest:
            part.unlink()
            raise MtpError(
                f"{file.name}: what came is not what {constants.ENDPOINT} announced (its hash "
                "differs), and was removed; the same command gets it again"
            )

    def _keep_main(self, commit: str) -> None:
        """Which version is the newest, for tools that read the cache."""
        refs = self._folder / "refs"
        refs.mkdir(exist_ok=True)
        write_whole(refs / "main", commit, is_durable=False)

    def _n_come(self) -> int:
        with contextlib.suppress(OSError):
            return self._n_done + (self._part.stat().st_size if self._part else 0)
        return self._n_done

    def _describe(self) -> str:
        if self._part is None:
            return self._said
        n_come = self._n_come()
        speed = max(0, n_come - self._n_before) / max(time.monotonic() - self._began_s, 1e-3)
        share = f"{n_come / max(1, self._n_bytes):.0%} of {_size(self._n_bytes)}"
        return f"{self._said}: {share}, {_size(speed)}/s"

    def _say_kept(self) -> None:
        if not self._quiet and self._n_come():
            kept = f"{_size(self._n_come())} of {_size(self._n_bytes)}"
            say(f"interrupted; {kept} are kept, and the same command goes on", sys.stderr)


def _instead(wanted: Wanted, names: Sequence[str]) -> str:
    quants = parts.quants(names)
    if quants:
        return f"no {wanted.quant} in it; there are {', '.join(quants)}"
    if any(name.endswith(".safetensors") for name in names):
        return (
            "a checkpoint without a GGUF; hf download gets it, mtp-convert convert makes a GGUF of "
            "it, or look for a repository whose name ends in -GGUF"
        )
    return "no GGUF in it; look for a repository whose name ends in -GGUF"


def _digest(path: Path, file: Remote) -> str:
    is_large = len(file.digest) == _SHA256_DIGITS
    digest = hashlib.sha256() if is_large else hashlib.sha1(b"blob %d\0" % file.n_bytes)
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as read:
        while chunk := read.read(_CHUNK_BYTES):
            yield chunk


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
