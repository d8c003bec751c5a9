# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The functions of ``plain.py`` that every event needs, compiled. What each one does stands there.

Objects are Discord's own compact JSON. Whatever else comes (space between tokens, escapes in a name, more fields than
:data:`MOST`) is handed to the plain form, so that both always agree; nothing here reads beyond the bytes it was given.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject_Hash
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memchr, memcmp, memcpy

# The search for the end of a string, and ``rateway_deepest``, to which containers in containers are passed over here as
# well; whether deeper ones can be read, the plain form says.
from rateway.native.fast_path.scan cimport DEEPEST, next_mark

from rateway.native.objects import plain

# Fields of one object that fit on the stack; guilds have the most, about fifty.
cdef enum:
    MOST = 96

cdef struct Field:
    const char *name
    Py_ssize_t name_size
    const char *value
    Py_ssize_t value_size


cdef extern from *:
    """
    #include <stddef.h>
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif
    static inline int is_digit(char at) { return '0' <= at && at <= '9'; }
    static inline int is_hex(char at) { return is_digit(at) || ('a' <= (at | 32) && (at | 32) <= 'f'); }
    /* How long the escape is that begins here; 0 for none of JSON's, and for half of a surrogate pair. */
    static inline int escape_size(const char *at, const char *end) {
        if (end - at < 2) return 0;
        if (at[1] != 'u') return memchr("\\"\\\\/bfnrt", at[1], 8) && at[1] ? 2 : 0;
        if (end - at < 6 || !is_hex(at[2]) || !is_hex(at[3]) || !is_hex(at[4]) || !is_hex(at[5])) return 0;
        if ((at[2] | 32) != 'd' || at[3] < '8') return 6;
        if (at[3] > '9' && (at[3] | 32) > 'b') return 0;
        if (end - at < 12 || at[6] != '\\\\' || at[7] != 'u' || (at[8] | 32) != 'd') return 0;
        return (at[9] | 32) >= 'c' && is_hex(at[9]) && is_hex(at[10]) && is_hex(at[11]) ? 12 : 0;
    }
    /* Whether these bytes are UTF-8, as RFC 3629 has it. */
    static int is_utf8(const char *from, const char *to) {
        const unsigned char *at = (const unsigned char *)from, *end = (const unsigned char *)to;
        while (at < end) {
    #ifdef __SSE2__
            while (end - at >= 16 && !_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)at))) at += 16;
            if (at == end) return 1;
    #endif
            unsigned char first = *at, low = 0x80, high = 0xbf;
            int more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
            if (first >= 0x80 && (first < 0xc2 || first > 0xf4)) return 0;
            if (end - at <= more) return 0;
            if (first == 0xe0) low = 0xa0;
            if (first == 0xed) high = 0x9f;
            if (first == 0xf0) low = 0x90;
            if (first == 0xf4) high = 0x8f;
            for (at++; more; more--, at++, low = 0x80, high = 0xbf)
                if (*at < low || *at > high) return 0;
        }
        return 1;
    }
    /* Beyond a string's closing quote; `at` is beyond the opening one. NULL when it is none of JSON's. */
    static inline const char *past_string(const char *from, const char *to) {
        const unsigned char *at = (const unsigned char *)from, *end = (const unsigned char *)to;
        for (;;) {
            at = rateway_next_mark(at, end, 1);
            if (at >= end) return NULL;
            if (*at == '"') return (const char *)at + 1;
            int size = *at == '\\\\' ? escape_size((const char *)at, to) : 0;
            if (!size) return NULL;
            at += size;
        }
    }
    /* The closing quote of a name without escapes; `at` is beyond the opening one. NULL when it is none. */
    static inline const char *end_of_name(const char *at, const char *end) {
        at = (const char *)rateway_next_mark((const unsigned char *)at, (const unsigned char *)end, 1);
        return at < end && *at == '"' ? at : NULL;
    }
    /* Beyond a number, true, false or null; NULL when it is none. */
    static inline const char *past_scalar(const char *at, const char *end) {
        switch (*at) {
        case 'n': return end - at >= 4 && !memcmp(at, "null", 4) ? at + 4 : NULL;
        case 't': return end - at >= 4 && !memcmp(at, "true", 4) ? at + 4 : NULL;
        case 'f': return end - at >= 5 && !memcmp(at, "false", 5) ? at + 5 : NULL;
        case '-': at++;
        }
        if (at >= end || !is_digit(*at)) return NULL;
        if (*at == '0') at++;
        else while (at < end && is_digit(*at)) at++;
        if (at < end && *at == '.') {
            if (++at >= end || !is_digit(*at)) return NULL;
            while (at < end && is_digit(*at)) at++;
        }
        if (at < end && (*at | 32) == 'e') {
            if (++at < end && (*at == '+' || *at == '-')) at++;
            if (at >= end || !is_digit(*at)) return NULL;
            while (at < end && is_digit(*at)) at++;
        }
        return at;
    }
    /* Beyond a value without space between its tokens; NULL when there is none, or the plain form should look at it. */
    static const char *past_value(const char *at, const char *end) {
        /* Of the containers that are open: 1 for an object, the innermost lowest. */
        unsigned long long objects = 0;
        int depth = 0;
        for (;;) {
            if (at >= end) return NULL;
            if (*at == '"') at = past_string(at + 1, end);
            else if (*at == '{' || *at == '[') {
                int object = *at == '{';
                if (depth == rateway_deepest || ++at >= end) return NULL;
                depth++;
                objects = objects << 1 | (unsigned)object;
                if (*at != (object ? '}' : ']')) {
                    if (object) goto key;
                    continue;
                }
            }
            else at = past_scalar(at, end);
            if (!at) return NULL;
            for (;;) {
                if (!depth) return at;
                if (at >= end) return NULL;
                if (*at != (objects & 1 ? '}' : ']')) break;
                at++;
                depth--;
                objects >>= 1;
            }
            if (*at++ != ',') return NULL;
            if (!(objects & 1)) continue;
        key:
            if (at >= end || *at != '"' || !(at = past_string(at + 1, end))) return NULL;
            if (at >= end || *at++ != ':') return NULL;
        }
    }
    """
    const char *end_of_name(const char *at, const char *end) noexcept nogil
    const char *past_value(const char *at, const char *end) noexcept nogil
    bint is_utf8(const char *at, const char *end) noexcept nogil


