# The fields of what waits in ``plain.py``.

cimport cython


@cython.locals(rows=dict)
cpdef dict position_rows(shards, positions, sessions)
@cython.locals(rows=dict)
cpdef dict tip_rows(channels, tips)


cdef class WaitingRows:
    cdef readonly list tables
    cdef list _greatest

    @cython.locals(rows=dict, count=Py_ssize_t)
    cpdef Py_ssize_t count(self)
    @cython.locals(rows=dict, value=bytes, weight=Py_ssize_t)
    cpdef Py_ssize_t weigh(self)
    cpdef bint is_any(self)
    cpdef dict take(self, Py_ssize_t table)
    @cython.locals(rows=dict, table=Py_ssize_t, key=bytes, greatest=bytes, value=object, handle=object)
    cpdef write(self, put, delete, list handles, greatest_in)
    @cython.locals(table=Py_ssize_t)
    cpdef clear(self)
    cpdef clear_table(self, Py_ssize_t table)
