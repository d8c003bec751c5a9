# The fields of the inflaters in ``plain.py``. What the decompressor is asked for stays an object: it is no number that
# each message would have to be made into one again.

cimport cython


cdef class Plain:
    cdef Py_ssize_t _limit

    @cython.locals(whole=bytes)
    cdef _payload(self, message)


cdef class Zstd:
    cdef Py_ssize_t _limit
    cdef object _ask
    cdef object _stream
    cdef object _decompress

    cdef _fresh(self)
    @cython.locals(parts=list, room=Py_ssize_t)
    cdef _more(self, bytes out)


cdef class Zlib:
    cdef Py_ssize_t _limit
    cdef object _ask
    cdef object _stream
    cdef object _decompress
    cdef bytearray _pending

    cdef bint _wait_for(self, message) except -1
