import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from segmodels.utils import malloc
from segmodels.utils.malloc import SERVER_ARENAS, keep_memory, share_memory

VARIABLE = "THP_MEM_ALLOC_ENABLE"
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# The first two programs run the module's file, since importing the package takes much longer.

# 16 threads that are there at once allocate, then glibc tells of its arenas.
COUNT_ARENAS = """
import ctypes, runpy, sys, threading
module = runpy.run_path(sys.argv[1])
if sys.argv[2] == "shared":
    assert module["share_memory"]()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(16)
def allocate():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
"""

# What a large block holds that is allocated after an equal one has been written and freed: without
# `keep_memory`, then with it. glibc maps each block of 64 MiB anew unless told otherwise.
REUSE = """
import ctypes, runpy, sys
keep_memory = runpy.run_path(sys.argv[1])["keep_memory"]
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
LARGE = 1 << 26
def reused():
    block = libc.malloc(LARGE)
    ctypes.memset(block, 7, LARGE)
    libc.free(block)
    again = libc.malloc(LARGE)
    return ctypes.string_at(again + LARGE // 2, 1)[0]
print(reused())
assert keep_memory()
print(reused())
"""

# Whether the flags of a large tensor's memory say "hg", huge pages advised; man 5 proc, smaps.
ADVISED = """
import segmodels, torch
tensor = torch.ones(1 << 24)
address, inside = tensor.data_ptr() + (1 << 25), False
for line in open("/proc/self/smaps"):
    first, *rest = line.split()
    if "-" in first:
        start, end = (int(side, 16) for side in first.split("-"))
        inside = start <= address < end
    elif inside and first == "VmFlags:":
        print("hg" in rest)
"""


def has_mallopt():
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


def test_freed_memory_is_used_again():
    if not has_mallopt():
        assert not keep_memory()
        return
    # In a process of its own: here, glibc may hold other free blocks of this size.
    command = [sys.executable, "-c", REUSE, malloc.__file__]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    # What the system maps anew is zero; this still holds what was written.
    assert run.stdout.split() == ["0", "7"]


@pytest.mark.skipif(not has_mallopt(), reason="another C library than glibc")
def test_threads_share_two_arenas():
    def arenas(how):
        command = [sys.executable, "-c", COUNT_ARENAS, malloc.__file__, how]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return len(re.findall("<heap nr=", told))

    assert arenas("shared") == SERVER_ARENAS
    assert arenas("as it comes") > SERVER_ARENAS


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="a system without transparent huge pages")
@pytest.mark.parametrize("users", [None, "0", "1"])
def test_large_tensors_are_in_huge_pages_unless_the_user_says_otherwise(users):
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    environment |= {} if users is None else {VARIABLE: users}
    command = [sys.executable, "-c", ADVISED]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(users != "0")


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert keep_memory() is False
    assert share_memory() is False