cdef inline const char *named(const char *at, const char *end, Field *field) noexcept nogil:
    """Where the value of the field begins whose name does here; NULL when the plain form should look at it."""
    if at >= end or at[0] != c'"':
        return NULL
    at += 1
    field.name = at
    at = end_of_name(at, end)
    if at == NULL:
        return NULL
    field.name_size = at - field.name
    # The colon, and a byte of the value.
    if end - at < 3 or at[1] != c':':
        return NULL
    field.value = at + 2
    return field.value


cdef struct Part:
    # An object inside an object whose fields are wanted as well, and one inside that.
    const char *name
    Py_ssize_t name_size
    Field *fields
    int count
    Part *part


cdef const char *object_from(
    const char *at, const char *end, Field *found, int *count, Part *parts, int many
) noexcept nogil:
    """The fields of the object that begins here, and beyond it; NULL when the plain form should look at it."""
    cdef Field *field
    cdef Part *part
    cdef int each
    count[0] = 0
    if end - at < 2 or at[0] != c'{':
        return NULL
    at += 1
    if at[0] == c'}':
        return at + 1
    while count[0] < MOST:
        field = &found[count[0]]
        at = named(at, end, field)
        if at == NULL:
            return NULL
        part = NULL
        if at[0] == c'{':
            for each in range(many):
                if is_called(field, parts[each].name, parts[each].name_size):
                    part = &parts[each]
        if part != NULL:
            at = object_from(at, end, part.fields, &part.count, part.part, part.part != NULL)
        else:
            at = past_value(at, end)
        if at == NULL or at >= end:
            return NULL
        field.value_size = at - field.value
        count[0] += 1
        if at[0] == c',':
            at += 1
        elif at[0] == c'}':
            return at + 1
        else:
            return NULL
    return NULL


cdef inline int fields_in(const char *at, Py_ssize_t size, Field *found, Part *parts, int many) noexcept nogil:
    """The fields of an object as it stands, and of some of its parts (-1 for one that it does not have)."""
    cdef const char *end = at + size
    cdef int count = 0, each
    for each in range(many):
        parts[each].count = -1
        if parts[each].part != NULL:
            parts[each].part.count = -1
    return count if object_from(at, end, found, &count, parts, many) == end else -1


cdef inline int fields_of(bytes raw, Field *found, Part *parts=NULL, int many=0) noexcept:
    return fields_in(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), found, parts, many)


cdef inline Part part_called(const char *name, Py_ssize_t size, Field *fields) noexcept nogil:
    cdef Part part
    part.name, part.name_size, part.fields, part.count, part.part = name, size, fields, -1, NULL
    return part


cdef inline bint is_called(const Field *field, const char *name, Py_ssize_t size) noexcept nogil:
    return field.name_size == size and memcmp(field.name, name, size) == 0


cdef inline bint same_name(const Field *one, const Field *other) noexcept nogil:
    return is_called(one, other.name, other.name_size)


cdef inline int position(const Field *wanted, const Field *found, int count, int guess) noexcept nogil:
    """Where the last field of that name stands; -1 when none does. Most objects keep one order, hence the guess."""
    cdef int at
    if guess < count and same_name(wanted, &found[guess]):
        return guess
    for at in range(count - 1, -1, -1):
        if same_name(wanted, &found[at]):
            return at
    return -1


cdef inline bint repeats(const Field *found, int count) noexcept nogil:
    """Whether a name stands twice: never in what Discord sends, and the plain form knows what it means."""
    cdef int at, other
    for at in range(1, count):
        for other in range(at):
            if same_name(&found[at], &found[other]):
                return True
    return False


cdef inline bint same_value(const Field *one, const Field *other) noexcept nogil:
    return one.value_size == other.value_size and memcmp(one.value, other.value, one.value_size) == 0


def is_part_of(bytes part not None, bytes whole not None):
    cdef Field said[MOST]
    cdef Field kept[MOST]
    cdef int count = fields_of(part, said), among, at, where, guess = 0
    if count < 0:
        return plain.is_part_of(part, whole)
    among = fields_of(whole, kept)
    if among < 0 or repeats(said, count) or repeats(kept, among):
        return plain.is_part_of(part, whole)
    for at in range(count):
        where = position(&said[at], kept, among, guess)
        if where < 0 or not same_value(&said[at], &kept[where]):
            return False
        guess = where + 1
    return True


cdef inline char *put(char *out, const Field *field, bint first) noexcept nogil:
    if not first:
        out[0] = c','
        out += 1
    out[0] = c'"'
    memcpy(out + 1, field.name, field.name_size)
    out += 1 + field.name_size
    out[0] = c'"'
    out[1] = c':'
    memcpy(out + 2, field.value, field.value_size)
    return out + 2 + field.value_size


def merge(bytes old not None, bytes new not None):
    return merged(old, new)


cdef bytes merged(bytes old, bytes new):
    cdef Field kept[MOST]
    cdef Field said[MOST]
    cdef int where[MOST]
    cdef int count = fields_of(old, kept), more, at, place, guess = 0
    cdef bint changed = False
    if count < 0:
        return plain.merge(old, new)
    more = fields_of(new, said)
    if more < 0 or repeats(kept, count) or repeats(said, more):
        return plain.merge(old, new)
    for at in range(more):
        place = where[at] = position(&said[at], kept, count, guess)
        if place < 0 or not same_value(&said[at], &kept[place]):
            changed = True
        guess = place + 1 if place >= 0 else guess
    if not changed:
        return old
    for at in range(more):
        if where[at] >= 0:
            kept[where[at]] = said[at]
    cdef Py_ssize_t size = 2
    for at in range(count):
        size += kept[at].name_size + kept[at].value_size + 4
    for at in range(more):
        if where[at] < 0:
            size += said[at].name_size + said[at].value_size + 4
    size -= 1 if size > 2 else 0
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size)
    cdef char *out = PyBytes_AS_STRING(result)
    cdef bint first = True
    out[0] = c'{'
    out += 1
    for at in range(count):
        out = put(out, &kept[at], first)
        first = False
    for at in range(more):
        if where[at] < 0:
            out = put(out, &said[at], first)
            first = False
    out[0] = c'}'
    return result


