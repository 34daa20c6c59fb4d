import ctypes
import sys

from segmodels.memory import keep_memory

LARGE = 1 << 26  # far above the size from which glibc maps memory for each block anew


def test_freed_memory_is_used_again():
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        assert not keep_memory()
        return
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    assert keep_memory()
    block = libc.malloc(LARGE)
    ctypes.memset(block, 7, LARGE)
    libc.free(block)
    again = libc.malloc(LARGE)
    # What the system maps anew is zero; this still holds what was written.
    assert ctypes.string_at(again + LARGE // 2, 4) == b"\7\7\7\7"
    libc.free(again)


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert keep_memory() is False
