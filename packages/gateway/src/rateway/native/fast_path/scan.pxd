# cython: language_level=3
# How ``rateway_protocol.discord.delimit`` finds the end of a JSON value, in C, for the compiled modules that need it.
# Each function is given the place where something begins, and answers with the byte after it; NULL when that cannot be
# found. At *end* is the zero that ends all bytes of Python's.

from libc.stdint cimport uint64_t

ctypedef const unsigned char* text

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif
    /* Containers in containers; the kinds of those that are open are bits of a word. */
    #define rateway_deepest 60
    /* What a container's end is looked for by: 1 a string, 2 an opening bracket, 3 a closing one, 4 perhaps the end of
       the text; 0 is passed over. */
    static const unsigned char rateway_kind_of[256] = {
        [0] = 4, ['"'] = 1, ['['] = 2, ['{'] = 2, [']'] = 3, ['}'] = 3,
    };
    /* The first quote or backslash from `at` on, with `controls` also the first byte below 0x20; `end` without one. */
    static inline const unsigned char *rateway_next_mark(
        const unsigned char *at, const unsigned char *end, int controls
    ) {
    #ifdef __SSE2__
        const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\\\'), control = _mm_set1_epi8(0x1f);
        while (end - at >= 16) {
            __m128i read = _mm_loadu_si128((const __m128i *)at);
            __m128i found = _mm_or_si128(_mm_cmpeq_epi8(read, quote), _mm_cmpeq_epi8(read, slash));
            if (controls) found = _mm_or_si128(found, _mm_cmpeq_epi8(_mm_min_epu8(read, control), read));
            int mask = _mm_movemask_epi8(found);
            if (mask) return at + __builtin_ctz(mask);
            at += 16;
        }
    #else
        /* Of the bits that are set only the lowest is sure to be a mark: a borrow may have set those above it. */
        const uint64_t ones = 0x0101010101010101;
        while (end - at >= 8) {
            uint64_t word, quotes, slashes, found;
            memcpy(&word, at, 8);
            quotes = word ^ (ones * '"');
            slashes = word ^ (ones * '\\\\');
            found = ((quotes - ones) & ~quotes) | ((slashes - ones) & ~slashes);
            if (controls) found |= (word - ones * 0x20) & ~word;
            if (found & (ones << 7)) break;
            at += 8;
        }
    #endif
        while (at < end && *at != '"' && *at != '\\\\' && !(controls && *at < 0x20)) at++;
        return at;
    }
    """
    const int DEEPEST "rateway_deepest"
    const unsigned char[256] kind_of "rateway_kind_of"
    text next_mark "rateway_next_mark"(text at, text end, bint controls) noexcept nogil


cdef inline text after_space(text at) noexcept nogil:
    # Discord puts no space anywhere: one comparison, then.
    while at[0] <= c' ' and (at[0] == c' ' or at[0] == c'\n' or at[0] == c'\r' or at[0] == c'\t'):
        at += 1
    return at


cdef inline text after_string(text at, text end) noexcept nogil:
    """*at*: after the opening quote."""
    while True:
        at = next_mark(at, end, False)
        if at >= end:
            return NULL
        if at[0] == c'"':
            return at + 1
        # The byte after a backslash ends no string.
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