cdef inline bint is_named(const Field *field, bytes name) noexcept:
    return is_called(field, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))


cdef bytes joined(const Field *found, int count, const char *left_out):
    """An object of the fields that are not left out."""
    cdef Py_ssize_t size = 1
    cdef bint first = True
    cdef int at
    for at in range(count):
        if not left_out[at]:
            size += found[at].name_size + found[at].value_size + 4
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size if size > 1 else 2)
    cdef char *out = PyBytes_AS_STRING(result)
    out[0] = c'{'
    out += 1
    for at in range(count):
        if not left_out[at]:
            out = put(out, &found[at], first)
            first = False
    out[0] = c'}'
    return result


def drop_fields(bytes raw not None, tuple names not None):
    cdef Field found[MOST]
    cdef char left_out[MOST]
    cdef int count = fields_of(raw, found), at
    cdef bint whole = True
    cdef bytes name
    if count < 0:
        return plain.drop_fields(raw, names)
    for at in range(count):
        left_out[at] = 0
        for name in names:
            if is_named(&found[at], name):
                left_out[at] = 1
                whole = False
                break
    return raw if whole else joined(found, count, left_out)


def field(bytes raw not None, bytes name not None):
    cdef Field found[MOST]
    cdef int count = fields_of(raw, found), at
    if count < 0:
        return plain.field(raw, name)
    for at in range(count - 1, -1, -1):
        if is_named(&found[at], name):
            return PyBytes_FromStringAndSize(found[at].value, found[at].value_size)
    return None


def split_field(bytes raw not None, bytes name not None):
    cdef Field found[MOST]
    cdef char left_out[MOST]
    cdef int count = fields_of(raw, found), at, wanted = -1
    if count < 0:
        return plain.split_field(raw, name)
    for at in range(count):
        left_out[at] = is_named(&found[at], name)
        if left_out[at]:
            wanted = at
    if wanted < 0:
        return raw, None
    value = PyBytes_FromStringAndSize(found[wanted].value, found[wanted].value_size)
    return joined(found, count, left_out), value


cdef const char *past_object(
    const char *at, const char *end, const char *name, Py_ssize_t size, Field *wanted
) noexcept nogil:
    """Beyond an object, whose last field of that name is ``wanted`` then. NULL when the plain form should look."""
    cdef Field each
    wanted.value = NULL
    if end - at < 2 or at[0] != c'{':
        return NULL
    at += 1
    if at[0] == c'}':
        return at + 1
    while True:
        at = named(at, end, &each)
        if at == NULL:
            return NULL
        at = past_value(at, end)
        if at == NULL or at >= end:
            return NULL
        each.value_size = at - each.value
        if is_called(&each, name, size):
            wanted[0] = each
        if at[0] == c'}':
            return at + 1
        if at[0] != c',':
            return NULL
        at += 1


cdef struct Entry:
    uint64_t number
    const char *start
    const char *end


cdef int entry_order(const void *one, const void *other) noexcept nogil:
    """By id; of one id the later stands behind."""
    cdef const Entry *first = <const Entry *>one
    cdef const Entry *second = <const Entry *>other
    if first.number != second.number:
        return -1 if first.number < second.number else 1
    return -1 if first.start < second.start else 1


cdef const char *past_list(const char *at, const char *end, tuple path, list ids, list items) except? NULL:
    """Beyond an array, whose objects are ``items`` then, ascending by ``ids``. NULL when the plain form should look."""
    cdef bytes name = path[0]
    cdef bytes inner = path[1] if len(path) > 1 else None
    cdef Field found, within
    cdef Entry *entries = NULL
    cdef Entry *more
    cdef Py_ssize_t count = 0, room = 0, each
    cdef bint sorted_already = True
    if end - at < 2:
        return NULL
    at += 1
    if at[0] == c']':
        return at + 1
    try:
        while True:
            if count == room:
                room = 4 * room if room else 64
                more = <Entry *>PyMem_Realloc(entries, room * sizeof(Entry))
                if more == NULL:
                    raise MemoryError
                entries = more
            entries[count].start = at
            at = past_object(at, end, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), &found)
            if at == NULL or at >= end or found.value == NULL:
                return NULL
            entries[count].end = at
            if inner is not None:
                if past_object(
                    found.value,
                    found.value + found.value_size,
                    PyBytes_AS_STRING(inner),
                    PyBytes_GET_SIZE(inner),
                    &within,
                ) != found.value + found.value_size or within.value == NULL:
                    return NULL
                found = within
            entries[count].number = id_in(&found)
            if not entries[count].number:
                return NULL
            if count and entries[count].number <= entries[count - 1].number:
                sorted_already = False
            count += 1
            if at[0] == c']':
                break
            if at[0] != c',':
                return NULL
            at += 1
        if not sorted_already:
            qsort(entries, count, sizeof(Entry), entry_order)
        for each in range(count):
            ids.append(entries[each].number)
            items.append(PyBytes_FromStringAndSize(entries[each].start, entries[each].end - entries[each].start))
        return at + 1
    finally:
        PyMem_Free(entries)


def list_by_id(bytes raw not None, tuple path not None):
    cdef const char *at = PyBytes_AS_STRING(raw)
    cdef const char *end = at + PyBytes_GET_SIZE(raw)
    cdef list ids = [], items = []
    if end == at or at[0] != c'[' or past_list(at, end, path, ids, items) != end:
        return plain.list_by_id(raw, path)
    return ids, items


