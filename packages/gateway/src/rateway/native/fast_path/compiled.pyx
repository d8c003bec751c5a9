# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The way of a usual event, from its WebSocket message to the run in which it is published.

Read it from :meth:`FastPath.message`, at the end:

1. ``FastPath.message`` is called with each whole message (``native/frames/plain.py``, compiled).
   ``ReceiveState.fast_path_allowed`` is the conversation's word that nothing but the next dispatch in line is expected;
   without it the message is the general path's.
2. ``ReceiveState.feed`` inflates it (``native/inflate/plain.py``, compiled).
3. ``usual_dispatch`` finds op, s, t and d. What is not written as Discord writes it, not of op 0, not the next in line
   or of a name that was not counted yet, is the general path's, from here on.
4. It is received: ``received_seq``, ``last`` and ``bytes_inflated`` of the ``ReceiveState``, ``events`` of the
   ``EventPipeline``.
5. ``EventPipeline.apply`` takes it into the cache (``transports/store``). If the cache knows more of it than Discord has
   said, the general path tells that.
6. ``EventPipeline.publishes`` may say that events of this name stay here.
7. ``PublishState.put`` appends it to the shard's run of this wake-up: its head, made by the ``Template`` of its name, its
   body, its tail. The run is written at the end of the wake-up (``EventPublisher.flush``). An event that no template
   fits is the general path's to publish.

``plain.py`` says what each thing is.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

import msgspec

from rateway_protocol.contract.topology import MAX_KEY_BYTES

from rateway.native.ledger.compiled cimport Batch, Cursor, Run
from rateway.native.fast_path.scan cimport after_space, after_string, after_value, kind_of, text

cdef object Raw = msgspec.Raw
# A longer body is not copied out of its message.
cdef Py_ssize_t COPIED = 4096

cdef extern from *:
    """
    #define rateway_little (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
    #define rateway_big64(n) (rateway_little ? __builtin_bswap64(n) : (n))
    #define rateway_big32(n) (rateway_little ? __builtin_bswap32(n) : (n))
    """
    uint64_t big64 "rateway_big64"(uint64_t) noexcept nogil
    uint32_t big32 "rateway_big32"(uint32_t) noexcept nogil

# A longer name is no routing key.
cdef enum:
    LONGEST_NAME = 255

if LONGEST_NAME != MAX_KEY_BYTES:
    raise AssertionError("compiled with another MAX_KEY_BYTES than rateway_protocol.contract.topology has")


cdef struct Parts:
    text t
    text t_end
    text d
    text d_end
    long long s


cdef inline bint plain_number(text at, text end, long long* number) noexcept nogil:
    """A whole number that fits, written as plainly as can be."""
    number[0] = 0
    if not 0 < end - at <= 18 or (at[0] == c'0' and end - at > 1):
        return False
    while at < end:
        if not c'0' <= at[0] <= c'9':
            return False
        number[0] = number[0] * 10 + (at[0] - c'0')
        at += 1
    return True


cdef inline bint plain_word(text at, text end) noexcept nogil:
    """A name as Discord's are: not empty, in printable ASCII, without escapes."""
    if at == end or end - at > LONGEST_NAME:
        return False
    while at < end:
        if at[0] >= 0x7f or at[0] < 0x20 or at[0] == c'\\':
            return False
        at += 1
    return True


