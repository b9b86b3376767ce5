"""What this computer states about itself: CPU features, sizes of caches and memory.

    features()          frozenset({"avx2", "fma", …})     LLVM's names; empty where not known
    size_of("cache1")   32768                             None where the system does not say

Everything is read from what the system publishes as text; a back end that knows better (LLVM's
own detection) passes its features to `nncc.machines.load`.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")

# Where Linux and LLVM spell a feature differently, beyond an underscore.
_LLVM_NAMES = {
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "avx_vnni": "avxvnni",
    "abm": "lzcnt",
    "asimd": "neon",
}


@cache
def features() -> frozenset[str]:
    """The features of the first CPU by their names in LLVM."""
    if not _CPUINFO.is_file():
        return frozenset()
    return parse_features(_CPUINFO.read_text())


def parse_features(cpuinfo: str) -> frozenset[str]:
    """The features listed in the text of Linux's `/proc/cpuinfo`.

    >>> sorted(parse_features("flags\\t\\t: fma avx512_vnni pni"))
    ['avx512vnni', 'fma', 'sse3']
    """
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86 and ARM
            return frozenset(_llvm_name(f) for f in value.split())
    return frozenset()


def _llvm_name(flag: str) -> str:
    if flag in _LLVM_NAMES:
        return _LLVM_NAMES[flag]
    return flag.replace("_", "") if flag.startswith("avx512") else flag


@cache
def size_of(what: str) -> int | None:
    """Bytes of `cache1` (data), `cache2`, `cache3` or `memory`; None where not stated."""
    if what == "memory":
        return _memory_bytes()
    return _cache_bytes(int(what.removeprefix("cache")))


def _memory_bytes() -> int | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PAGE_SIZE" not in names or "SC_PHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cache_bytes(level: int) -> int | None:
    for index in sorted(_CACHES.glob("index*")):
        texts = {f: index / f for f in ("level", "type", "size")}
        if not all(p.is_file() for p in texts.values()):
            continue
        found, kind, size = (p.read_text().strip() for p in texts.values())
        if found == str(level) and kind in ("Data", "Unified"):
            return parse_size(size)
    return None


def parse_size(text: str) -> int | None:
    """Bytes of a size as Linux writes it; None if it is not one.

    >>> parse_size("1024K")
    1048576
    """
    units = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    digits = text.rstrip("KMG")
    unit = text[len(digits) :]
    return int(digits) * units[unit] if digits.isdecimal() and unit in units else None
