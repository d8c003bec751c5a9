# The fields of the records in ``plain.py``, and the methods of theirs that only this module calls.

cimport cython


cdef class Cursor:
    cdef public object runs
    cdef public long long settled
    cdef public long long shard
    cdef public object spooled


@cython.freelist(256)
cdef class Run:
    cdef public Cursor cursor
    cdef public double at
    cdef public list pieces
    cdef public list marks
    cdef public Py_ssize_t bytes
    cdef public long long number
    cdef public str name
    cdef public Py_ssize_t left
    cdef public Py_ssize_t front
    cdef public set held
    cdef public list records
    cdef public list origins
    cdef public bint is_open
    cdef public bint overtook
    cdef public list probes
    cdef public object told
    cdef public bint window


cdef Py_ssize_t _EVENT_BYTES


cdef class Headroom:
    cdef public Py_ssize_t size
    cdef public Py_ssize_t bytes
    cdef public bint is_used_up
    cdef public bint is_waited_for
    cdef public bint is_overdue
    cdef object _on_used_up
    cdef object _on_room

    cpdef take(self, Py_ssize_t size)
    cpdef give(self, Py_ssize_t size)


cdef class Batch:
    cdef public double at
    cdef public bytes stamp
    cdef public list runs
    cdef public set asking
    cdef public Py_ssize_t bytes
    cdef object _begin
    cdef Headroom _headroom

    cpdef Run open(self, Cursor cursor)
    cpdef count(self, Py_ssize_t size)
    @cython.locals(run=Run, count=Py_ssize_t)
    cpdef Py_ssize_t events(self)
    @cython.locals(run=Run)
    cpdef end(self)


@cython.locals(run=Run, at=double, events=Py_ssize_t, times=list)
cpdef list times_of(list finished)


cdef class Unconfirmed:
    cdef public bint spool_settles
    cdef public Py_ssize_t events
    cdef public Py_ssize_t bytes
    cdef public long long added
    cdef public long long confirmed
    cdef public list sent
    cdef public object waiting
    cdef public dict refused
    cdef public bint moved
    cdef public list awaited
    cdef public list dropped
    cdef public Py_ssize_t window_events
    cdef public Py_ssize_t window_bytes
    cdef public set suspect
    cdef dict _spooling
    cdef long long _next_number
    cdef list _numbers
    cdef Py_ssize_t _done

    @cython.locals(run=Run, data=bytes, parts=list)
    cpdef list add_written(self, list runs)
    @cython.locals(near=Run, begin=object, stop=object, at=Py_ssize_t, count=Py_ssize_t)
    cpdef list acknowledge(self, acks)
    @cython.locals(run=Run, count=Py_ssize_t, stop=Py_ssize_t, index=Py_ssize_t)
    cdef _acknowledge_all(self, long long last, list finished)
    @cython.locals(count=Py_ssize_t, front=Py_ssize_t)
    cdef _answer_first(self, Run run, Py_ssize_t stop)
    cdef _count_answered(self, Run run, Py_ssize_t count, Py_ssize_t size)
    @cython.locals(cursor=Cursor)
    cdef _finish(self, Run run, list finished)
    @cython.locals(settled=cython.longlong, mark=cython.longlong, first=Run)
    cdef _settle(self, Cursor cursor)
    @cython.locals(run=Run, gone=Py_ssize_t, sent=list)
    cdef _trim(self)
