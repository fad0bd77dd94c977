#!/usr/bin/env python3
"""A recording to standard output, by the C interface from Python's ctypes.

Usage: reader.py LIBRARY SOCKET STREAM RECORDING      (LIBRARY: libnvr-client.so.0)
"""
import ctypes as c
import sys

TO_END = 2**64 - 1
FOREVER = -1
CHUNK = 1


class Request(c.Structure):
    """nvr_request; `size` tells the library which of its fields there are."""
    _fields_ = [("size", c.c_size_t), ("recording", c.c_uint64), ("begin", c.c_uint64),
                ("end", c.c_uint64), ("priority", c.c_int), ("cache", c.c_int), ("follow_ms", c.c_int64)]


def load(path):
    """The library, with the types that ctypes would guess wrong: handles are pointers, not ints."""
    lib = c.CDLL(path)
    for name, result, *arguments in (
            ("nvr_abi_version", c.c_uint32),
            ("nvr_connect", c.c_void_p, c.c_char_p, c.c_void_p, c.POINTER(c.c_void_p)),
            ("nvr_open", c.c_void_p, c.c_void_p, c.POINTER(Request), c.POINTER(c.c_void_p)),
            ("nvr_next", c.c_int, c.c_void_p, c.c_int64, c.POINTER(c.c_void_p), c.POINTER(c.c_void_p)),
            ("nvr_chunk_data", c.c_void_p, c.c_void_p),
            ("nvr_chunk_size", c.c_size_t, c.c_void_p),
            ("nvr_chunk_release", None, c.c_void_p),
            ("nvr_error_message", c.c_char_p, c.c_void_p),
            ("nvr_error_free", None, c.c_void_p),
            ("nvr_stream_free", None, c.c_void_p),
            ("nvr_client_free", None, c.c_void_p)):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    library, socket, stream_id, recording = sys.argv[1:]
    lib = load(library)
    if lib.nvr_abi_version() < 2:
        sys.exit("the library is too old")
    error, chunk = c.c_void_p(), c.c_void_p()

    def check():
        if error:
            sys.exit(lib.nvr_error_message(error).decode())

    client = lib.nvr_connect(socket.encode(), None, c.byref(error))
    check()
    request = Request(size=c.sizeof(Request), recording=int(stream_id) << 32 | int(recording), end=TO_END)
    stream = lib.nvr_open(client, c.byref(request), c.byref(error))
    check()
    # ctypes lets other Python threads run while nvr_next() waits.
    while lib.nvr_next(stream, FOREVER, c.byref(chunk), c.byref(error)) == CHUNK:
        sys.stdout.buffer.write(c.string_at(lib.nvr_chunk_data(chunk), lib.nvr_chunk_size(chunk)))
        lib.nvr_chunk_release(chunk)
    check()
    lib.nvr_stream_free(stream)
    lib.nvr_client_free(client)


main()
