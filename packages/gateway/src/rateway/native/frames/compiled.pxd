# The fields of the reader in ``plain.py``, and its locals.

cimport cython


cdef bytes JSON_BEGINS
cdef bytes JSON_ENDS
cdef Py_ssize_t CONTROL_BYTES
cdef Py_ssize_t SHORTEST
cdef Py_ssize_t BLOCK_HEADER
cdef Py_ssize_t BLOCK_COMPRESSED


@cython.locals(size=Py_ssize_t, header=Py_ssize_t)
cpdef bint is_message(bytes data) except -1


cdef class MessageReader:
    cdef public bint open
    cdef object _message
    cdef object _failed
    cdef object _other

    @cython.locals(data=bytes)
    cpdef read(self, transport, frame)