def split_lists(bytes raw not None, dict lists not None, tuple names not None):
    cdef Field found[MOST]
    cdef char left_out[MOST]
    cdef const char *at = PyBytes_AS_STRING(raw)
    cdef const char *end = at + PyBytes_GET_SIZE(raw)
    cdef int count = 0
    cdef bint whole = True
    cdef dict listed_in = {}, values = {}
    cdef bytes name
    cdef tuple path
    cdef list ids, items
    if end - at < 2 or at[0] != c'{' or at[1] == c'}':
        return plain.split_lists(raw, lists, names)
    at += 1
    while True:
        at = named(at, end, &found[count]) if count < MOST else NULL
        if at == NULL:
            return plain.split_lists(raw, lists, names)
        name = PyBytes_FromStringAndSize(found[count].name, found[count].name_size)
        path = lists.get(name)
        if path and at[0] == c'[':
            ids, items = [], []
            at = past_list(at, end, path, ids, items)
            listed_in[name] = (ids, items)
        else:
            at = past_value(at, end)
        if at == NULL or at >= end:
            return plain.split_lists(raw, lists, names)
        found[count].value_size = at - found[count].value
        left_out[count] = path is not None or name in names
        if left_out[count]:
            whole = False
            if path is None:
                values[name] = PyBytes_FromStringAndSize(found[count].value, found[count].value_size)
            elif path and name not in listed_in and not is_null(&found[count]):
                return plain.split_lists(raw, lists, names)
        count += 1
        if at[0] == c'}':
            break
        if at[0] != c',':
            return plain.split_lists(raw, lists, names)
        at += 1
    if at + 1 != end:
        return plain.split_lists(raw, lists, names)
    return raw if whole else joined(found, count, left_out), listed_in, values


cdef inline int digits_of(uint64_t number, char *last) noexcept nogil:
    """A number's digits, written up to ``last``; how many."""
    cdef int count = 0
    while True:
        last -= 1
        last[0] = <char>(c'0' + number % 10)
        number //= 10
        count += 1
        if not number:
            return count


