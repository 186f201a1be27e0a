"""Devices of other machines, through llama.cpp's RPC backend; and lending this machine's.

Owns the check of each server before llama.cpp connects, and the one connection to each, which stays
until the process ends. Unchecked, llama.cpp ends the process where nothing answers, or a server of
another release does (`lost.py`). Knows nothing of models.

A server has one client at a time, and does not answer a second one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mtp_cli.engine.backend import lost
from mtp_cli.engine.backend.binding import (
    CPU_DEVICE,
    device_name,
    device_type,
    ggml_base,
    ggml_registry,
    local_devices,
    local_gpus,
)
from mtp_cli.errors import MtpError

PROTOCOL = (7, 0)  # RPC_PROTO_MAJOR_VERSION and _MINOR_VERSION of the pinned llama.cpp
# To connect, and for each answer: a server that is free answers at once, in another city too.
_PATIENCE_S = 3.0
_HELLO, _CAPABILITIES = 14, bytes(24)  # RPC_CMD_HELLO; none: a plain connection, no RDMA
_ANSWER = struct.Struct("<Q4B24x")  # its size, the release's three numbers, padding, capabilities
_N_AFTER_SIZE = _ANSWER.size - 8
_REGISTRY = b"RPC"
_NOT_BUILT = "llama.cpp was built without RPC here; docs/install.md says how it is built with it"

_connected: dict[str, list[int]] = {}  # devices by server


def devices(servers: Sequence[str]) -> list[int]:
    """The devices of servers, "HOST:PORT" each, in their order; MtpError where there are none."""
    return [device for server in servers for device in _devices_of(server)]


def _devices_of(server: str) -> list[int]:
    if server not in _connected:
        add_server = address_of(b"ggml_backend_rpc_add_server")
        if not add_server:
            raise MtpError(f"--rpc: {_NOT_BUILT}")
        _look(server)
        lost.watch(server)
        add = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(add_server)
        _connected[server] = _kept(add(server.encode()), server)
    return _connected[server]


@functools.cache
def address_of(function: bytes) -> int | None:
    """Of one of the RPC backend's own functions; None in a build without it."""
    registry = ggml_registry().ggml_backend_reg_by_name(_REGISTRY)
    if not registry:
        return None
    address: int | None = ggml_base().ggml_backend_reg_get_proc_address(registry, function)
    return address


def lendable(names: Sequence[str] | None) -> list[int]:
    """Devices of this machine by llama.cpp's names; its GPUs for None, the CPU where it has none.

    Raises MtpError where there is no such device, or nothing can be lent.
    """
    if not address_of(b"ggml_backend_rpc_start_server"):
        raise MtpError(_NOT_BUILT)
    there = {device_name(device): device for device in local_devices()}
    if names is None:
        return local_gpus() or [d for d in there.values() if device_type(d) == CPU_DEVICE]
    for name in names:
        if name not in there:
            raise MtpError(f"--device: no device {name} here; there is {', '.join(there)}")
    return [there[name] for name in names]


def serve(address: str, lent: Sequence[int], n_threads: int, cache: Path | None) -> NoReturn:
    """Lend devices on "IP:PORT", to one client after another, until a signal comes.

    cache: a folder for large tensors, which clients need not send again

    Raises MtpError where it cannot listen.
    """
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    start = address_of(b"ggml_backend_rpc_start_server") or 0
    ctypes.CFUNCTYPE(None, text, text, size, size, pointer)(start)(
        address.encode(),
        os.fsencode(cache) if cache else None,
        n_threads,
        len(lent),
        ctypes.cast((pointer * len(lent))(*lent), pointer),
    )
    raise MtpError(f"llama.cpp could not listen on {address}; --port gives another port")


def _kept(registry: int | None, server: str) -> list[int]:
    """A server's devices, with a connection that outlives every model.

    llama.cpp closes it with the last buffer there, and hangs when it then finds another client.
    """
    base = ggml_base()
    n_devices = base.ggml_backend_reg_dev_count(registry) if registry else 0
    if not n_devices:
        raise MtpError(f"--rpc {server}: has no devices; see what it said when it started")
    found = [base.ggml_backend_reg_dev_get(registry, index) for index in range(n_devices)]
    base.ggml_backend_dev_init(found[0], None)
    return found


def _look(server: str) -> None:
    """Raise MtpError where llama.cpp could not go on with a server."""
    host, _, port = server.rpartition(":")
    try:
        with socket.create_connection((_ip_of(host), int(port)), _PATIENCE_S) as connection:
            version = _version(connection)
    except OSError as error:
        raise MtpError(f"--rpc {server}: {_why(error)}") from error
    if version is None:
        raise MtpError(
            f"--rpc {server}: no RPC server of llama.cpp answers there; mtp-rpc starts one"
        )
    if version[0] != PROTOCOL[0] or version[1] > PROTOCOL[1]:
        theirs, ours = (".".join(map(str, numbers)) for numbers in (version, PROTOCOL))
        raise MtpError(
            f"--rpc {server}: speaks version {theirs} of the protocol, and this llama.cpp {ours}; "
            "start mtp-rpc of this release there"
        )


def _ip_of(host: str) -> str:
    """Its IPv4 address: llama.cpp knows no other."""
    try:
        return socket.gethostbyname(host)
    except UnicodeError as error:  # no name of a host can be like that
        raise socket.gaierror from error


def _version(connection: socket.socket) -> tuple[int, int] | None:
    """Of the protocol that it speaks; None for another one. OSError where nothing comes."""
    request = struct.pack("<BQ", _HELLO, len(_CAPABILITIES)) + _CAPABILITIES
    connection.sendall(request)
    answer = b""
    while len(answer) < _ANSWER.size:
        part = connection.recv(_ANSWER.size - len(answer))
        if not part:
            return None
        answer += part
    size, major, minor, _patch, _padding = _ANSWER.unpack(answer)
    return (major, minor) if size == _N_AFTER_SIZE else None


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host; name it by an address, as 192.168.1.5:50052"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; start mtp-rpc on that machine"
    if isinstance(error, TimeoutError):
        return (
            f"no answer within {_PATIENCE_S:.0f} s; another client may have it, and a server has "
            "one at a time"
        )
    return error.strerror or "the connection failed"
