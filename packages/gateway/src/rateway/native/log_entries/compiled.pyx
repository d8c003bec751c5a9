# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Deliveries of a stream become entries. ``plain.py`` says what each thing is; this does the same."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

ctypedef const unsigned char* octets

cdef extern from *:
    """
    #define rateway_little (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
    #define rateway_big64(n) (rateway_little ? __builtin_bswap64(n) : (n))
    #define rateway_big32(n) (rateway_little ? __builtin_bswap32(n) : (n))
    """
    uint64_t big64 "rateway_big64"(uint64_t) noexcept nogil
    uint32_t big32 "rateway_big32"(uint32_t) noexcept nogil

cdef enum:
    METHOD = 1
    HEADER = 2
    BODY = 3
    END = 0xCE
    MOST_TEXTS = 4096
    SEQ_DIGITS = 18
    REPEAT_DIGITS = 9
    SHARD_DIGITS = 9


cdef struct Properties:
    int64_t offset
    int64_t shard
    bint out_of_order
    octets message_id
    Py_ssize_t message_id_size
    uint64_t timestamp


cdef inline uint32_t u32(octets at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return big32(value)


cdef inline uint64_t u64(octets at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return big64(value)


cdef inline uint16_t u16(octets at) noexcept nogil:
    return <uint16_t>(at[0] << 8 | at[1])


cdef inline int width_of(unsigned char kind) noexcept nogil:
    """Bytes of a table's value; -1: a length comes first, -2: AMQP has no such type."""
    if kind == c't' or kind == c'b' or kind == c'B':
        return 1
    if kind == c's' or kind == c'U' or kind == c'u':
        return 2
    if kind == c'I' or kind == c'i' or kind == c'f':
        return 4
    if kind == c'l' or kind == c'L' or kind == c'd' or kind == c'T':
        return 8
    if kind == c'D':
        return 5
    if kind == c'V' or kind == 0:
        return 0
    if kind == c'S' or kind == c'x' or kind == c'A' or kind == c'F':
        return -1
    return -2


cdef inline int64_t whole(unsigned char kind, octets at) noexcept nogil:
    cdef int64_t value = -1
    if kind == c'l' or kind == c'L':
        value = <int64_t>u64(at)
    elif kind == c'I':
        value = <int>u32(at)
    elif kind == c'i':
        value = u32(at)
    elif kind == c's' or kind == c'U':
        value = <short>u16(at)
    elif kind == c'u':
        value = u16(at)
    elif kind == c'b':
        value = <signed char>at[0]
    elif kind == c'B':
        value = at[0]
    return value if value >= 0 else -1


cdef void headers(octets at, octets end, Properties* found) noexcept nogil:
    cdef octets name
    cdef Py_ssize_t length
    cdef int64_t width
    cdef unsigned char kind
    while at < end:
        length = at[0]
        name = at + 1
        # The type stands behind the name.
        if end - name <= length:
            return
        kind = name[length]
        at = name + length + 1
        width = width_of(kind)
        if width == -2:
            return
        if width == -1:
            if end - at < 4:
                return
            width = u32(at)
            at += 4
        if end - at < width:
            return
        if length == 15 and memcmp(name, b"x-stream-offset", 15) == 0:
            found.offset = whole(kind, at)
        elif length == 8 and memcmp(name, b"shard_id", 8) == 0:
            found.shard = whole(kind, at)
            if found.shard > 0x7FFFFFFF:
                found.shard = -1
        elif (length == 11 and memcmp(name, b"republished", 11) == 0) or (
            length == 5 and memcmp(name, b"ahead", 5) == 0
        ):
            if kind == c't' and at[0] != 0:
                found.out_of_order = True
        at += width


cdef void properties(octets frame, Properties* found) noexcept nogil:
    """From the whole frame of a content header, whose payload has at least 14 bytes."""
    cdef octets at = frame + 7 + 14
    cdef octets end = frame + 7 + u32(frame + 3)
    cdef octets stop
    cdef uint16_t flags = u16(frame + 7 + 12)
    cdef uint16_t flag
    cdef uint64_t timestamp
    found.offset = found.shard = -1
    found.out_of_order = False
    found.message_id = NULL
    found.message_id_size = 0
    found.timestamp = 0
    # The frame's own end stands behind the payload, so one byte may always be looked at up to there.
    for flag in range(2):
        if flags & (0x8000 >> flag):
            if at >= end:
                return
            at += 1 + at[0]
    if flags & 0x2000:
        if end - at < 4:
            return
        if <uint64_t>(end - at - 4) < u32(at):
            return
        stop = at + 4 + u32(at)
        headers(at + 4, stop, found)
        at = stop
    at += ((flags & 0x1000) != 0) + ((flags & 0x0800) != 0)
    for flag in range(3):
        if flags & (0x0400 >> flag):
            if at >= end:
                return
            at += 1 + at[0]
    if flags & 0x0080:
        if at >= end or end - at <= at[0]:
            return
        found.message_id = at + 1
        found.message_id_size = at[0]
        at += 1 + at[0]
    if flags & 0x0040 and end - at >= 8:
        timestamp = u64(at)
        if timestamp < <uint64_t>1 << 62:
            found.timestamp = timestamp


cdef inline bint number(octets at, octets end, int most, int64_t* value) noexcept nogil:
    """One to *most* decimal digits."""
    value[0] = 0
    if not 0 < end - at <= most:
        return False
    while at < end:
        if not c'0' <= at[0] <= c'9':
            return False
        value[0] = value[0] * 10 + (at[0] - c'0')
        at += 1
    return True


cdef inline octets last_part(octets begin, octets end) noexcept nogil:
    """Where the part behind the last colon begins; the beginning itself where there is none."""
    while end > begin and end[-1] != c':':
        end -= 1
    return end


cdef Py_ssize_t identity(octets begin, Py_ssize_t size, int64_t shard, int64_t* seq, int64_t* repeat) noexcept nogil:
    """The length of the session's part; 0 where this is no ``message_id`` of the shard."""
    cdef octets end = begin + size
    cdef octets part = last_part(begin, end)
    cdef int64_t of_shard
    seq[0] = repeat[0] = 0
    if part > begin and part < end and part[0] == c'r' and number(part + 1, end, REPEAT_DIGITS, repeat):
        end = part - 1
        part = last_part(begin, end)
    if part > begin and number(part, end, SEQ_DIGITS, seq):
        end = part - 1
        part = last_part(begin, end)
        if part > begin + 1 and number(part, end, SHARD_DIGITS, &of_shard) and of_shard == shard:
            return part - 1 - begin
    seq[0] = repeat[0] = 0
    return 0


cdef class EntryParser:
    cdef object make
    cdef dict texts
    cdef public list entries
    cdef public unsigned long long tag

    def __init__(self, make):
        self.make = make
        self.texts = {}
        self.entries = []
        self.tag = 0

    def __class_getitem__(cls, item):
        return cls

    cpdef Py_ssize_t parse(self, bytes data, Py_ssize_t at, unsigned int channel, Py_ssize_t room) except -1:
        cdef octets start = <octets>PyBytes_AS_STRING(data)
        cdef octets end = start + PyBytes_GET_SIZE(data)
        cdef octets here = start + at
        cdef octets header
        cdef octets body
        cdef octets stop
        cdef Py_ssize_t length
        cdef uint64_t body_size
        while end - here >= 7 + 4:
            length = u32(here + 3)
            if here[0] != METHOD or u16(here + 1) != channel or length > room or u32(here + 7) != 0x003C003C:
                break
            if end - here < length + 8 + 7 + 14:
                break
            header = here + length + 8
            if header[-1] != END:
                break
            length = u32(header + 3)
            if header[0] != HEADER or u16(header + 1) != channel or not 14 <= length <= room:
                break
            body_size = u64(header + 7 + 4)
            if body_size > <uint64_t>room or end - header < length + 8:
                break
            body = header + length + 8
            if body[-1] != END:
                break
            stop = body
            if body_size:
                if <uint64_t>(end - body) < body_size + 8:
                    break
                stop = body + body_size + 8
                if body[0] != BODY or u16(body + 1) != channel or u32(body + 3) != body_size or stop[-1] != END:
                    break
                body += 7
            if not self.make_one(here, header, PyBytes_FromStringAndSize(<char*>body, body_size)):
                break
            here = stop
        return here - start

    def parse_parts(self, bytes method, bytes header, bytes body):
        cdef bytes both = method + header
        cdef octets start = <octets>PyBytes_AS_STRING(both)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(header)
        if size < 7 + 14 + 1 or u32(<octets>PyBytes_AS_STRING(header) + 3) != size - 8:
            return False
        if PyBytes_GET_SIZE(method) < 7 + 4 + 1:
            return False
        return self.make_one(start, start + PyBytes_GET_SIZE(method), body)

    cdef bint make_one(self, octets method, octets header, bytes body) except -1:
        cdef octets end = header - 1
        cdef octets at = method + 7 + 4
        cdef octets tag
        cdef Properties found
        cdef int64_t seq = 0, repeat = 0
        cdef Py_ssize_t session = 0
        if at >= end:
            return False
        at += 1 + at[0]
        tag = at
        at += 9
        if at >= end:
            return False
        at += 1 + at[0]
        if at >= end or end - at <= at[0]:
            return False
        self.tag = u64(tag)
        properties(header, &found)
        if found.shard >= 0 and found.message_id_size:
            session = identity(found.message_id, found.message_id_size, found.shard, &seq, &repeat)
        PyList_Append(self.entries, self.make(
            found.offset, self.text(at + 1, at[0]), body, found.shard, self.text(found.message_id, session), seq,
            repeat, found.out_of_order, found.timestamp,
        ))
        return True

    cdef str text(self, octets at, Py_ssize_t size):
        cdef bytes raw
        if not size:
            return ""
        raw = PyBytes_FromStringAndSize(<char*>at, size)
        known = self.texts.get(raw)
        if known is None:
            if len(self.texts) >= MOST_TEXTS:
                self.texts.clear()
            known = self.texts[raw] = raw.decode("utf-8", "replace")
        return <str>known
