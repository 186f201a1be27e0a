"""Devices of other machines: drafting through two RPC servers, and all that can be wrong with one.

The servers are llama.cpp's own, on the loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from mtp_cli.engine.backend import rpc
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import Tiny, write_checkpoint
from tests.convert.checkpoints_gemma4 import agreeing
from tests.engine import tiny
from tests.engine.backend.over_rpc import N_TOKENS, Answers, Case, answers
from tests.engine.backend.rpc_servers import free_port, needs_rpc, serving

CASES = (
    *("heads beside it", "heads inside", "chained heads inside", "heads of a hybrid, replayed"),
    *("rows of layers, handed out", "rows of layers, by the callback", "an assistant"),
    *("a draft model", "one layer there", "none there", "one server with a share"),
    *("one layer by its name", "a mixture, its experts here", "a recurrent model"),
)


def written(folder: Path, checkpoint: Tiny, name: str) -> str:
    made = write_checkpoint(folder / name, checkpoint)
    out = folder / f"{name}.gguf"
    write(plan_checkpoint(open_checkpoint(made), Options(outtype="f32")), out)
    return str(out)


def cases(folder: Path) -> dict[str, Case]:
    def file(spec: tiny.Spec, name: str) -> str:
        return str(spec.write(folder / f"{name}.gguf"))

    llama, qwen2 = tiny.llama(n_blocks=4), tiny.qwen2()
    model, other = file(llama, "llama"), file(qwen2, "qwen2")
    heads = file(tiny.heads_for(llama, hidden="pre_norm"), "heads")
    fused = file(tiny.fused_heads_for(llama, (1, 2, 3)), "fused")
    by_name = file(tiny.fused_heads_for(qwen2, (1, 2)), "by-name")
    moe = file(tiny.qwen3moe(), "moe")
    target, assistant = agreeing()
    return dict(
        zip(
            CASES,
            (
                Case(model, heads),
                Case(file(tiny.qwen35(), "qwen35")),
                Case(file(tiny.mimo2(), "mimo2")),
                Case(file(tiny.qwen3next(), "qwen3next")),
                Case(model, fused),
                Case(other, by_name),
                Case(
                    written(folder, target, "gemma4"),
                    written(folder, assistant, "assistant"),
                ),
                Case(model, draft_model=file(tiny.llama(seed=2), "small")),
                Case(model, heads, n_layers=1),
                Case(model, heads, n_layers=0),
                Case(model, heads, split=(0.0, 1.0)),
                Case(model, heads, n_layers=0, overrides=((r"blk\.1\.", "{1}"),)),
                Case(moe, file(tiny.heads_for(tiny.qwen3moe(), hidden="pre_norm"), "moe-heads"),
                     overrides=(("exps", "CPU"),)),
                Case(file(tiny.mamba(), "mamba")),
            ),
            strict=True,
        )
    )  # fmt: skip


Both = dict[str, tuple[Answers, Answers]]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """By case: the answers over two servers, and those of this machine alone."""
    wanted = cases(tmp_path_factory.mktemp("rpc"))
    with serving(2) as servers:
        done = subprocess.run(
            [sys.executable, "-m", "tests.engine.backend.over_rpc", *(s.address for s in servers)],
            input=json.dumps({name: asdict(case) for name, case in wanted.items()}),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert done.returncode == 0, done.stderr
    remote = {name: Answers(**fields) for name, fields in json.loads(done.stdout).items()}
    here = {
        name: answers(Case(case.model, case.heads, case.draft_model), ())
        for name, case in wanted.items()
    }
    return {name: (remote[name], here[name]) for name in wanted}


@needs_rpc
@pytest.mark.parametrize("name", CASES)
def test_drafting_over_two_servers_is_lossless(answered: Both, name: str) -> None:
    there, here = answered[name]
    assert there.drafted == there.plain == here.plain
    assert len(set(there.plain)) > 5
    assert there.n_verified == here.n_verified
    assert (there.n_verified > N_TOKENS / 2) == (name != "a recurrent model")


@contextlib.contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """Something that listens and says `answer` to whoever connects, None for nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    if answer is None:
                        done.wait()
                    else:
                        connection.recv(64)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        done.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname()).close()
        thread.join()


