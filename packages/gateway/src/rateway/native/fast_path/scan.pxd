# cython: language_level=3
# How ``rateway_protocol.discord.delimit`` finds the end of a JSON value, in C, for the compiled modules that need it.
# Each function is given the place where something begins, and answers with the byte after it; NULL when that cannot be
# found. At *end* is the zero that ends all bytes of Python's.

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    /* Containers in containers; the kinds of those that are open are bits of a word. */
    #define rateway_deepest 60
    #define rateway_lowest_first (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
    /* What a container's end is looked for by: 1 a string, 2 an opening bracket, 3 a closing one, 4 perhaps the end of
       the text; 0 is passed over. */
    static const unsigned char rateway_kind_of[256] = {
        [0] = 4, ['"'] = 1, ['['] = 2, ['{'] = 2, [']'] = 3, ['}'] = 3,
    };
    """
    const bint lowest_first "rateway_lowest_first"
    const int DEEPEST "rateway_deepest"
    const unsigned char[256] kind_of "rateway_kind_of"
    int trailing_zeros "__builtin_ctzll"(unsigned long long) noexcept nogil

ctypedef const unsigned char* text

cdef enum:
    # A byte in each of eight.
    ONES = 0x0101010101010101


cdef inline text after_space(text at) noexcept nogil:
    # Discord puts no space anywhere: one comparison, then.
    while at[0] <= c' ' and (at[0] == c' ' or at[0] == c'\n' or at[0] == c'\r' or at[0] == c'\t'):
        at += 1
    return at


cdef inline text after_string(text at, text end) noexcept nogil:
    """*at*: after the opening quote."""
    cdef uint64_t word, quotes, slashes, found
    while True:
        # Eight bytes at once, as long as none of them is a quote or a backslash. (Of the bits that are set only the
        # lowest is sure to be one: a borrow may have set those above it.)
        while end - at >= 8:
            memcpy(&word, at, 8)
            quotes = word ^ (<uint64_t>ONES * c'"')
            slashes = word ^ (<uint64_t>ONES * c'\\')
            found = (
                ((quotes - <uint64_t>ONES) & ~quotes) | ((slashes - <uint64_t>ONES) & ~slashes)
            ) & (<uint64_t>ONES << 7)
            if found:
                if lowest_first:
                    at += trailing_zeros(found) >> 3
                break
            at += 8
        while at < end and at[0] != c'"' and at[0] != c'\\':
            at += 1
        if at >= end:
            return NULL
        if at[0] == c'"':
            return at + 1
        # What a backslash stands before is no quote; then eight at once again.
        at += 2


cdef inline bint in_word(unsigned char byte) noexcept nogil:
    return (
        c'0' <= byte <= c'9' or c'a' <= (byte | 0x20) <= c'z' or byte == c'-' or byte == c'.' or byte == c'+'
    )


cdef inline text after_value(text at, text end) noexcept nogil:
    """NULL also for containers in containers beyond DEEPEST."""
    # The innermost container's bit is the lowest: 1 for an object.
    cdef uint64_t objects = 0
    cdef int depth = 0
    cdef unsigned char kind
    cdef text begin = at
    if at[0] == c'"':
        return after_string(at + 1, end)
    if at[0] != c'{' and at[0] != c'[':
        while in_word(at[0]):
            at += 1
        return at if at != begin else NULL
    while True:
        # A string is followed by one byte before the next, as a rule.
        if at[0] == c'"':
            at = after_string(at + 1, end)
            if at == NULL:
                return NULL
            if at[0] == c':' or at[0] == c',':
                at += 1
            continue
        kind = kind_of[at[0]]
        if kind == 0:
            at += 1
            while kind_of[at[0]] == 0:
                at += 1
        elif kind == 2:
            if depth == DEEPEST:
                return NULL
            depth += 1
            objects = objects << 1 | (at[0] == c'{')
            at += 1
        elif kind == 3:
            if (objects & 1) != (at[0] == c'}'):
                return NULL
            at += 1
            depth -= 1
            if depth == 0:
                return at
            objects >>= 1
        else:
            if at >= end:
                return NULL
            at += 1
