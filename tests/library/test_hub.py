"""Models of a hub: what is taken, what is kept, and one line for each thing that goes wrong.

Each download is a process of its own, as a user's is.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.specs import SPECS
from tests.library import laid_out
from tests.library.fake_hub import COMMIT, FakeHub, running, sha256

LOCATE = """
import sys
from pathlib import Path
from mtp_cli.errors import MtpError
from mtp_cli.library.names import locate
from mtp_cli.screen import say_error
for name in sys.argv[1:]:
    try:
        print(locate(Path(name)))
    except MtpError as error:
        say_error(error, sys.stderr)
"""
WAITING = (
    "asking ",
    "downloading ",
    "checking ",
    "waiting ",
)  # what a log is told on a slow machine
CHAT = "from mtp_cli.chat.cli import main; main()"
REPOSITORY = "you/Big-GGUF"
LARGE = b"GGUF" + bytes(range(256)) * 12_000
FILES = {
    "Big-BF16-00001-of-00002.gguf": b"GGUF first",
    "Big-BF16-00002-of-00002.gguf": b"GGUF second",
    "Big-Q4_K_M.gguf": LARGE,
    "Big-Q8_0.gguf": b"GGUF eight",
    "README.md": b"# Big",
    "mmproj-F16.gguf": b"GGUF pictures",
    "mtp-Big-Q8_0.gguf": b"GGUF heads",
}


@pytest.fixture
def hub(home: Path) -> Iterator[FakeHub]:
    with running(FakeHub({REPOSITORY: dict(FILES)})) as hub:
        yield hub


def start(
    hub: FakeHub, *arguments: str, script: str = LOCATE, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "HF_ENDPOINT": hub.url, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(child: subprocess.Popen[str]) -> tuple[list[str], list[str]]:
    """Lines of stdout, and of stderr those that are not about waiting."""
    out, err = child.communicate(timeout=60)
    return out.splitlines(), [line for line in err.splitlines() if not line.startswith(WAITING)]


def fetched(hub: FakeHub, *names: str, **environment: str) -> Path:
    """What every one of the names leads to."""
    out, err = done(start(hub, *names, **environment))
    assert (len(out), len(set(out)), err) == (len(names), 1, [])
    return Path(out[0])


def refused(hub: FakeHub, *names: str, **environment: str) -> list[str]:
    """A line for each."""
    out, err = done(start(hub, *names, **environment))
    assert (out, len(err)) == ([], len(names))
    assert all(line.startswith("error: ") for line in err)
    return err


def cache(home: Path) -> Path:
    return home / ".cache/huggingface/hub"


def kept(home: Path) -> dict[str, bytes]:
    folder = cache(home) / "models--you--Big-GGUF/snapshots" / COMMIT
    return {path.name: path.read_bytes() for path in folder.rglob("*")}


def test_the_best_known_quantization_and_the_head_beside_it_come(home: Path, hub: FakeHub) -> None:
    path = fetched(hub, f"hf:{REPOSITORY}")
    assert path.name == "Big-Q4_K_M.gguf"
    taken = ("Big-Q4_K_M.gguf", "mtp-Big-Q8_0.gguf")
    assert kept(home) == {name: FILES[name] for name in taken}
    assert (cache(home) / "models--you--Big-GGUF/refs/main").read_text() == COMMIT
    assert path.resolve().name == sha256(LARGE)


def test_a_model_in_parts_comes_whole(home: Path, hub: FakeHub) -> None:
    path = fetched(hub, f"hf:{REPOSITORY}:bf16")
    assert path.name == "Big-BF16-00001-of-00002.gguf"
    assert len(kept(home)) == 3


def test_what_is_here_is_not_asked_for_again(home: Path, hub: FakeHub) -> None:
    path = fetched(hub, f"hf:{REPOSITORY}:Q8_0")
    hub.requests.clear()
    names = (f"hf:{REPOSITORY}:q8_0", f"{REPOSITORY}:Q8_0", "big", f"hf:{REPOSITORY}:Big-Q8_0.gguf")
    assert fetched(hub, *names) == path
    assert hub.requests == []
    assert fetched(hub, f"hf:{REPOSITORY}").name == "Big-Q4_K_M.gguf"  # a better one is there


def test_what_other_tools_have_fetched_is_used(home: Path, hub: FakeHub) -> None:
    path = laid_out.hugging_face(home, REPOSITORY, "Big-Q4_K_M.gguf")
    assert fetched(hub, f"hf:{REPOSITORY}") == path
    assert hub.requests == []


def test_a_token_goes_to_the_hub_and_not_to_where_it_sends_us(home: Path, hub: FakeHub) -> None:
    fetched(hub, f"hf:{REPOSITORY}:Q8_0", HF_TOKEN="hf_secret")
    for path in ("/api/models/", f"/{REPOSITORY}/resolve/"):
        assert {headers.get("authorization") for headers in hub.asked("GET", path)} == {
            "Bearer hf_secret"
        }
    store = hub.asked("GET", sha256(FILES["Big-Q8_0.gguf"]))
    assert [headers.get("authorization") for headers in store] == [None]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_goes_on_where_it_ended(
    home: Path, hub: FakeHub, how: signal.Signals
) -> None:
    hub.stalls_at = len(LARGE) // 2
    child = start(hub, "-m", f"hf:{REPOSITORY}", "Hi", script=CHAT)
    assert hub.stalled.wait(30)
    part = cache(home) / "models--you--Big-GGUF/blobs" / f"{sha256(LARGE)}.incomplete"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(how)
    _out, err = child.communicate(timeout=30)
    if how is signal.SIGINT:
        assert child.returncode == 130
        assert re.fullmatch(
            r"interrupted; \d+\.\d MB of 3\.1 MB are kept, and the same command goes on",
            err.splitlines()[-1],
        )
    n_kept = part.stat().st_size
    assert 0 < n_kept < len(LARGE)
    hub.stalls_at = None
    hub.requests.clear()
    assert fetched(hub, f"hf:{REPOSITORY}").read_bytes() == LARGE
    asked = [
        headers.get("range") or headers.get("Range") for headers in hub.asked("GET", sha256(LARGE))
    ]
    assert asked == [f"bytes={n_kept}-"]
    assert not part.exists()


def test_a_connection_that_breaks_is_taken_up_again(home: Path, hub: FakeHub) -> None:
    hub.breaks_at = len(LARGE) // 2 + 1
    assert fetched(hub, f"hf:{REPOSITORY}").read_bytes() == LARGE
    assert len(hub.asked("GET", sha256(LARGE))) > 1


def test_a_server_without_ranges_sends_all_again(home: Path, hub: FakeHub) -> None:
    part = cache(home) / "models--you--Big-GGUF/blobs" / f"{sha256(LARGE)}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(LARGE[:1000])
    hub.no_ranges = True
    assert fetched(hub, f"hf:{REPOSITORY}").read_bytes() == LARGE


@pytest.mark.parametrize("size", [len(LARGE), len(LARGE) + 5, 5])
def test_what_was_left_and_is_wrong_is_no_part_of_the_file(
    home: Path, hub: FakeHub, size: int
) -> None:
    part = cache(home) / "models--you--Big-GGUF/blobs" / f"{sha256(LARGE)}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(size))
    if size > len(LARGE):
        assert fetched(hub, f"hf:{REPOSITORY}").read_bytes() == LARGE
        return
    assert "its hash differs" in refused(hub, f"hf:{REPOSITORY}")[0]
    assert not part.exists()
    assert fetched(hub, f"hf:{REPOSITORY}").read_bytes() == LARGE


def test_a_wrong_hash_is_refused_and_nothing_is_kept(home: Path, hub: FakeHub) -> None:
    hub.corrupted.add("Big-Q8_0.gguf")
    [line] = refused(hub, f"hf:{REPOSITORY}:Q8_0")
    assert "Big-Q8_0.gguf: what came is not what" in line
    assert "and was removed; the same command gets it again" in line
    assert kept(home) == {}
    hub.corrupted.clear()
    assert fetched(hub, f"hf:{REPOSITORY}:Q8_0").read_bytes() == FILES["Big-Q8_0.gguf"]


def test_no_room_is_said_before_anything_comes(home: Path, hub: FakeHub) -> None:
    hub.announced["Big-Q4_K_M.gguf"] = 1 << 60
    [line] = refused(hub, f"hf:{REPOSITORY}")
    assert "1152921504.6 GB are to come, and" in line
    assert "HF_HOME names a folder on another disk" in line
    assert hub.asked("GET", "resolve") == []


def test_a_disk_that_fills_keeps_what_has_come(home: Path, hub: FakeHub) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
    out, err = done(start(hub, f"hf:{REPOSITORY}", script=limit + LOCATE))
    assert (out, len(err)) == ([], 1)
    assert "cannot be written: File too large; HF_HOME names" in err[0]
    part = cache(home) / "models--you--Big-GGUF/blobs" / f"{sha256(LARGE)}.incomplete"
    assert part.stat().st_size == 1 << 20
    assert fetched(hub, f"hf:{REPOSITORY}").read_bytes() == LARGE


def test_a_refusal_is_one_line_with_what_to_do(home: Path, hub: FakeHub) -> None:
    expected = {
        403: "its owners want to be asked first: http://127.0.0.1",
        401: "no such repository at http://127.0.0.1",
        404: "no such repository at http://127.0.0.1",
        429: "the hub wants fewer requests",
        503: "the hub answers 503",
    }
    hub.status = {f"you/r{status}": status for status in expected}
    lines = refused(hub, *(f"hf:{repository}" for repository in hub.status))
    for line, (status, said) in zip(lines, expected.items(), strict=True):
        assert line.startswith(f"error: hf:you/r{status}: ")
        assert said in line
    assert not cache(home).exists()


def test_what_a_repository_does_not_have(home: Path, hub: FakeHub) -> None:
    hub.repositories |= {
        "you/nothing": {"README.md": b""},
        "you/checkpoint": {"model.safetensors": b""},
        "you/torn": {"x-00001-of-00002.gguf": b"GGUF"},
    }
    expected = {
        f"hf:{REPOSITORY}:Q5_K_M": "no Q5_K_M in it; there are BF16, Q4_K_M, Q8_0",
        f"hf:{REPOSITORY}:nosuch.gguf": "no nosuch.gguf in it; there are",
        "hf:you/nothing": "no GGUF in it; look for a repository whose name ends in -GGUF",
        "hf:you/checkpoint": "a checkpoint without a GGUF; hf download gets it, mtp-convert",
        "hf:you/torn": "the repository lacks x-00002-of-00002.gguf",
        "hf:you": "expected hf:USER/REPO or hf:USER/REPO:QUANT",
        "hf:a/b/c": "expected hf:USER/REPO or hf:USER/REPO:QUANT",
        "hf:-x/y--z": "no repository can be called that; expected USER/REPO",
    }
    for line, said in zip(refused(hub, *expected), expected.values(), strict=True):
        assert said in line


def test_without_a_network_what_is_here_is_used(home: Path, hub: FakeHub) -> None:
    nobody = "http://127.0.0.1:9"
    [line] = refused(hub, f"hf:{REPOSITORY}", HF_ENDPOINT=nobody)
    assert f"no answer from {nobody} (" in line
    assert "is there a network?" in line
    [offline] = refused(hub, f"hf:{REPOSITORY}", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE forbids to ask the hub; unset it" in offline
    path = fetched(hub, f"hf:{REPOSITORY}:Q8_0")
    hub.requests.clear()
    assert fetched(hub, f"hf:{REPOSITORY}", HF_ENDPOINT=nobody) == path
    assert fetched(hub, f"hf:{REPOSITORY}", HF_HUB_OFFLINE="1") == path
    assert hub.requests == []


def test_of_a_model_in_parts_none_is_used_before_all_are_here(home: Path, hub: FakeHub) -> None:
    laid_out.hugging_face(home, REPOSITORY, "Big-BF16-00001-of-00002.gguf", commit=COMMIT)
    [line] = refused(hub, f"hf:{REPOSITORY}:BF16", HF_HUB_OFFLINE="1")
    assert "not on this machine" in line
    fetched(hub, f"hf:{REPOSITORY}:BF16")
    assert "Big-BF16-00002-of-00002.gguf" in kept(home)


def test_two_downloads_of_one_file_fetch_it_once(home: Path, hub: FakeHub) -> None:
    hub.stalls_at = len(LARGE) // 2
    first = start(hub, f"hf:{REPOSITORY}")
    assert hub.stalled.wait(30)
    second = start(hub, f"hf:{REPOSITORY}")
    while len(hub.asked("GET", "/api/models/")) < 2:
        time.sleep(0.05)
    hub.goes_on.set()
    paths = [done(child)[0] for child in (first, second)]
    assert paths[0] == paths[1]
    assert Path(paths[0][0]).read_bytes() == LARGE
    assert len(hub.asked("GET", sha256(LARGE))) == 1


def test_a_log_is_told_how_far_it_is(home: Path, hub: FakeHub) -> None:
    hub.stalls_at = len(LARGE) // 2
    child = start(hub, f"hf:{REPOSITORY}")
    assert child.stderr is not None
    line = child.stderr.readline()  # comes while the download stands still
    hub.goes_on.set()
    child.communicate(timeout=60)
    assert re.fullmatch(r"downloading Big-Q4_K_M\.gguf: \d+% of 3\.1 MB, \d+\.\d MB/s\n", line)


def test_a_model_by_its_repository_answers(home: Path, hub: FakeHub, tmp_path: Path) -> None:
    tiny = SPECS["llama"]().write(tmp_path / "tiny.gguf").read_bytes()
    hub.repositories["you/Tiny-GGUF"] = {"Tiny-Q8_0.gguf": tiny}
    asked = ("-hf", "you/Tiny-GGUF", "--raw", "-n", "4", "-t", "0", "--quiet", "abc")
    child = start(hub, *asked, script=CHAT, MTP_KERNELS="ggml")
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert out.strip()
    again = start(hub, "-m", "tiny", *asked[2:], script=CHAT, MTP_KERNELS="ggml")
    assert again.communicate(timeout=60)[0] == out


def test_a_model_has_one_name(home: Path, hub: FakeHub) -> None:
    child = start(hub, "-m", "a.gguf", "--hf-repo", "you/x", "Hi", script=CHAT)
    _out, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "--hf-repo and --model: one of them names the model" in err
    assert hub.requests == []