def hello(size: int, *version: int) -> bytes:
    return struct.pack("<Q4B24x", size, *version, 0)


@needs_rpc
@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("no.such.host.invalid:50052", "no such host; name it by an address, as 192"),
        ("no..host:50052", "no such host"),
        (f"127.0.0.1:{free_port()}", "nothing listens there; start mtp-rpc on that machine"),
    ],
)
def test_where_no_server_is_one_line_says_so(server: str, said: str) -> None:
    with pytest.raises(MtpError, match=f"^--rpc {server}: {said}") as caught:
        rpc.devices([server])
    assert "\n" not in str(caught.value)


@needs_rpc
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "no RPC server of llama.cpp"),
        (b"", "no RPC server of llama.cpp answers there; mtp-rpc starts one"),
        (hello(28, 6, 1, 0), "speaks version 6.1 of the protocol, and this llama.cpp 7.0; start"),
        (hello(28, 7, 9, 0), "speaks version 7.9 of the protocol"),
        (hello(3, 7, 0, 0), "no RPC server of llama.cpp"),
    ],
)
def test_what_is_no_server_of_this_release_is_told_apart(answer: bytes, said: str) -> None:
    with answering(answer) as server, pytest.raises(MtpError, match=f"^--rpc {server}: {said}"):
        rpc.devices([server])


@needs_rpc
def test_a_server_that_says_nothing_may_have_another_client() -> None:
    with answering(None) as server, pytest.raises(MtpError, match="no answer within 3 s; another"):
        rpc.devices([server])


@pytest.mark.skipif(rpc.address_of(b"ggml_backend_rpc_add_server") is not None, reason="built in")
def test_a_build_without_it_is_one_line() -> None:
    with pytest.raises(MtpError, match=r"^--rpc: llama.cpp was built without RPC here; docs/inst"):
        rpc.devices(["127.0.0.1:50052"])
    assert lend("--port", str(free_port())).startswith("error: llama.cpp was built without RPC")


def chat(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mtp_cli.chat", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@needs_rpc
def test_a_command_answers_over_it_and_says_where_a_server_ends_in_the_middle(
    tmp_path: Path,
) -> None:
    model = tiny.llama().write(tmp_path / "m.gguf")
    asked = ("-m", str(model), "--raw", "-t", "0", "--quiet", "--no-loop-guard", "the thing")
    with serving(2) as servers:
        both = ",".join(server.address for server in servers)
        here, _ = chat(*asked, "-n", "40").communicate()
        there, said = chat(*asked, "-n", "40", "--rpc", both).communicate()
        assert (there, said) == (here, "")
        process = chat(*asked, "-n", "0", "--ctx", "100000", "--rpc", both)
        assert process.stdout is not None
        assert process.stdout.read(20) == here[:20]
        servers[1].kill()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == (
        f"error: --rpc {servers[1].address}: the server is gone, or said what llama.cpp cannot "
        "read; start it again, and then this\n"
    )


def test_servers_are_watched_where_there_are_no_terminals() -> None:
    """As on Windows, whose Python has no termios."""
    program = (
        "import sys; from mtp_cli.engine.backend import lost; "
        "sys.modules['termios'] = None; lost.watch('127.0.0.1:50052')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def lend(*arguments: str) -> str:
    """What `mtp-rpc` says where it cannot."""
    done = subprocess.run(
        [sys.executable, "-m", "mtp_cli.rpc", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


@needs_rpc
def test_what_cannot_be_lent_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert lend("--port", port).startswith(f"error: cannot listen on 127.0.0.1:{port}: Address")
    assert lend("--host", "no..host") == (
        "error: cannot listen on no..host:50052: no such host; --host takes an address of this "
        "machine"
    )
    said = lend("--port", str(free_port()), "--device", "CUDA9")
    assert said == "error: --device: no device CUDA9 here; there is CPU"
