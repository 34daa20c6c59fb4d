"""What this machine's processor is, and which arithmetic follows from it."""

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
    """A processor's name and the instructions that decide its arithmetic.

    Attributes:
        name: Its model name, for people to read.
        vendor: As CPUID gives it, "GenuineIntel" or "AuthenticAMD" for example; "" if unknown.
        amx_bf16: It has matrix units (AMX) for bfloat16.
        avx512_bf16: It has AVX-512's instructions for bfloat16.
    """

    name: str
    vendor: str
    amx_bf16: bool
    avx512_bf16: bool

    @property
    def description(self) -> str:
        """Its name and, of these instructions, those that it has."""
        has = {"AMX": self.amx_bf16, "AVX-512 BF16": self.avx512_bf16}
        return ", ".join([self.name, *(name for name, there in has.items() if there)])

    @property
    def bf16_is_fast(self) -> bool:
        """Whether convolutions take less time in bfloat16 than in float32.

        Measured with PyTorch (oneDNN): with AMX a third of float32's time or less; with AVX-512
        BF16 half of it on AMD, but twice as long on Intel; without either, minutes.
        """
        return self.amx_bf16 or (self.avx512_bf16 and self.vendor == "AuthenticAMD")


@cache
def processor() -> Processor:
    """This machine's processor; on anything unknown, one without instructions for bfloat16.

    Nothing is timed: every process, thread and load gets the same answer.
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
    """Instructions by name, as PyTorch tells them; empty where this release or machine does not."""
    tell: Callable[[], Mapping[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    try:
        return {} if tell is None else tell()
    except RuntimeError:
        return {}


def _read_cpuinfo() -> str:
    try:
        return CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or not shown to this process
        return ""


def _field(cpuinfo: str, name: str) -> str:
    """A field of /proc/cpuinfo's first processor; "" if it has none."""
    found = re.search(rf"^{name}\s*:(.*)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""


def _vendor_in(description: str) -> str:
    """The vendor at the end of Windows' description: "AMD64 Family 25 ..., AuthenticAMD"."""
    return description.rpartition(",")[2].strip() if "," in description else ""
