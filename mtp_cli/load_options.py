"""The options of where and how a model runs, by llama.cpp's names: devices, adapters, rope.

Imports nothing heavy, so that `--help` and wrong usage answer at once.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtp_cli.errors import MtpError
from mtp_cli.options import MAX_INT32, file_name
from mtp_cli.paths.gguf import check_gguf

if TYPE_CHECKING:
    from mtp_cli.engine import Ways
    from mtp_cli.engine.backend.adapters import Lora
    from mtp_cli.engine.backend.rope import Rope

ChosenWays = Callable[[], "Ways"]  # loads llama.cpp
_PLACES = "Devices"
_ROPE = "Longer contexts, adapters"
_MAX_SERVERS, _MAX_PORT = 16, 65535  # GGML_RPC_MAX_SERVERS
_SCALINGS = ("none", "linear", "yarn")


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number to scale with.")
    return value


def _scaling(text: str | None) -> str | None:
    if text is not None and text not in _SCALINGS:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(_SCALINGS)}.")
    return text


def _pairs(texts: list[str] | None) -> list[str] | None:
    for pattern, buffer in _split_overrides(texts):
        try:
            re.compile(pattern)
        except re.error as error:
            raise typer.BadParameter(f"{pattern!r} is no pattern: {error}.") from None
        if not pattern or not buffer:
            raise typer.BadParameter(f"{pattern or buffer!r} is no PATTERN=BUFFER.")
    return texts


def _split_overrides(texts: Sequence[str] | None) -> list[tuple[str, str]]:
    pairs = [pair.rpartition("=") for text in texts or () for pair in text.split(",")]
    return [(pattern, buffer) for pattern, _equals, buffer in pairs]


def _shares(text: str | None) -> str | None:
    if text is not None:
        try:
            _split_shares(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r}: expected shares as 3,1.") from None
    return text


def _split_shares(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    found = tuple(float(part) for part in text.replace("/", ",").split(","))
    if not any(found) or not all(0 <= share < math.inf for share in found):
        raise ValueError(text)
    return found


def _servers(text: str | None) -> str | None:
    servers = [] if text is None else text.split(",")
    if len(servers) > _MAX_SERVERS:
        raise typer.BadParameter(f"{len(servers)} servers, and at most {_MAX_SERVERS}.")
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or ":" in host or not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
            raise typer.BadParameter(f"{server!r} is no HOST:PORT, as 192.168.1.5:50052.")
        if servers.count(server) > 1:
            raise typer.BadParameter(f"{server} is named twice.")
    return text


_CpuMoe = Annotated[
    bool,
    typer.Option(
        "--cpu-moe",
        rich_help_panel=_PLACES,
        help="Leave a mixture's experts to the CPU, and the rest to the GPU.",
    ),
]
_NCpuMoe = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=MAX_INT32,
        rich_help_panel=_PLACES,
        help="The same for the first N layers alone.",
    ),
]
_OverrideTensor = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN=BUFFER",
        callback=_pairs,
        rich_help_panel=_PLACES,
        help="Where tensors go in whose names PATTERN is found, as exps=CPU; may be given more "
        "than once.",
    ),
]
_Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        rich_help_panel=_PLACES,
        help="GPUs that are used, by llama.cpp's names, as CUDA0,CUDA1; none for the CPU alone. "
        "[default: all]",
    ),
]
_TensorSplit = Annotated[
    str | None,
    typer.Option(
        metavar="SHARES",
        callback=_shares,
        rich_help_panel=_PLACES,
        help="Shares of several GPUs, as 3,1. [default: by their free memory]",
    ),
]
_Rpc = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        callback=_servers,
        rich_help_panel=_PLACES,
        help="RPC servers whose devices take layers too, with commas between; mtp-rpc starts one. "
        "[default: none]",
    ),
]
_LoraAdapter = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[=SCALE]",
        rich_help_panel=_ROPE,
        help="GGUF of a LoRA adapter; may be given more than once.",
    ),
]
_RopeScaling = Annotated[
    str | None,
    typer.Option(
        metavar="none|linear|yarn",
        callback=_scaling,
        rich_help_panel=_ROPE,
        help="How positions are scaled for contexts beyond training. [default: as in the file]",
    ),
]
_RopeScale = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        min=1e-6,
        callback=_finite,
        rich_help_panel=_ROPE,
        help="Contexts N times as long: the inverse of --rope-freq-scale.",
    ),
]
_RopeFreqBase = Annotated[
    float | None,
    typer.Option(
        metavar="N", min=1e-6, callback=_finite, rich_help_panel=_ROPE, help="Base of the angles."
    ),
]
_RopeFreqScale = Annotated[
    float | None,
    typer.Option(
        metavar="N", min=1e-6, callback=_finite, rich_help_panel=_ROPE, help="Times each position."
    ),
]
_YarnOrigCtx = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=MAX_INT32,
        rich_help_panel=_ROPE,
        help="YaRN: tokens of context in training.",
    ),
]
_YarnExtFactor = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        callback=_finite,
        rich_help_panel=_ROPE,
        help="YaRN: 0 interpolates all, 1 extrapolates.",
    ),
]
_YarnAttnFactor = Annotated[
    float | None,
    typer.Option(
        metavar="X", callback=_finite, rich_help_panel=_ROPE, help="YaRN: times the attention."
    ),
]
_YarnBetaSlow = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        callback=_finite,
        rich_help_panel=_ROPE,
        help="YaRN: high correction dimension.",
    ),
]
_YarnBetaFast = Annotated[
    float | None,
    typer.Option(
        metavar="X", callback=_finite, rich_help_panel=_ROPE, help="YaRN: low correction dimension."
    ),
]

# By the names of parameters, with their defaults
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "cpu_moe": (_CpuMoe, False),
    "n_cpu_moe": (_NCpuMoe, None),
    "override_tensor": (_OverrideTensor, None),
    "device": (_Device, None),
    "tensor_split": (_TensorSplit, None),
    "rpc": (_Rpc, None),
    "lora": (_LoraAdapter, None),
    "rope_scaling": (_RopeScaling, None),
    "rope_scale": (_RopeScale, None),
    "rope_freq_base": (_RopeFreqBase, None),
    "rope_freq_scale": (_RopeFreqScale, None),
    "yarn_orig_ctx": (_YarnOrigCtx, None),
    "yarn_ext_factor": (_YarnExtFactor, None),
    "yarn_attn_factor": (_YarnAttnFactor, None),
    "yarn_beta_slow": (_YarnBetaSlow, None),
    "yarn_beta_fast": (_YarnBetaFast, None),
}


def with_ways(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of this module, in place of its parameter `ways`.

    What it gets for that loads llama.cpp when called, and raises MtpError where an adapter is none
    or two options exclude one another.
    """
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in _OPTIONS}
        command(**given, ways=functools.partial(_ways, chosen))

    parameters = [parameter for parameter in own.parameters.values() if parameter.name != "ways"]
    for name, (option, default) in _OPTIONS.items():
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=option))
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__
    return run


