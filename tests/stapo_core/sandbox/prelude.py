"""What every probe begins with: short words for trying. It is text for programs; `W` holds the facts of the world."""

PRELUDE = """
import ctypes, os, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    return libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
def reached(ok):
    if ok: print("REACHED", flush=True)
def tell(path):
    print(open(path, errors="replace").read(), flush=True)
def machine(code):
    import mmap
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex(code))
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
text = lambda value: ctypes.c_char_p(value.encode())
"""
