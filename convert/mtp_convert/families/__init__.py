"""The families mtp-convert knows. A family is a module here; nothing else names it.

Owns finding the modules (each has FAMILIES) and choosing one for a config. Knows nothing of what
is in them.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from mtp_cli.errors import MtpError
from mtp_convert.families.rules import Config, Family, reading
from mtp_convert.families.unrun import why_unrun


@cache
def all_families() -> tuple[Family, ...]:
    """Every family of every module in this package that defines FAMILIES."""
    found: list[Family] = []
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        found += getattr(loaded, "FAMILIES", ())
    return tuple(found)


def family_of(config: Config) -> Family:
    """The family whose class config.json names; MtpError when there is none."""
    found = config.values.get("architectures")
    classes = found if isinstance(found, list) else [found] if isinstance(found, str) else []
    for family in sorted(all_families(), key=lambda family: not family.claims(config)):
        if family.claims(config) or any(
            name in family.classes for name in classes if isinstance(name, str)
        ):
            with reading(config):
                refusal = family.accepts(config)
            if refusal:
                raise MtpError(f"{config.where}: {refusal}")
            return family
    for name in classes:
        if isinstance(name, str) and (why := why_unrun(name)):
            raise MtpError(f"{config.where}: architectures: {name}: {why}")
    shown = ", ".join(str(name)[:60] for name in classes[:3]) or "none named"
    raise MtpError(
        f"{config.where}: architectures: {shown}: no family of mtp-convert; expected one of "
        "those in docs/convert.md"
    )
