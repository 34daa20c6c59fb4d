"""The processor of this machine, and whether bfloat16 is fast on it."""

import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Processor:
    """Name and relevant instruction sets of a processor.

    Attributes:
        name: Human-readable model name.
        vendor: Vendor string of CPUID, such as "GenuineIntel" or "AuthenticAMD"; "" if unknown.
        amx_bf16: Whether it supports AMX for bfloat16.
        avx512_bf16: Whether it supports AVX-512 BF16.
    """

    name: str
    vendor: str
    amx_bf16: bool
    avx512_bf16: bool

    @property
    def description(self) -> str:
        """The name, followed by the bfloat16 instruction sets that it supports."""
        has = {"AMX": self.amx_bf16, "AVX-512 BF16": self.avx512_bf16}
        return ", ".join([self.name, *(name for name, there in has.items() if there)])

    @property
    def bf16_is_fast(self) -> bool:
        """Whether convolutions are faster in bfloat16 than in float32.

        Measured with PyTorch (oneDNN), relative to float32: with AMX, a third of the time or less;
        with AVX-512 BF16, half on AMD but twice on Intel; without either, many times slower.
        """
        return self.amx_bf16 or (self.avx512_bf16 and self.vendor == "AuthenticAMD")


@cache
def processor() -> Processor:
    """The processor of this machine; if unknown, one without bfloat16 instructions.

    Nothing is timed, so the result does not depend on the process, thread or load.
    """
    text = _read_cpuinfo()
    flags = _capabilities() or dict.fromkeys(_field(text, "flags").split(), True)
    return Processor(
        name=_field(text, "model name") or platform.processor() or platform.machine(),
        vendor=_field(text, "vendor_id") or _vendor_in(platform.processor()),
        amx_bf16=bool(flags.get("amx_bf16")),
        avx512_bf16=bool(flags.get("avx512_bf16")),
    )


def _capabilities() -> Mapping[str, Any]:
    """Instruction sets by name, as reported by PyTorch; empty if it does not report them."""
    report: Callable[[], Mapping[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    try:
        return {} if report is None else report()
    except RuntimeError:
        return {}


def _read_cpuinfo() -> str:
    try:
        return CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or not accessible
        return ""


def _field(cpuinfo: str, name: str) -> str:
    """A field of the first processor in /proc/cpuinfo; "" if missing."""
    found = re.search(rf"^{name}\s*:(.*)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""


def _vendor_in(description: str) -> str:
    """The vendor at the end of a description on Windows: "AMD64 Family 25 ..., AuthenticAMD"."""
    return description.rpartition(",")[2].strip() if "," in description else ""
