"""What decides between float32 and bfloat16: the processor, never a clock."""

import platform

import pytest
import torch

from segmodels.utils import cpu


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes `processor` see a machine with this /proc/cpuinfo and these PyTorch capabilities."""

    def pretend(cpuinfo="", capabilities=None):
        path = tmp_path / "cpuinfo"
        if cpuinfo:
            path.write_text(cpuinfo)
        monkeypatch.setattr(cpu, "CPUINFO", path)
        if capabilities is None:
            monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        else:
            monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
        cpu.processor.cache_clear()
        return cpu.processor()

    yield pretend
    cpu.processor.cache_clear()


def cpuinfo(vendor, flags):
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: A CPU\nflags\t\t: fpu {flags}\n\n"
    return one + one.replace("processor\t: 0", "processor\t: 1")


MACHINES = [
    ("GenuineIntel", "avx512f avx512_bf16 amx_tile amx_bf16", True),  # Sapphire Rapids
    ("GenuineIntel", "avx512f avx512_bf16", False),  # Cooper Lake
    ("GenuineIntel", "avx2 avx512f avx512_vnni", False),  # Ice Lake
    ("AuthenticAMD", "avx512f avx512_bf16", True),  # Zen 4
    ("AuthenticAMD", "avx2", False),  # Zen 3
    ("HygonGenuine", "avx512f avx512_bf16", False),  # not measured
]


@pytest.mark.parametrize(("vendor", "flags", "expected"), MACHINES)
def test_bf16_is_for_amx_and_for_amds_avx512(machine, vendor, flags, expected):
    from_linux = machine(cpuinfo(vendor, flags))
    assert from_linux.bf16_is_fast is expected
    assert (from_linux.vendor, from_linux.name) == (vendor, "A CPU")
    from_torch = machine(cpuinfo(vendor, "fpu"), dict.fromkeys(flags.split(), True))
    assert from_torch == from_linux


def test_windows_names_the_vendor_in_its_description(machine, monkeypatch):
    described = "AMD64 Family 25 Model 17 Stepping 1, AuthenticAMD"
    monkeypatch.setattr(platform, "processor", lambda: described)
    assert machine(capabilities={"avx512_bf16": True}).bf16_is_fast


def test_an_unknown_machine_computes_in_float32(machine, monkeypatch):
    monkeypatch.setattr(platform, "processor", lambda: "")
    unknown = machine()
    assert not unknown.bf16_is_fast
    assert unknown.name == platform.machine()
    assert not machine(capabilities={}).bf16_is_fast
    assert not machine("Hardware\t: BCM2835\nFeatures\t: half bf16\n").bf16_is_fast


def test_what_pytorch_cannot_tell_is_read_from_linux(machine, monkeypatch):
    def refuse():
        raise RuntimeError("cpuinfo is not initialised")

    machine(cpuinfo("AuthenticAMD", "avx512_bf16"), {})
    monkeypatch.setattr(torch.cpu, "get_capabilities", refuse, raising=False)
    cpu.processor.cache_clear()
    assert cpu.processor().bf16_is_fast