def _ways(given: Mapping[str, Any]) -> Ways:
    from mtp_cli.engine import Ways
    from mtp_cli.engine.backend.placement import CPU, EXPERTS, NO_DEVICE, Placement, experts_of

    experts = [EXPERTS] if given["cpu_moe"] else [*experts_of(given["n_cpu_moe"] or 0)]
    devices = None if given["device"] is None else tuple(given["device"].split(","))
    if given["rpc"] and devices == (NO_DEVICE,):
        raise MtpError("--rpc and --device none exclude one another; leave one out")
    return Ways(
        Placement(
            (*_split_overrides(given["override_tensor"]), *((name, CPU) for name in experts)),
            () if devices == (NO_DEVICE,) else devices,
            _split_shares(given["tensor_split"]),
            tuple(given["rpc"].split(",")) if given["rpc"] else (),
        ),
        tuple(map(_adapter, given["lora"] or ())),
        _rope(given),
    )


def _rope(given: Mapping[str, Any]) -> Rope:
    from mtp_cli.engine.backend.rope import Rope

    values = {
        name.removeprefix("rope_"): value
        for name, value in given.items()
        if name.startswith(("rope_", "yarn_")) and value is not None
    }
    scale = values.pop("scale", None)
    if scale is not None and "freq_scale" in values:
        raise MtpError("--rope-scale and --rope-freq-scale say the same; leave one out")
    if scale is not None:
        values["freq_scale"] = 1 / scale
    return Rope(**values)


def _adapter(text: str) -> Lora:
    from mtp_cli.engine.backend.adapters import Lora

    name, _equals, scale = text.rpartition("=")
    try:
        path, times = (file_name(name), float(scale)) if name else (file_name(text), 1.0)
    except ValueError:  # an equals sign in the file's name
        path, times = file_name(text), 1.0
    path = path.expanduser()
    check_gguf(path)
    return Lora(path, times)
