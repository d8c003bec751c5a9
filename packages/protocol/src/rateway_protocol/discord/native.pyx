# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The end of a JSON value, compiled. ``delimit.py`` says what it is."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport free, realloc

from rateway_protocol.discord.scan cimport after_string, after_value, kind_of, text


def value_end(bytes document not None, Py_ssize_t at):
    """Where the value that begins at *at* ends; -1 when none begins there, or its end is missing."""
    cdef text begin = <text>PyBytes_AS_STRING(document)
    cdef text end = begin + PyBytes_GET_SIZE(document)
    cdef text found
    if not 0 <= at < PyBytes_GET_SIZE(document):
        return -1
    found = after_value(begin + at, end)
    if found == NULL and kind_of[begin[at]] == 2:
        found = after_deep(begin + at, end)
    return -1 if found == NULL else found - begin


cdef text after_deep(text at, text end) except? NULL:
    """The same for a container, however deep."""
    # The brackets that have to come, the innermost last.
    cdef unsigned char* awaited = NULL
    cdef unsigned char* larger
    cdef size_t depth = 0, room = 0
    cdef unsigned char kind
    try:
        while True:
            kind = kind_of[at[0]]
            if kind == 1:
                at = after_string(at + 1, end)
                if at == NULL:
                    return NULL
                continue
            if kind == 2:
                if depth == room:
                    room = 2 * room + 1024
                    larger = <unsigned char*>realloc(awaited, room)
                    if larger == NULL:
                        raise MemoryError
                    awaited = larger
                # In ASCII a closing bracket is two after its opening one.
                awaited[depth] = at[0] + 2
                depth += 1
            elif kind == 3:
                depth -= 1
                if awaited[depth] != at[0]:
                    return NULL
                if depth == 0:
                    return at + 1
            elif kind == 4 and at >= end:
                return NULL
            at += 1
    finally:
        free(awaited)