cdef bint usual_dispatch(text at, text end, Parts* parts) noexcept nogil:
    """Whether this is one object, with op (which is 0), s, t and d once each. False says nothing of what else it is."""
    cdef text key, key_end, value
    cdef int seen = 0, which
    cdef long long op
    parts.s = 0
    parts.t = parts.t_end = parts.d = parts.d_end = at
    at = after_space(at)
    if at[0] != c'{':
        return False
    while True:
        key = after_space(at + 1)
        if key[0] != c'"':
            return False
        key += 1
        at = after_string(key, end)
        if at == NULL:
            return False
        key_end = at - 1
        at = after_space(at)
        if at[0] != c':':
            return False
        value = after_space(at + 1)
        at = after_value(value, end)
        if at == NULL or not plain_word(key, key_end):
            return False
        which = 0
        if key_end - key == 1 and key[0] == c't':
            which = 1
            parts.t = value + 1
            parts.t_end = at - 1
            if value[0] != c'"' or not plain_word(parts.t, parts.t_end):
                return False
        elif key_end - key == 1 and key[0] == c's':
            which = 2
            if not plain_number(value, at, &parts.s):
                return False
        elif key_end - key == 1 and key[0] == c'd':
            which = 4
            parts.d = value
            parts.d_end = at
        elif key_end - key == 2 and key[0] == c'o' and key[1] == c'p':
            which = 8
            if not plain_number(value, at, &op) or op != 0:
                return False
        if seen & which:
            return False
        seen |= which
        at = after_space(at)
        if at[0] == c'}':
            return seen == 15 and after_space(at + 1) == end
        if at[0] != c',':
            return False


def parts(bytes document not None):
    # For tests: the fast path makes no tuple of it.
    cdef Parts found
    cdef text at = <text>PyBytes_AS_STRING(document)
    if not usual_dispatch(at, at + PyBytes_GET_SIZE(document), &found):
        return None
    name = PyUnicode_DecodeASCII(<const char*>found.t, found.t_end - found.t, NULL)
    return found.s, name, PyBytes_FromStringAndSize(<const char*>found.d, found.d_end - found.d)


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


cdef class ReceiveState:
    cdef public object feed
    cdef public object last
    cdef public bint fast_path_allowed
    cdef public long long bytes_in
    cdef public long long bytes_inflated
    cdef public double heard_at
    cdef public long long received_seq

    def __init__(self, feed, received_seq=0):
        self.feed = feed
        self.heard_at = float("-inf")
        self.received_seq = received_seq


cdef class Template:
    cdef str _name
    cdef bytes _model
    cdef bytes _tail
    cdef Py_ssize_t _size, _seq, _digits, _stamp, _length
    cdef int _count

    def __init__(
        self, str name not None, bytes begin, bytes middle, bytes identity, int digits, bytes end, bytes tail
    ):
        self._name = name
        self._tail = tail
        self._model = b"".join((begin, bytes(8), middle, bytes(8), identity, bytes(digits), bytes(8), end, bytes(4)))
        self._size = len(begin)
        self._seq = self._size + 8 + len(middle)
        self._digits = self._seq + 8 + len(identity)
        self._count = digits
        self._stamp = self._digits + digits
        self._length = self._stamp + 8 + len(end)

    cpdef bytes head(self, Py_ssize_t size, long long seq, bytes stamp):
        if stamp is None or PyBytes_GET_SIZE(stamp) != 8:
            raise ValueError("the time is not 8 bytes")
        cdef Py_ssize_t length = PyBytes_GET_SIZE(self._model)
        cdef bytes made = PyBytes_FromStringAndSize(NULL, length)
        cdef char* at = PyBytes_AS_STRING(made)
        cdef uint64_t long_size = big64(<uint64_t>size), long_seq = big64(<uint64_t>seq)
        cdef uint32_t short_size = big32(<uint32_t>size)
        cdef int place
        memcpy(at, PyBytes_AS_STRING(self._model), length)
        memcpy(at + self._size, &long_size, 8)
        memcpy(at + self._seq, &long_seq, 8)
        memcpy(at + self._stamp, PyBytes_AS_STRING(stamp), 8)
        memcpy(at + self._length, &short_size, 4)
        for place in range(self._count - 1, -1, -1):
            at[self._digits + place] = <char>(48 + seq % 10)
            seq //= 10
        return made