def page(list ids not None, list items not None, Py_ssize_t start, Py_ssize_t end):
    cdef char digits[24]
    cdef Py_ssize_t size = 1, at
    cdef int count
    cdef bytes raw
    for at in range(start, end):
        raw = items[at]
        size += PyBytes_GET_SIZE(raw) + digits_of(<uint64_t>ids[at], digits + 24) + 1
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size)
    cdef char *out = PyBytes_AS_STRING(result)
    out[0] = c'\n'
    out += 1
    for at in range(start, end):
        raw = items[at]
        count = digits_of(<uint64_t>ids[at], digits + 24)
        memcpy(out, digits + 24 - count, count)
        out += count
        memcpy(out, PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
        out += PyBytes_GET_SIZE(raw)
        out[0] = c'\n'
        out += 1
    return result


def append_to_each(bytes ids not None, bytes tail not None):
    cdef const char *at = PyBytes_AS_STRING(ids)
    cdef Py_ssize_t count = PyBytes_GET_SIZE(ids) // 8, size = PyBytes_GET_SIZE(tail)
    cdef list found = []
    cdef bytes each
    while count > 0:
        each = PyBytes_FromStringAndSize(NULL, 8 + size)
        memcpy(PyBytes_AS_STRING(each), at, 8)
        memcpy(PyBytes_AS_STRING(each) + 8, PyBytes_AS_STRING(tail), size)
        found.append(each)
        at += 8
        count -= 1
    return found


cdef extern from "string.h" nogil:
    void *memmem(const void *haystack, size_t size, const void *needle, size_t length)


def find(bytes text not None, uint64_t entity_id):
    cdef char wanted[24]
    cdef const char *start = PyBytes_AS_STRING(text)
    cdef const char *end = start + PyBytes_GET_SIZE(text)
    cdef const char *line
    cdef const char *last
    cdef int size = digits_of(entity_id, wanted + 23) + 2
    wanted[23], wanted[24 - size] = c'{', c'\n'
    line = <const char *>memmem(start, end - start, wanted + 24 - size, size)
    if line == NULL:
        return None
    line += size - 1
    last = <const char *>memchr(line, c'\n', end - line)
    return None if last == NULL else PyBytes_FromStringAndSize(line, last - line)


# What follows recognises words by a keyed hash: the key is drawn for each process, so that no sender outside can make two
# texts share a mark. Fields count in any order.
cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static uint64_t key_a, key_b, key_c;
    static inline uint64_t folded(uint64_t a, uint64_t b) {
    #ifdef __SIZEOF_INT128__
        __uint128_t product = (__uint128_t)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    #else
        uint64_t high = (a >> 32) * (b >> 32), low = (a & 0xffffffffu) * (b & 0xffffffffu);
        uint64_t one = (a >> 32) * (b & 0xffffffffu), other = (a & 0xffffffffu) * (b >> 32);
        uint64_t middle = (low >> 32) + (one & 0xffffffffu) + (other & 0xffffffffu);
        return ((low & 0xffffffffu) | middle << 32) ^ (high + (one >> 32) + (other >> 32) + (middle >> 32));
    #endif
    }
    static inline uint64_t eight(const char *at) { uint64_t found; memcpy(&found, at, 8); return found; }
    static inline uint64_t four(const char *at) { uint32_t found; memcpy(&found, at, 4); return found; }
    static inline uint64_t hashed(const char *at, size_t size) {
        uint64_t found = key_a ^ size, one = 0, other = 0;
        size_t left = size;
        for (; left >= 16; at += 16, left -= 16)
            found = folded(eight(at) ^ key_b, eight(at + 8) ^ found);
        if (left >= 8) { one = eight(at); other = eight(at + left - 8); }
        else if (left >= 4) { one = four(at) << 32 | four(at + left - 4); }
        else if (left) { one = (uint64_t)(unsigned char)at[0] << 16 | (unsigned char)at[left >> 1] << 8
                               | (unsigned char)at[left - 1]; }
        return folded(folded(one ^ key_b, other ^ found) ^ key_c, size ^ key_a);
    }
    """
    uint64_t key_a, key_b, key_c
    uint64_t folded(uint64_t a, uint64_t b) noexcept nogil
    uint64_t hashed(const char *at, size_t size) noexcept nogil


key_a = <uint64_t>PyObject_Hash(b"rateway a") | 1
key_b = <uint64_t>PyObject_Hash(b"rateway b") | 1
key_c = <uint64_t>PyObject_Hash(b"rateway c") | 1


cdef inline uint64_t hash_of(const Field *field) noexcept nogil:
    # A field's name, colon and value stand side by side.
    return hashed(field.name, field.value + field.value_size - field.name)


cdef inline uint64_t words_of(const Field *found, int count, bint with_user) noexcept nogil:
    """What some fields say, in whatever order."""
    cdef uint64_t total = 0
    cdef int at
    for at in range(count):
        if with_user or not is_called(&found[at], b"user", 4):
            total += hash_of(&found[at])
    return total


cdef inline bint is_null(const Field *field) noexcept nogil:
    return field.value_size == 4 and memcmp(field.value, b"null", 4) == 0


cdef inline uint64_t id_in(const Field *field) noexcept nogil:
    """An id as Discord writes them, in quotes; 0 when it is none."""
    cdef uint64_t found = 0
    cdef Py_ssize_t at
    if field.value_size < 3 or field.value_size > 21 or field.value[0] != c'"':
        return 0
    # A number that begins with a zero is none in JSON, and the plain form knows which other ones are none.
    if field.value[1] == c'0':
        return 0
    for at in range(1, field.value_size - 1):
        if field.value[at] < c'0' or field.value[at] > c'9':
            return 0
        found = found * 10 + <uint64_t>(field.value[at] - c'0')
    return found


cdef inline uint64_t id_of(const Field *found, int count) noexcept nogil:
    cdef int at
    for at in range(count):
        if is_called(&found[at], b"id", 2):
            return id_in(&found[at])
    return 0


cdef inline bint plainly_offline(const Field *status, bint *offline) noexcept nogil:
    """Whether a status is offline; False when the plain form should look at it, for there are escapes in it."""
    offline[0] = status.value_size == 9 and memcmp(status.value, b'"offline"', 9) == 0
    return memchr(status.value, c'\\', status.value_size) == NULL


def is_offline(bytes raw not None):
    cdef Field found[MOST]
    cdef int count = fields_of(raw, found), at
    cdef bint told
    for at in range(count - 1, -1, -1):
        if is_called(&found[at], b"status", 6):
            return told if plainly_offline(&found[at], &told) else plain.is_offline(raw)
    return plain.is_offline(raw) if count < 0 else False


cdef inline bint is_sound(bytes raw) noexcept:
    return is_utf8(PyBytes_AS_STRING(raw), PyBytes_AS_STRING(raw) + PyBytes_GET_SIZE(raw))


def is_text(bytes raw not None):
    return is_sound(raw)


cdef bint presence_in(
    bytes d, uint64_t *guild_id, uint64_t *user_id, bint *offline, bint *named
) noexcept:
    """What ``presence`` tells; False when the plain form should look at it."""
    cdef Field found[MOST]
    cdef Field user[MOST]
    cdef Part inside = part_called(b"user", 4, user)
    cdef int count = fields_of(d, found, &inside, 1), at
    guild_id[0], user_id[0], offline[0], named[0] = 0, id_of(user, inside.count), False, inside.count > 1
    for at in range(count):
        if is_called(&found[at], b"guild_id", 8):
            guild_id[0] = id_in(&found[at])
        elif is_called(&found[at], b"status", 6):
            if not plainly_offline(&found[at], offline):
                return False
    return guild_id[0] != 0 and user_id[0] != 0


def read_presence(bytes d not None):
    cdef uint64_t guild_id, user_id
    cdef bint offline, named
    if not presence_in(d, &guild_id, &user_id, &offline, &named):
        return plain.read_presence(d)
    return guild_id, user_id, offline, named


cdef enum:
    WAYS = 16
    TAG_BITS = 12
    OF_USER = 0
    WHOLE_USER = 1

if (WAYS, TAG_BITS, OF_USER, WHOLE_USER) != (plain.WAYS, plain.TAG_BITS, plain.OF_USER, plain.WHOLE_USER):
    raise AssertionError("compiled with other numbers than plain.py has")


cdef inline uint64_t home_of(uint64_t place, uint64_t user_id) noexcept nogil:
    """What a member's marks, or a user's, have in common: the low bits choose their ways, the top their tag."""
    return folded(place ^ key_a, user_id ^ key_b)


cdef inline uint64_t tag_of(uint64_t home) noexcept nogil:
    """Never 0: an empty place has no tag."""
    return home >> (64 - TAG_BITS) | 1


cdef inline uint64_t marked(uint64_t home, uint64_t words) noexcept nogil:
    """What stands for words in the table."""
    return folded(words ^ key_c, home) >> TAG_BITS | tag_of(home) << (64 - TAG_BITS)


cdef inline uint64_t *ways_of(uint64_t *prints, uint64_t mask, uint64_t home) noexcept nogil:
    return prints + (home & mask)


cdef inline bint stands_in(const uint64_t *ways, uint64_t mark) noexcept nogil:
    cdef int at
    cdef bint found = False
    for at in range(WAYS):  # without a way out, so that several are compared at once
        found |= ways[at] == mark
    return found


cdef inline int forget_in(uint64_t *ways, uint64_t tag) noexcept nogil:
    cdef int at, gone = 0
    for at in range(WAYS):
        if ways[at] >> (64 - TAG_BITS) == tag:
            ways[at] = 0
            gone += 1
    return gone


cdef class SeenFingerprints:
    cdef uint64_t *_prints
    cdef uint64_t *_former
    cdef uint64_t _mask, _former_mask
    cdef int64_t _taken
    cdef readonly bint any

    def __cinit__(self):
        self._prints = self._former = NULL

    def __init__(self):
        self.forget_all()

    def __dealloc__(self):
        PyMem_Free(self._prints)
        PyMem_Free(self._former)

    @property
    def places(self):
        return self._mask + WAYS

    # one mark

    cdef bint _known(self, uint64_t home, uint64_t words) noexcept:
        cdef uint64_t mark = marked(home, words)
        if stands_in(ways_of(self._prints, self._mask, home), mark):
            return True
        if self._former != NULL and stands_in(ways_of(self._former, self._former_mask, home), mark):
            self._learn(home, words)
            return True
        return False

    cdef void _learn(self, uint64_t home, uint64_t words) noexcept:
        cdef uint64_t mark = marked(home, words)
        cdef uint64_t *ways = ways_of(self._prints, self._mask, home)
        cdef int at
        self.any = True
        if stands_in(ways, mark):
            return
        for at in range(WAYS):
            if ways[at] == 0:
                ways[at] = mark
                self._taken += 1
                return
        # All are taken: in the place of any other.
        ways[mark & WAYS - 1] = mark

    cdef void _forget(self, uint64_t home) noexcept:
        self._taken -= forget_in(ways_of(self._prints, self._mask, home), tag_of(home))
        if self._former != NULL:
            forget_in(ways_of(self._former, self._former_mask, home), tag_of(home))

    cdef bint _has_room(self) except -1:
        """Whether less than half of the places are taken, after a larger table is made where that may be."""
        cdef uint64_t *larger
        cdef uint64_t places = self._mask + WAYS
        if self._taken <= places // 2:
            return True
        if places >= <uint64_t>plain.MOST_PRINTS:
            return False
        # Empty; what the smaller one knows moves when it is heard again.
        larger = <uint64_t *>PyMem_Calloc(4 * places, sizeof(uint64_t))
        if larger == NULL:
            raise MemoryError
        PyMem_Free(self._former)
        self._former, self._former_mask = self._prints, self._mask
        self._prints, self._mask, self._taken = larger, 4 * places - WAYS, 0
        return True

    # words of an event

    def message(self, bytes d not None):
        cdef uint64_t channel_id, message_id
        if self._message(d, &channel_id, &message_id, False):
            return channel_id, message_id
        return None

    cdef bint _message(self, bytes d, uint64_t *channel, uint64_t *message, bint webhooks) noexcept:
        """What ``message`` tells; with ``webhooks`` also of a webhook's message, whose author is no user."""
        cdef Field found[MOST]
        cdef Field author[MOST]
        cdef Field member[MOST]
        cdef Part parts[2]
        parts[0], parts[1] = part_called(b"author", 6, author), part_called(b"member", 6, member)
        cdef int count = fields_of(d, found, parts, 2), at
        cdef uint64_t message_id = 0, channel_id = 0, guild_id = 0, user_id
        cdef bint by_webhook = False, with_member = False
        cdef const Field *field
        for at in range(count):
            field = &found[at]
            if is_called(field, b"id", 2):
                message_id = id_in(field)
            elif is_called(field, b"channel_id", 10):
                channel_id = id_in(field)
            elif is_called(field, b"guild_id", 8):
                guild_id = id_in(field)
            elif is_called(field, b"member", 6):
                with_member = True
            elif is_called(field, b"webhook_id", 10):
                by_webhook = not is_null(field)
        if not message_id or not channel_id or not guild_id:
            return False
        if by_webhook:
            channel[0], message[0] = channel_id, message_id
            return webhooks and not with_member
        if parts[0].count < 0 or parts[1].count < 0:
            return False
        user_id = id_of(author, parts[0].count)
        if (
            not user_id
            or not self._known(home_of(guild_id, user_id), words_of(member, parts[1].count, False))
            or not self._known(home_of(OF_USER, user_id), words_of(author, parts[0].count, True))
        ):
            return False
        channel[0], message[0] = channel_id, message_id
        return True

    def carried(self, bytes d not None, bint stale=False):
        return self._carried(d, stale)

    cdef bint _carried(self, bytes d, bint stale) noexcept:
        cdef Field found[MOST]
        cdef Field member[MOST]
        cdef Field user[MOST]
        cdef Part inner = part_called(b"user", 4, user)
        cdef Part outer = part_called(b"member", 6, member)
        outer.part = &inner
        cdef int count = fields_of(d, found, &outer, 1), at
        cdef uint64_t guild_id = 0, user_id = 0
        for at in range(count):
            if is_called(&found[at], b"guild_id", 8):
                guild_id = id_in(&found[at])
            elif is_called(&found[at], b"user_id", 7):
                user_id = id_in(&found[at])
        if not guild_id or not user_id or inner.count < 0:
            return False
        if not self._known(home_of(OF_USER, user_id), words_of(user, inner.count, True)):
            return False
        cdef uint64_t home = home_of(guild_id, user_id)
        cdef uint64_t words = words_of(member, outer.count, False)
        if not stale:
            return self._known(home, words)
        # Whatever is kept of these two, the other fields are known when all are known with any of their values.
        for at in range(outer.count):
            if is_called(&member[at], b"mute", 4) or is_called(&member[at], b"deaf", 4):
                words -= hash_of(&member[at])
        cdef uint64_t muted[2]
        cdef uint64_t deafened[2]
        muted[0], muted[1] = hashed(b'mute":false', 11), hashed(b'mute":true', 10)
        deafened[0], deafened[1] = hashed(b'deaf":false', 11), hashed(b'deaf":true', 10)
        for at in range(4):
            if self._known(home, words + muted[at & 1] + deafened[at >> 1]):
                return True
        return self._known(home, words)

    cdef bint _used(self, bytes d) noexcept:
        """Whether the member that used a command, and its user, are known as they are."""
        cdef Field found[MOST]
        cdef Field member[MOST]
        cdef Field user[MOST]
        cdef Part inner = part_called(b"user", 4, user)
        cdef Part outer = part_called(b"member", 6, member)
        outer.part = &inner
        cdef int count = fields_of(d, found, &outer, 1), at
        cdef uint64_t guild_id = 0, user_id, words
        for at in range(count):
            if is_called(&found[at], b"guild_id", 8):
                guild_id = id_in(&found[at])
        if not guild_id or inner.count < 0:
            return False
        user_id = id_of(user, inner.count)
        words = words_of(member, outer.count, False)
        for at in range(outer.count):
            # Not kept: which guild it is in, and the permissions in the event's channel.
            if is_called(&member[at], b"guild_id", 8) or is_called(&member[at], b"permissions", 11):
                words -= hash_of(&member[at])
        return (
            user_id != 0
            and self._known(home_of(guild_id, user_id), words)
            and self._known(home_of(OF_USER, user_id), words_of(user, inner.count, True))
        )

    # words of one member or user

    def knows_member(self, uint64_t guild_id, uint64_t user_id, bytes member not None):
        cdef Field found[MOST]
        cdef int count = fields_of(member, found)
        return count >= 0 and self._known(home_of(guild_id, user_id), words_of(found, count, False))

    def knows_user(self, uint64_t user_id, bytes user not None):
        cdef Field found[MOST]
        cdef int count = fields_of(user, found)
        return count >= 0 and self._known(home_of(OF_USER, user_id), words_of(found, count, True))

    def learn_member(self, uint64_t guild_id, uint64_t user_id, bytes member not None):
        cdef Field found[MOST]
        cdef int count = fields_of(member, found)
        if count >= 0:
            self._learn(home_of(guild_id, user_id), words_of(found, count, False))
            self._has_room()

    def learn_user(self, uint64_t user_id, bytes user not None):
        cdef Field found[MOST]
        cdef int count = fields_of(user, found)
        if count >= 0:
            self._learn(home_of(OF_USER, user_id), words_of(found, count, True))
            self._has_room()

    def learn_members(self, uint64_t guild_id, list ids not None, list raws not None, bint fresh):
        cdef Field found[MOST]
        cdef Field user[MOST]
        cdef Part inside = part_called(b"user", 4, user)
        cdef int count
        cdef uint64_t user_id, words
        cdef Py_buffer view
        cdef bint learns
        for number in range(len(ids)):
            user_id = ids[number]
            learns = self._has_room()
            if not learns and not self.any:
                continue
            if not fresh:
                self._forget(home_of(guild_id, user_id))
            PyObject_GetBuffer(raws[number], &view, PyBUF_SIMPLE)
            try:
                count = fields_in(<const char *>view.buf, view.len, found, &inside, 1)
                # Of what is odd nothing is known.
                inside.count = inside.count if count >= 0 else -1
                words = words_of(user, inside.count, True)
                if inside.count < 0 or not self._known(home_of(WHOLE_USER, user_id), words):
                    self._forget(home_of(OF_USER, user_id))
                    self._forget(home_of(WHOLE_USER, user_id))
                    if learns and inside.count >= 0:
                        self._learn(home_of(OF_USER, user_id), words)
                        self._learn(home_of(WHOLE_USER, user_id), words)
                if learns and inside.count >= 0:
                    self._learn(home_of(guild_id, user_id), words_of(found, count, False))
            finally:
                PyBuffer_Release(&view)

    def forget_member(self, uint64_t guild_id, uint64_t user_id):
        self._forget(home_of(guild_id, user_id))

    def forget_user(self, uint64_t user_id):
        self._forget(home_of(OF_USER, user_id))
        self._forget(home_of(WHOLE_USER, user_id))

    def forget_all(self):
        cdef uint64_t places = plain.LEAST_PRINTS
        PyMem_Free(self._prints)
        PyMem_Free(self._former)
        self._former = NULL
        self._prints = <uint64_t *>PyMem_Calloc(places, sizeof(uint64_t))
        if self._prints == NULL:
            raise MemoryError
        self._mask = places - WAYS
        self._taken = 0
        self.any = False


# Tables, kinds and keys as `cache.entity_store` has them: guild's number, kind, user.
cdef enum:
    KEY_SIZE = 13
    PRESENCES = 11
    VOICE_STATES = 12
    ROWS = 4
    PRESENCE = 11
    VOICE_STATE = 10
    THREAD = 3
    MEMBER = 1
    FOLD_EVERY = 32

# `cache.entity_store` compares them with its own when it is imported.
NUMBERS = {
    "KEY_SIZE": KEY_SIZE,
    "ROWS": ROWS,
    "PRESENCES": PRESENCES,
    "VOICE_STATES": VOICE_STATES,
    "PRESENCE": PRESENCE,
    "VOICE_STATE": VOICE_STATE,
    "THREAD": THREAD,
    "MEMBER": MEMBER,
    "FOLD_EVERY": FOLD_EVERY,
}


cdef bytes key_of(uint64_t number, int kind, uint64_t user_id):
    cdef bytes key = PyBytes_FromStringAndSize(NULL, KEY_SIZE)
    cdef char *out = PyBytes_AS_STRING(key)
    cdef int at
    for at in range(4):
        out[at] = <char>(number >> (24 - 8 * at) & 255)
    out[4] = <char>kind
    for at in range(8):
        out[5 + at] = <char>(user_id >> (56 - 8 * at) & 255)
    return key


cdef bint message_in(bytes d, uint64_t *channel_id, uint64_t *message_id) noexcept:
    """A message's channel and id; False when the plain form should look at it."""
    cdef Field found[MOST]
    cdef int count = fields_of(d, found), at
    channel_id[0], message_id[0] = 0, 0
    for at in range(count):
        if is_called(&found[at], b"id", 2):
            message_id[0] = id_in(&found[at])
        elif is_called(&found[at], b"channel_id", 10):
            channel_id[0] = id_in(&found[at])
    return channel_id[0] != 0 and message_id[0] != 0


cdef class CacheFastPath:
    cdef dict _positions, _reducers, _numbers
    cdef set _dirty
    cdef list _waiting
    cdef object _writer, _take, _entity_store
    cdef SeenFingerprints _fingerprints
    cdef bint _presences, _voices, _voice_members, _messages, _deletes, _members, _authors, _interactions, _reactions

    def __init__(self, take not None):
        self._take = take

    def connect(self, parts, list waiting not None):
        self._positions, self._dirty, self._reducers = parts.positions, parts.dirty, parts.reducers
        self._writer, self._numbers, self._fingerprints = parts.writer, parts.writer.numbers, parts.writer.fingerprints
        self._entity_store = parts.writer.entity_store
        self._presences, self._messages, self._deletes = parts.presences, parts.messages, parts.deletes
        self._members, self._interactions = parts.members, parts.interactions
        self._voices, self._voice_members = parts.voices, parts.voice_members
        self._authors, self._reactions = parts.authors, parts.reactions
        self._waiting = waiting

    def apply(self, shard_id, seq, str name not None, d):
        cdef bint done
        if self._writer is None or seq <= self._positions.get(shard_id, 0):
            return self._take(shard_id, seq, name, d)
        if name not in self._reducers:
            self._positions[shard_id] = seq
            return None
        if type(d) is not bytes:
            d = bytes(d)
        if memchr(PyBytes_AS_STRING(d), c'\n', PyBytes_GET_SIZE(d)) != NULL:
            return self._take(shard_id, seq, name, d)
        if name == "PRESENCE_UPDATE":
            done = self._presences and self._presence(<bytes>d)
        elif name == "MESSAGE_CREATE":
            done = self._messages and self._message(<bytes>d)
        elif name == "TYPING_START":
            done = self._authors and self._fingerprints._carried(<bytes>d, False)
        elif name == "VOICE_STATE_UPDATE":
            done = self._voices and self._voice(<bytes>d)
        elif name == "MESSAGE_REACTION_ADD":
            done = self._reactions and self._fingerprints._carried(<bytes>d, False)
        elif name == "GUILD_MEMBER_UPDATE":
            done = self._members and self._member(<bytes>d)
        elif name == "MESSAGE_DELETE":
            done = self._deletes and self._delete(<bytes>d)
        elif name == "INTERACTION_CREATE":
            done = self._interactions and self._fingerprints._used(<bytes>d)
        else:
            done = False
        if not done:
            return self._take(shard_id, seq, name, d)
        self._positions[shard_id] = seq
        self._dirty.add(shard_id)
        return None

    cdef bint _presence(self, bytes d) except -1:
        """Store a presence whose user has nothing but an id."""
        cdef uint64_t guild_id, user_id
        cdef bint offline, named
        if not presence_in(d, &guild_id, &user_id, &offline, &named) or named or not is_sound(d):
            return False
        number = self._numbers.get(guild_id)
        if number is None:
            return False
        (<dict>self._waiting[PRESENCES])[key_of(number, PRESENCE, user_id)] = None if offline else d
        return True

    cdef bint _voice(self, bytes d) except -1:
        """Store a voice state whose member is the one that is known."""
        cdef Field found[MOST]
        cdef char left_out[MOST]
        cdef int count = fields_of(d, found), at
        cdef uint64_t guild_id = 0, user_id = 0
        cdef bint member = False, channel = False, left = False
        for at in range(count):
            left_out[at] = False
            if is_called(&found[at], b"guild_id", 8):
                guild_id = id_in(&found[at])
                left_out[at] = True
            elif is_called(&found[at], b"user_id", 7):
                user_id = id_in(&found[at])
            elif is_called(&found[at], b"member", 6):
                left_out[at] = member = True
            elif is_called(&found[at], b"channel_id", 10):
                channel = id_in(&found[at]) != 0
                left = is_null(&found[at])
        if not guild_id or not user_id or channel == left or not is_sound(d):
            return False
        number = self._numbers.get(guild_id)
        if number is None or (member and self._voice_members and not self._fingerprints._carried(d, True)):
            return False
        (<dict>self._waiting[VOICE_STATES])[key_of(number, VOICE_STATE, user_id)] = (
            None if left else joined(found, count, left_out)
        )
        return True

    cdef bint _member(self, bytes d) except -1:
        """Store what a member's own event says of a member that is kept, if its user is known as it is."""
        cdef Field found[MOST]
        cdef Field user[MOST]
        cdef char left_out[MOST]
        cdef Part inside = part_called(b"user", 4, user)
        cdef int count = fields_of(d, found, &inside, 1), at
        cdef uint64_t guild_id = 0, user_id, home, words
        cdef SeenFingerprints fingerprints = self._fingerprints
        cdef bytes kept, new
        for at in range(count):
            left_out[at] = is_called(&found[at], b"user", 4)
            if is_called(&found[at], b"guild_id", 8):
                guild_id = id_in(&found[at])
                left_out[at] = True
        if not guild_id or inside.count < 0 or repeats(found, count):
            return False
        user_id = id_of(user, inside.count)
        if not user_id or not fingerprints._known(home_of(OF_USER, user_id), words_of(user, inside.count, True)):
            return False
        home = home_of(guild_id, user_id)
        words = words_of(found, count, False)
        for at in range(count):
            if is_called(&found[at], b"guild_id", 8):
                words -= hash_of(&found[at])
        if fingerprints._known(home, words):
            return True
        number = self._numbers.get(guild_id)
        if number is None or not is_sound(d):
            return False
        try:
            fetched = <tuple>self._entity_store.fetch(number, MEMBER, user_id)
        except Exception:
            # As for a message: nothing was changed.
            return False
        if fetched[0] is None:
            return False
        if fetched[1]:
            # A row over its page: now and then the page takes its rows in, which is the general path's to do.
            if (self._entity_store.new_rows + 1) % FOLD_EVERY == 0:
                return False
        kept = fetched[0]
        new = merged(kept, joined(found, count, left_out))
        if new is not kept:
            (<dict>self._waiting[ROWS])[key_of(number, MEMBER, user_id)] = new
            if fetched[1]:
                self._entity_store.new_rows += 1
            fingerprints._forget(home)
            if self._voice_members:
                fingerprints.learn_member(guild_id, user_id, new)
        return True

    cdef bint _delete(self, bytes d) except -1:
        """Pass a deleted message over, which is not counted anywhere: none of a thread."""
        cdef uint64_t channel_id, message_id
        if not message_in(d, &channel_id, &message_id):
            return False
        place = (<dict>self._writer.channels).get(channel_id)
        return place is not None and (<tuple>place)[1] != THREAD

    cdef bint _message(self, bytes d) except -1:
        """Note a channel's newest message, and count it in a thread, if its author and member are known as they are."""
        cdef uint64_t channel_id, message_id
        cdef int counts
        cdef tuple tip
        if self._authors:
            if not self._fingerprints._message(d, &channel_id, &message_id, True):
                return False
        elif not message_in(d, &channel_id, &message_id):
            return False
        channel = channel_id
        tips = <dict>self._writer.tips
        try:
            place = (<dict>self._writer.channels).get(channel) or self._writer.place_of(channel)
            if place is None:
                return False
            # The message that began a thread has the thread's id and does not count.
            counts = (<tuple>place)[1] == THREAD and message_id != channel_id
            tip = tips.get(channel)
            if tip is None:
                self._writer.tip(channel, message_id, counts, counts)
                return True
        except Exception:
            # The store cannot be read, and nothing was changed: the general path meets the same fault and says it.
            return False
        if counts:
            tips[channel] = (max(message_id, <uint64_t>tip[0]), tip[1] + 1, tip[2] + 1)
        elif message_id > <uint64_t>tip[0]:
            tips[channel] = (message_id, tip[1], tip[2])
        (<set>self._writer.fresh_tips).add(channel)
        return True