cdef class PublishState:
    cdef public dict templates
    cdef public long long low
    cdef public long long high
    cdef public long long room
    cdef public Cursor cursor
    cdef Batch _batch
    cdef Run _run

    def __init__(self, Cursor cursor not None, Batch batch not None):
        self.cursor = cursor
        self.templates = {}
        self.low = 1
        self.high = 10
        self.room = 0
        self._batch = batch

    cpdef Run open_run(self):
        if self._run is None or not self._run.is_open:
            self._run = self._batch.open(self.cursor)
        return self._run

    def end_run(self):
        if self._run is not None:
            self._run.is_open = False

    cpdef bint put(self, Template template, object body, Py_ssize_t size, long long seq) except -1:
        cdef Run run
        if template is None or not self.low <= seq < self.high or not 0 < size <= self.room:
            return False
        if self._batch.asking and template._name in self._batch.asking:
            return False
        run = self.open_run()
        PyList_Append(run.pieces, template.head(size, seq, self._batch.stamp))
        PyList_Append(run.pieces, body)
        PyList_Append(run.pieces, template._tail)
        PyList_Append(run.marks, seq)
        self._batch.count(size)
        return True


cdef class EventPipeline:
    cdef public dict events
    cdef public long long other
    cdef public long long unreadable
    cdef public str unreadable_why
    cdef public object apply
    cdef public object publishes

    def __init__(self):
        self.events = {}
        self.unreadable_why = ""


cdef class FastPath:
    cdef public bint open
    cdef ReceiveState _receive_state
    cdef PublishState _publish_state
    cdef EventPipeline _event_pipeline
    cdef long long _shard_id
    cdef object _clock
    cdef object _general

    def __init__(
        self,
        ReceiveState receive_state not None,
        PublishState publish_state not None,
        EventPipeline event_pipeline not None,
        general not None,
        shard_id,
        clock,
    ):
        self.open = False
        self._receive_state = receive_state
        self._publish_state = publish_state
        self._event_pipeline = event_pipeline
        self._general = general
        self._shard_id = shard_id
        self._clock = clock

    def end(self):
        self.open = False
        self._general = None

    def message(self, bytes data not None, bint binary):
        cdef ReceiveState receive_state = self._receive_state
        cdef EventPipeline event_pipeline = self._event_pipeline
        cdef Parts parts
        cdef text at
        cdef object document, body, applied, count
        cdef str name
        cdef Py_ssize_t size
        cdef object general = self._general
        # 1. Whether it may be a usual event at all.
        if not self.open or not receive_state.fast_path_allowed:
            if general is not None:
                general.take(data, binary)
            return
        receive_state.heard_at = self._clock()
        receive_state.bytes_in += PyBytes_GET_SIZE(data)
        # 2. The JSON in it.
        try:
            document = receive_state.feed(data, binary)
        except ValueError as error:
            general.take_fault(error)
            return
        if document is None:
            return
        if type(document) is not bytes:
            general.take_document(document)
            return
        # 3. Its parts.
        at = <text>PyBytes_AS_STRING(document)
        if not usual_dispatch(at, at + PyBytes_GET_SIZE(document), &parts) or parts.s != receive_state.received_seq + 1:
            general.take_document(document)
            return
        name = PyUnicode_DecodeASCII(<const char*>parts.t, parts.t_end - parts.t, NULL)
        count = event_pipeline.events.get(name)
        if count is None:
            # The first of its name; whether there is room for another name is the general path's to say.
            general.take_document(document)
            return
        # 4. It is received.
        receive_state.bytes_inflated += PyBytes_GET_SIZE(document)
        receive_state.received_seq = parts.s
        receive_state.last = document
        size = parts.d_end - parts.d
        if size <= COPIED:
            body = PyBytes_FromStringAndSize(<const char*>parts.d, size)
        else:
            body = Raw(memoryview(document)[parts.d - at : parts.d_end - at])
        event_pipeline.events[name] = count + 1
        # 5. Into the cache.
        if event_pipeline.apply is not None:
            applied = event_pipeline.apply(self._shard_id, parts.s, name, body)
            if applied is not None:
                general.take_applied(name, body, parts.s, applied)
                return
        # 6. Whether it is published.
        if event_pipeline.publishes is not None and not event_pipeline.publishes(name):
            general.leave_out(parts.s)
        # 7. Into this wake-up's run.
        elif not self._publish_state.put(self._publish_state.templates.get(name), body, size, parts.s):
            general.publish(name, body, parts.s)
