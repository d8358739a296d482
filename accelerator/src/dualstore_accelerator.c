/* Transcodes DynamoDB-JSON into the text format of PostgreSQL's COPY.
 *
 * The compiled twin of dualstore.mapping.transcoding.pure: for every input both answer the same bytes and
 * decline the same items. The same property tests hold both. What is not surely an item that this code writes
 * as TableMapping.encode would, it declines; the exact path in Python takes such items on.
 *
 * Safety. Input is only read between `at` and `end` of a Cursor, and every read is preceded by a comparison
 * with `end`. Output is only written through `reserve`. Recursion ends after MAX_LEVELS. No pointer into the
 * output outlives a `reserve`: spans are offsets. Nothing here keeps a reference to the input.
 */

#include "binary_rows.h" /* before the others: these include Python.h */
#include "fingerprints.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INTERFACE 5 /* dualstore.mapping.transcoding.accelerated asks for exactly this one */

enum { MAX_LEVELS = 32, STAMP_SIZE = 16, MOMENT_SIZE = 31, FEW_MEMBERS = 16 };

/* The numbers of dualstore.mapping.transcoding.forms.Form. */
typedef enum {
    FORM_TEXT, FORM_NUMERIC, FORM_DECIMAL, FORM_INTEGER, FORM_BOOLEAN, FORM_BINARY, FORM_MOMENT,
    FORM_JSON, FORM_TEXTS, FORM_NUMBERS, FORM_CALLED, FORMS
} Form;

typedef enum { TAG_S, TAG_N, TAG_B, TAG_BOOL, TAG_NULL, TAG_SS, TAG_NS, TAG_BS, TAG_L, TAG_M, TAG_NONE } Tag;

static const char *const TAG_NAMES[] = {"S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"};

/* What became of a value. */
typedef enum {
    DONE,
    DECLINED, /* not surely valid */
    UNFIT,    /* valid as far as it was read, but not for this column: the overflow holds it */
    FAILED    /* out of memory, or Python raised */
} Outcome;

#define TRY(expression)                     \
    do {                                    \
        Outcome outcome_ = (expression);    \
        if (outcome_ != DONE) return outcome_; \
    } while (0)

typedef struct {
    const unsigned char *at, *end;
} Cursor;

typedef struct {
    const unsigned char *start;
    size_t size;
} View;

typedef struct {
    unsigned char *bytes;
    size_t size, capacity;
} Buffer;

typedef struct {
    char *attribute, *opening; /* `"attribute":{"type":`, as DynamoDB writes it before a content */
    size_t attribute_size, opening_size; /* no opening where the name has to be escaped */
    Tag type;
    Form form;
    long limit, scale, key_bytes;
    PyObject *call;
} Column;

/* A member of an item that no column holds. */
typedef struct {
    const unsigned char *name, *value, *end; /* at its opening quote; its first byte; behind its last */
} Member;

typedef struct {
    size_t start, size; /* in the output */
} Span;

/* What an item has for a column. */
typedef struct {
    enum { ABSENT, LEFT, WRITTEN } state; /* LEFT: it is there, but the overflow holds it */
    Span text;                            /* where it is WRITTEN */
} Field;

/* What one call works with. */
typedef struct {
    const Column *columns;
    Py_ssize_t column_count;
    Field *fields; /* of the item, by column */
    Py_ssize_t written; /* how many of them */
    int in_order; /* whether the first columns were written, in their order, and no others */
    Py_ssize_t *followers; /* by column and one: which came behind it in an item before; the first, which came first */
    Buffer out, scratch;
    Member *members;
    size_t member_count, member_capacity;
    Span *spans;
    size_t span_count, span_capacity;
    uint32_t *slots;
    size_t slot_capacity;
    Py_ssize_t *declined;
    size_t declined_count, declined_capacity;
} Work;

/* Memory */

static int grow(void **items, size_t *capacity, size_t wanted, size_t size_of_one) {
    size_t more = *capacity + *capacity / 2 + 16;
    if (more < wanted) more = wanted;
    if (more > SIZE_MAX / size_of_one) return 0;
    void *moved = realloc(*items, more * size_of_one);
    if (moved == NULL) return 0;
    *items = moved;
    *capacity = more;
    return 1;
}

static inline int reserve(Buffer *buffer, size_t size) {
    if (buffer->capacity - buffer->size >= size) return 1;
    if (size > SIZE_MAX - buffer->size) return 0;
    return grow((void **)&buffer->bytes, &buffer->capacity, buffer->size + size, 1);
}

static inline Outcome put(Buffer *buffer, const void *bytes, size_t size) {
    if (size == 0) return DONE; /* `bytes` may be NULL then */
    if (!reserve(buffer, size)) return FAILED;
    memcpy(buffer->bytes + buffer->size, bytes, size);
    buffer->size += size;
    return DONE;
}

#define PUT(buffer, literal) put(buffer, literal, sizeof(literal) - 1)

/* JSON's punctuation */

static inline void skip_space(Cursor *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\n' || *in->at == '\r' || *in->at == '\t')) in->at++;
}

static inline int take(Cursor *in, unsigned char wanted) {
    if (in->at < in->end && *in->at == wanted) {
        in->at++;
        return 1;
    }
    skip_space(in);
    if (in->at < in->end && *in->at == wanted) {
        in->at++;
        return 1;
    }
    return 0;
}

static int take_word(Cursor *in, const char *word, size_t size) {
    skip_space(in);
    if ((size_t)(in->end - in->at) < size || memcmp(in->at, word, size) != 0) return 0;
    in->at += size;
    return 1;
}

static inline int is_plain(unsigned char c) {
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* How many of eight bytes from here are plain before the first that is not. */
static inline size_t plain_of_eight(const unsigned char *at) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t ones = 0x0101010101010101ULL, highs = 0x8080808080808080ULL;
    uint64_t eight;
    memcpy(&eight, at, 8);
    uint64_t quotes = eight ^ (ones * '"'), slashes = eight ^ (ones * '\\');
    uint64_t odd = ((quotes - ones) & ~quotes) | ((slashes - ones) & ~slashes) | (eight - ones * 0x20) | eight;
    /* Borrows only go upwards: the lowest byte that is marked is marked for itself. */
    return odd & highs ? (size_t)__builtin_ctzll(odd & highs) / 8 : 8;
#else
    size_t plain = 0;
    while (plain < 8 && is_plain(at[plain])) plain++;
    return plain;
#endif
}

/* How many bytes from here are neither a quote, a backslash, a control character nor beyond ASCII. */
static inline size_t plain_run(const unsigned char *at, const unsigned char *end) {
    const unsigned char *start = at;
    while (end - at >= 8) {
        size_t plain = plain_of_eight(at);
        at += plain;
        if (plain < 8) return (size_t)(at - start);
    }
    while (at < end && is_plain(*at)) at++;
    return (size_t)(at - start);
}

/* Copies such a run while it is looked for. Eight bytes are copied each time; what is behind the run is written over
 * by what comes next. */
static inline Outcome put_plain_run(Cursor *in, Buffer *out, size_t *size) {
    const unsigned char *start = in->at;
    size_t plain = 8;
    while (plain == 8 && in->end - in->at >= 8) {
        if (!reserve(out, 8)) return FAILED;
        memcpy(out->bytes + out->size, in->at, 8);
        plain = plain_of_eight(in->at);
        in->at += plain;
        out->size += plain;
    }
    if (plain == 8) {
        size_t rest = plain_run(in->at, in->end);
        TRY(put(out, in->at, rest));
        in->at += rest;
    }
    *size = (size_t)(in->at - start);
    return DONE;
}

/* The size of the UTF-8 character that starts here, 0 where none does (RFC 3629, 4). */
static size_t character_size(const unsigned char *at, const unsigned char *end) {
    size_t left = (size_t)(end - at);
#define TAIL(number) ((at[number] & 0xC0) == 0x80)
    if (at[0] < 0xC2) return 0;
    if (at[0] < 0xE0) return left >= 2 && TAIL(1) ? 2 : 0;
    if (at[0] < 0xF0) {
        if (left < 3 || !TAIL(1) || !TAIL(2)) return 0;
        if (at[0] == 0xE0 && at[1] < 0xA0) return 0;
        if (at[0] == 0xED && at[1] > 0x9F) return 0; /* surrogates */
        return 3;
    }
    if (at[0] > 0xF4 || left < 4 || !TAIL(1) || !TAIL(2) || !TAIL(3)) return 0;
    if (at[0] == 0xF0 && at[1] < 0x90) return 0;
    if (at[0] == 0xF4 && at[1] > 0x8F) return 0;
    return 4;
#undef TAIL
}

/* Strings */

typedef enum {
    AS_UTF8,  /* as they are */
    AS_FIELD, /* a field of COPY text; U+0000 and U+0001 escaped by dualstore, as in the next two */
    AS_JSON,  /* between the quotes of a JSON string that is in a field */
    AS_MEMBER /* between the quotes of an array's element that is in a field */
} Style;

static int hexadecimal(const unsigned char *at, uint32_t *value) {
    *value = 0;
    for (int digit = 0; digit < 4; digit++) {
        unsigned char c = at[digit];
        uint32_t nibble;
        if (c >= '0' && c <= '9') nibble = c - '0';
        else if (c >= 'a' && c <= 'f') nibble = c - 'a' + 10;
        else if (c >= 'A' && c <= 'F') nibble = c - 'A' + 10;
        else return 0;
        *value = *value << 4 | nibble;
    }
    return 1;
}

/* The character behind a backslash. */
static int take_escape(Cursor *in, uint32_t *character) {
    if (in->end - in->at < 2) return 0;
    unsigned char kind = in->at[1];
    in->at += 2;
    switch (kind) {
        case '"': case '\\': case '/': *character = kind; return 1;
        case 'b': *character = '\b'; return 1;
        case 'f': *character = '\f'; return 1;
        case 'n': *character = '\n'; return 1;
        case 'r': *character = '\r'; return 1;
        case 't': *character = '\t'; return 1;
        case 'u': break;
        default: return 0;
    }
    if (in->end - in->at < 4 || !hexadecimal(in->at, character)) return 0;
    in->at += 4;
    if (*character < 0xD800 || *character > 0xDFFF) return 1;
    uint32_t low;
    if (*character > 0xDBFF || in->end - in->at < 6 || in->at[0] != '\\' || in->at[1] != 'u') return 0;
    if (!hexadecimal(in->at + 2, &low) || low < 0xDC00 || low > 0xDFFF) return 0;
    in->at += 6;
    *character = 0x10000 + ((*character - 0xD800) << 10) + (low - 0xDC00);
    return 1;
}

static size_t utf8(uint32_t character, unsigned char *bytes) {
    if (character < 0x80) {
        bytes[0] = (unsigned char)character;
        return 1;
    }
    if (character < 0x800) {
        bytes[0] = (unsigned char)(0xC0 | character >> 6);
        bytes[1] = (unsigned char)(0x80 | (character & 0x3F));
        return 2;
    }
    if (character < 0x10000) {
        bytes[0] = (unsigned char)(0xE0 | character >> 12);
        bytes[1] = (unsigned char)(0x80 | (character >> 6 & 0x3F));
        bytes[2] = (unsigned char)(0x80 | (character & 0x3F));
        return 3;
    }
    bytes[0] = (unsigned char)(0xF0 | character >> 18);
    bytes[1] = (unsigned char)(0x80 | (character >> 12 & 0x3F));
    bytes[2] = (unsigned char)(0x80 | (character >> 6 & 0x3F));
    bytes[3] = (unsigned char)(0x80 | (character & 0x3F));
    return 4;
}

/* A character that was escaped in the input; in no style do more than 16 bytes come of it. */
static Outcome put_character(Buffer *out, uint32_t character, Style style) {
    static const char HEX[] = "0123456789abcdef";
    if (!reserve(out, 16)) return FAILED;
    unsigned char *to = out->bytes + out->size;
    size_t size = 0;
    if (style != AS_UTF8 && character < 2) { /* dualstore's own escape: two characters, both control characters */
        if (style == AS_JSON) {
            memcpy(to, "\\\\u0001\\\\u000", 13);
            to[13] = (unsigned char)('1' + character);
            size = 14;
        } else {
            to[0] = 1;
            to[1] = (unsigned char)(1 + character);
            size = 2;
        }
        out->size += size;
        return DONE;
    }
    switch (style) {
        case AS_UTF8:
            break;
        case AS_FIELD:
        case AS_MEMBER:
            if (character == '\n' || character == '\r' || character == '\t') {
                to[0] = '\\';
                to[1] = character == '\n' ? 'n' : character == '\r' ? 'r' : 't';
                size = 2;
            } else if (character == '\\') {
                size = style == AS_FIELD ? 2 : 4;
                memset(to, '\\', size);
            } else if (character == '"' && style == AS_MEMBER) {
                memcpy(to, "\\\\\"", size = 3);
            }
            break;
        case AS_JSON:
            if (character == '\\') {
                memset(to, '\\', size = 4);
            } else if (character == '"') {
                memcpy(to, "\\\\\"", size = 3);
            } else if (character < 0x20) {
                to[0] = to[1] = '\\';
                size = 3;
                switch (character) {
                    case '\b': to[2] = 'b'; break;
                    case '\f': to[2] = 'f'; break;
                    case '\n': to[2] = 'n'; break;
                    case '\r': to[2] = 'r'; break;
                    case '\t': to[2] = 't'; break;
                    default:
                        memcpy(to + 2, "u00", 3);
                        to[5] = (unsigned char)HEX[character >> 4];
                        to[6] = (unsigned char)HEX[character & 15];
                        size = 7;
                }
            }
            break;
    }
    out->size += size ? size : utf8(character, to);
    return DONE;
}

typedef struct {
    size_t characters; /* of the stored text */
    size_t bytes;      /* of the string in UTF-8 */
} Length;

/* Read a string, quotes included, and write it without them. */
static Outcome put_string(Cursor *in, Buffer *out, Style style, Length *length) {
    Length counted = {0, 0};
    if (!take(in, '"')) return DECLINED;
    for (;;) {
        size_t run;
        TRY(put_plain_run(in, out, &run));
        counted.characters += run;
        counted.bytes += run;
        if (in->at >= in->end) return DECLINED;
        if (*in->at == '"') break;
        if (*in->at == '\\') {
            uint32_t character;
            unsigned char encoded[4];
            if (!take_escape(in, &character)) return DECLINED;
            TRY(put_character(out, character, style));
            counted.characters += character < 2 ? 2 : 1;
            counted.bytes += utf8(character, encoded);
            continue;
        }
        size_t size = *in->at < 0x80 ? 0 : character_size(in->at, in->end);
        if (size == 0) return DECLINED; /* a control character, or not UTF-8 */
        TRY(put(out, in->at, size));
        in->at += size;
        counted.characters += 1;
        counted.bytes += size;
    }
    in->at++;
    if (length != NULL) *length = counted;
    return DONE;
}

/* Read a string to look at. The view ends with the next call. */
static Outcome view_string(Work *work, Cursor *in, View *view) {
    if (!take(in, '"')) return DECLINED;
    size_t run = plain_run(in->at, in->end);
    if (in->at + run < in->end && in->at[run] == '"') {
        *view = (View){in->at, run};
        in->at += run + 1;
        return DONE;
    }
    in->at--; /* back to the quote, which `take` left right behind it */
    work->scratch.size = 0;
    TRY(put_string(in, &work->scratch, AS_UTF8, NULL));
    *view = (View){work->scratch.bytes, work->scratch.size};
    return DONE;
}

static inline int equals(View view, const char *text, size_t size) {
    return view.size == size && (size == 0 || memcmp(view.start, text, size) == 0);
}

static inline Tag tag_of_letter(unsigned char letter) {
    switch (letter) {
        case 'S': return TAG_S;
        case 'N': return TAG_N;
        case 'B': return TAG_B;
        case 'L': return TAG_L;
        case 'M': return TAG_M;
        default: return TAG_NONE;
    }
}

static Tag tag_named(View view) {
    if (view.size == 1) return tag_of_letter(view.start[0]);
    for (int each = 0; each < TAG_NONE; each++)
        if (equals(view, TAG_NAMES[each], strlen(TAG_NAMES[each]))) return (Tag)each;
    return TAG_NONE;
}

static Outcome take_tag(Work *work, Cursor *in, Tag *tag) {
    View view;
    const unsigned char *at = in->at;
    if (in->end - at >= 5 && at[0] == '{' && at[1] == '"' && at[3] == '"' && at[4] == ':') { /* most are so */
        *tag = tag_of_letter(at[2]);
        if (*tag != TAG_NONE) {
            in->at += 5;
            skip_space(in);
            return DONE;
        }
    }
    if (!take(in, '{')) return DECLINED;
    skip_space(in);
    TRY(view_string(work, in, &view));
    if (!take(in, ':')) return DECLINED;
    *tag = tag_named(view);
    skip_space(in);
    return DONE;
}

/* Behind a value that starts with a bracket, NULL where it does not end. Its inside is not looked at closely. */
static const unsigned char *behind(const unsigned char *at, const unsigned char *end) {
    size_t depth = 0;
    while (at < end) {
        switch (*at) {
            case '"':
                at++;
                for (;;) {
                    at += plain_run(at, end);
                    if (at >= end) return NULL;
                    if (*at == '"') break;
                    if (*at == '\\') at++;
                    if (at >= end) return NULL;
                    at++;
                }
                break;
            case '{': case '[':
                depth++;
                break;
            case '}': case ']':
                if (depth == 0) return NULL;
                if (--depth == 0) return at + 1;
                break;
            default:
                break;
        }
        at++;
    }
    return NULL;
}

/* Numbers */

typedef struct {
    size_t before, behind; /* digits; a lone zero before the point counts for none */
} Digits;

/* A numeral as dualstore.mapping.transcoding.documents.is_numeral has it. */
static int is_numeral(View view, Digits *digits) {
    const unsigned char *at = view.start, *end = view.start + view.size;
    int negative = at < end && *at == '-';
    at += negative;
    if (at >= end) return 0;
    const unsigned char *first = at;
    while (at < end && *at >= '0' && *at <= '9') at++;
    size_t before = (size_t)(at - first);
    if (before == 0 || (*first == '0' && before > 1)) return 0;
    digits->before = *first == '0' ? 0 : before;
    digits->behind = 0;
    if (at == end) return *first == '0' ? !negative : before <= 37;
    if (before > 18 || *at != '.') return 0;
    const unsigned char *fraction = ++at;
    while (at < end && *at >= '0' && *at <= '9') at++;
    digits->behind = (size_t)(at - fraction);
    return at == end && digits->behind >= 1 && digits->behind <= 18 && at[-1] != '0';
}

static Outcome take_numeral(Work *work, Cursor *in, View *view, Digits *digits) {
    TRY(view_string(work, in, view));
    return is_numeral(*view, digits) ? DONE : DECLINED;
}

static int fits_bits(View view, long bits) {
    const unsigned char *at = view.start, *end = view.start + view.size;
    int negative = *at == '-';
    uint64_t value = 0, limit = (uint64_t)1 << (bits - 1);
    at += negative;
    if (end - at > 19) return 0;
    for (; at < end; at++) value = value * 10 + (uint64_t)(*at - '0'); /* 19 digits fit 64 bits */
    return negative ? value <= limit : value < limit;
}

/* Binary */

static int base64_value(unsigned char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+') return 62;
    if (c == '/') return 63;
    return -1;
}

/* The bytes behind the one base64 text of them; written as hexadecimal digits where `hex` is given. */
static Outcome decode_base64(View view, Buffer *hex, size_t *size) {
    static const char HEX[] = "0123456789abcdef";
    if (view.size % 4 != 0) return DECLINED;
    size_t padding = 0;
    if (view.size) {
        if (view.start[view.size - 1] == '=') padding++;
        if (padding && view.start[view.size - 2] == '=') padding++;
    }
    *size = view.size / 4 * 3 - padding;
    if (hex != NULL && !reserve(hex, *size * 2 + 6)) return FAILED;
    size_t written = 0;
    for (size_t group = 0; group < view.size; group += 4) {
        uint32_t bits = 0;
        size_t absent = group + 4 == view.size ? padding : 0;
        for (size_t place = 0; place < 4; place++) {
            int value = place >= 4 - absent ? 0 : base64_value(view.start[group + place]);
            if (value < 0) return DECLINED;
            bits = bits << 6 | (uint32_t)value;
        }
        if ((absent == 1 && (bits & 0xFF)) || (absent == 2 && (bits & 0xFFFF))) return DECLINED;
        for (size_t byte = 0; byte < 3 - absent && hex != NULL; byte++) {
            unsigned char value = (unsigned char)(bits >> (16 - 8 * byte));
            hex->bytes[hex->size + written++] = (unsigned char)HEX[value >> 4];
            hex->bytes[hex->size + written++] = (unsigned char)HEX[value & 15];
        }
    }
    if (hex != NULL) hex->size += written;
    return DONE;
}

static Outcome put_binary_field(Work *work, Cursor *in, size_t *size) {
    View view;
    TRY(view_string(work, in, &view));
    TRY(PUT(&work->out, "\\\\x"));
    return decode_base64(view, &work->out, size);
}

static Outcome put_binary_text(Work *work, Cursor *in) {
    View view;
    size_t size;
    TRY(view_string(work, in, &view));
    TRY(decode_base64(view, NULL, &size));
    TRY(PUT(&work->out, "\""));
    TRY(put(&work->out, view.start, view.size));
    return PUT(&work->out, "\"");
}

/* Moments */

static int two_digits(const unsigned char *at) {
    return (at[0] - '0') * 10 + (at[1] - '0');
}

static Outcome put_moment(Work *work, Cursor *in, long step, int has_zone) {
    static const char SHAPE[] = "0000-00-00T00:00:00.000000+0000";
    static const int DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    View view;
    TRY(view_string(work, in, &view));
    if (view.size != MOMENT_SIZE) return UNFIT;
    const unsigned char *at = view.start;
    for (int place = 0; place < MOMENT_SIZE; place++) {
        int digit = SHAPE[place] == '0' && place < 27;
        if (digit ? at[place] < '0' || at[place] > '9' : at[place] != (unsigned char)SHAPE[place]) return UNFIT;
    }
    int year = two_digits(at) * 100 + two_digits(at + 2), month = two_digits(at + 5), day = two_digits(at + 8);
    if (year < 1 || month < 1 || month > 12) return UNFIT;
    int leap = month == 2 && ((year % 4 == 0 && year % 100 != 0) || year % 400 == 0);
    if (day < 1 || day > DAYS[month - 1] + leap) return UNFIT;
    if (two_digits(at + 11) > 23 || two_digits(at + 14) > 59 || two_digits(at + 17) > 59) return UNFIT;
    if (year < 2 || year > 9997) return DECLINED;
    long microseconds = (two_digits(at + 20) * 100L + two_digits(at + 22)) * 100L + two_digits(at + 24);
    if (step > 1 && microseconds % step) return UNFIT;
    return put(&work->out, at, has_zone ? MOMENT_SIZE : MOMENT_SIZE - 5);
}

/* Sets */

static Outcome note_member(Work *work, size_t start) {
    if (work->span_count == work->span_capacity &&
        !grow((void **)&work->spans, &work->span_capacity, work->span_count + 1, sizeof(Span)))
        return FAILED;
    work->spans[work->span_count++] = (Span){start, work->out.size - start};
    return DONE;
}

static int same_member(const Work *work, size_t a, size_t b) {
    const Span *left = &work->spans[a], *right = &work->spans[b];
    return left->size == right->size &&
           memcmp(work->out.bytes + left->start, work->out.bytes + right->start, left->size) == 0;
}

/* Whether all members differ; as they are written, which tells them apart as what they say does. */
static Outcome check_distinct(Work *work) {
    size_t count = work->span_count;
    if (count == 0) return DECLINED;
    if (count <= FEW_MEMBERS) {
        for (size_t a = 1; a < count; a++)
            for (size_t b = 0; b < a; b++)
                if (same_member(work, a, b)) return DECLINED;
        return DONE;
    }
    size_t slots = 64;
    while (slots < count * 2) slots *= 2;
    if (count >= UINT32_MAX) return DECLINED;
    if (slots > work->slot_capacity &&
        !grow((void **)&work->slots, &work->slot_capacity, slots, sizeof(uint32_t)))
        return FAILED;
    memset(work->slots, 0, slots * sizeof(uint32_t));
    for (size_t number = 0; number < count; number++) {
        uint64_t hash = 14695981039346656037ULL; /* FNV-1a */
        const Span *span = &work->spans[number];
        for (size_t byte = 0; byte < span->size; byte++)
            hash = (hash ^ work->out.bytes[span->start + byte]) * 1099511628211ULL;
        size_t slot = (size_t)(hash ^ hash >> 32) & (slots - 1);
        while (work->slots[slot]) {
            if (same_member(work, work->slots[slot] - 1, number)) return DECLINED;
            slot = (slot + 1) & (slots - 1);
        }
        work->slots[slot] = (uint32_t)number + 1;
    }
    return DONE;
}

typedef Outcome (*PutMember)(Work *, Cursor *);

static Outcome put_json_string(Work *work, Cursor *in) {
    TRY(PUT(&work->out, "\""));
    TRY(put_string(in, &work->out, AS_JSON, NULL));
    return PUT(&work->out, "\"");
}

static Outcome put_array_text(Work *work, Cursor *in) {
    TRY(PUT(&work->out, "\""));
    TRY(put_string(in, &work->out, AS_MEMBER, NULL));
    return PUT(&work->out, "\"");
}

static Outcome put_numeral(Work *work, Cursor *in) {
    View view;
    Digits digits;
    TRY(take_numeral(work, in, &view, &digits));
    return put(&work->out, view.start, view.size);
}

static Outcome put_numeral_text(Work *work, Cursor *in) {
    TRY(PUT(&work->out, "\""));
    TRY(put_numeral(work, in));
    return PUT(&work->out, "\"");
}

/* The members of a set, between brackets of the output's own. */
static Outcome put_set(Work *work, Cursor *in, PutMember put_member, char open, char close) {
    work->span_count = 0;
    if (!take(in, '[')) return DECLINED;
    TRY(put(&work->out, &open, 1));
    skip_space(in);
    while (!take(in, ']')) {
        if (work->span_count) {
            if (!take(in, ',')) return DECLINED;
            TRY(PUT(&work->out, ","));
        }
        skip_space(in);
        size_t start = work->out.size;
        TRY(put_member(work, in));
        TRY(note_member(work, start));
    }
    TRY(put(&work->out, &close, 1));
    return check_distinct(work);
}

/* Documents */

static Outcome put_truth(Work *work, Cursor *in) {
    if (take_word(in, "true", 4)) return PUT(&work->out, "true");
    if (take_word(in, "false", 5)) return PUT(&work->out, "false");
    return DECLINED;
}

typedef Outcome (*PutValue)(Work *, Cursor *, int levels);

static Outcome put_elements(Work *work, Cursor *in, PutValue put_value, int levels) {
    int first = 1;
    if (!take(in, '[')) return DECLINED;
    TRY(PUT(&work->out, "["));
    while (!take(in, ']')) {
        if (!first) {
            if (!take(in, ',')) return DECLINED;
            TRY(PUT(&work->out, ","));
        }
        first = 0;
        skip_space(in);
        TRY(put_value(work, in, levels));
    }
    return PUT(&work->out, "]");
}

static Outcome put_entries(Work *work, Cursor *in, PutValue put_value, int levels) {
    int first = 1;
    if (!take(in, '{')) return DECLINED;
    TRY(PUT(&work->out, "{"));
    while (!take(in, '}')) {
        if (!first) {
            if (!take(in, ',')) return DECLINED;
            TRY(PUT(&work->out, ","));
        }
        first = 0;
        skip_space(in);
        TRY(put_json_string(work, in));
        if (!take(in, ':')) return DECLINED;
        TRY(PUT(&work->out, ":"));
        skip_space(in);
        TRY(put_value(work, in, levels));
    }
    return PUT(&work->out, "}");
}

/* Plain JSON; UNFIT where binary or a set is in it. */
static Outcome put_plain(Work *work, Cursor *in, int levels) {
    Tag tag;
    if (levels == 0) return DECLINED;
    TRY(take_tag(work, in, &tag));
    switch (tag) {
        case TAG_S: TRY(put_json_string(work, in)); break;
        case TAG_N: TRY(put_numeral(work, in)); break;
        case TAG_BOOL: TRY(put_truth(work, in)); break;
        case TAG_NULL:
            if (!take_word(in, "true", 4)) return DECLINED;
            TRY(PUT(&work->out, "null"));
            break;
        case TAG_L: TRY(put_elements(work, in, put_plain, levels - 1)); break;
        case TAG_M: TRY(put_entries(work, in, put_plain, levels - 1)); break;
        default: return UNFIT;
    }
    return take(in, '}') ? DONE : DECLINED;
}

static Outcome put_typed(Work *work, Cursor *in, int levels);

/* DynamoDB-JSON of a content. */
static Outcome put_typed_content(Work *work, Cursor *in, Tag tag, int levels) {
    switch (tag) {
        case TAG_S: return put_json_string(work, in);
        case TAG_N: return put_numeral_text(work, in);
        case TAG_B: return put_binary_text(work, in);
        case TAG_BOOL: return put_truth(work, in);
        case TAG_NULL:
            if (!take_word(in, "true", 4)) return DECLINED;
            return PUT(&work->out, "true");
        case TAG_SS: return put_set(work, in, put_json_string, '[', ']');
        case TAG_NS: return put_set(work, in, put_numeral_text, '[', ']');
        case TAG_BS: return put_set(work, in, put_binary_text, '[', ']');
        case TAG_L: return put_elements(work, in, put_typed, levels);
        case TAG_M: return put_entries(work, in, put_typed, levels);
        default: return DECLINED;
    }
}

static Outcome put_typed(Work *work, Cursor *in, int levels) {
    Tag tag;
    if (levels == 0) return DECLINED;
    TRY(take_tag(work, in, &tag));
    if (tag == TAG_NONE) return DECLINED;
    TRY(PUT(&work->out, "{\""));
    TRY(put(&work->out, TAG_NAMES[tag], strlen(TAG_NAMES[tag])));
    TRY(PUT(&work->out, "\":"));
    TRY(put_typed_content(work, in, tag, levels - 1));
    if (!take(in, '}')) return DECLINED;
    return PUT(&work->out, "}");
}

/* Fields */

/* Let Python write a field; the content was found valid. */
static Outcome put_called(Work *work, Cursor *in, const Column *column) {
    const unsigned char *start = in->at;
    size_t mark = work->out.size;
    TRY(put_typed_content(work, in, column->type, MAX_LEVELS - 1));
    work->out.size = mark;
    PyObject *json = PyBytes_FromStringAndSize((const char *)start, in->at - start);
    if (json == NULL) return FAILED;
    PyObject *field = PyObject_CallFunctionObjArgs(column->call, json, NULL);
    Py_DECREF(json);
    if (field == NULL) return FAILED;
    Outcome outcome;
    char *bytes;
    Py_ssize_t size;
    if (field == Py_None) outcome = UNFIT;
    else if (field == Py_False) outcome = DECLINED;
    else if (PyBytes_AsStringAndSize(field, &bytes, &size) < 0) outcome = FAILED;
    else outcome = put(&work->out, bytes, (size_t)size);
    Py_DECREF(field);
    return outcome;
}

static Outcome put_field(Work *work, Cursor *in, const Column *column) {
    Length length;
    View view;
    Digits digits;
    size_t size;
    switch (column->form) {
        case FORM_TEXT:
            TRY(put_string(in, &work->out, AS_FIELD, &length));
            if (column->key_bytes && (length.bytes == 0 || length.bytes > (size_t)column->key_bytes)) return DECLINED;
            return column->limit >= 0 && length.characters > (size_t)column->limit ? UNFIT : DONE;
        case FORM_NUMERIC:
            return put_numeral(work, in);
        case FORM_DECIMAL:
            TRY(take_numeral(work, in, &view, &digits));
            if (digits.before > (size_t)column->limit || digits.behind > (size_t)column->scale) return UNFIT;
            return put(&work->out, view.start, view.size);
        case FORM_INTEGER:
            TRY(take_numeral(work, in, &view, &digits));
            if (digits.behind || !fits_bits(view, column->limit)) return UNFIT;
            return put(&work->out, view.start, view.size);
        case FORM_BOOLEAN:
            if (take_word(in, "true", 4)) return PUT(&work->out, "t");
            return take_word(in, "false", 5) ? PUT(&work->out, "f") : DECLINED;
        case FORM_BINARY:
            TRY(put_binary_field(work, in, &size));
            return column->key_bytes && (size == 0 || size > (size_t)column->key_bytes) ? DECLINED : DONE;
        case FORM_MOMENT:
            return put_moment(work, in, column->limit, column->scale != 0);
        case FORM_JSON:
            if (column->type == TAG_L) return put_elements(work, in, put_plain, MAX_LEVELS - 1);
            return put_entries(work, in, put_plain, MAX_LEVELS - 1);
        case FORM_TEXTS:
            return put_set(work, in, put_array_text, '{', '}');
        case FORM_NUMBERS:
            return put_set(work, in, put_numeral, '{', '}');
        case FORM_CALLED:
            return put_called(work, in, column);
        default:
            return DECLINED;
    }
}

/* Items */

static Py_ssize_t column_named(const Work *work, View name, Py_ssize_t guess) {
    /* Items of one table tend to have their attributes in one order. */
    for (Py_ssize_t tried = 0; tried < work->column_count; tried++, guess++) {
        if (guess >= work->column_count) guess = 0;
        if (equals(name, work->columns[guess].attribute, work->columns[guess].attribute_size)) return guess;
    }
    return -1;
}

static Outcome leave_member(Work *work, Cursor *in, Member member) {
    member.end = in->at = behind(member.value, in->end);
    if (member.end == NULL) return DECLINED;
    if (work->member_count == work->member_capacity &&
        !grow((void **)&work->members, &work->member_capacity, work->member_count + 1, sizeof(Member)))
        return FAILED;
    work->members[work->member_count++] = member;
    return DONE;
}

/* The field of a column, from the content of its attribute; UNFIT where the overflow is to hold it. What was written of
 * a field by then is in nobody's way: fields that lack one are arranged. */
static Outcome put_column(Work *work, Cursor *in, Py_ssize_t number, Tag tag) {
    const Column *column = &work->columns[number];
    Field *field = &work->fields[number];
    size_t start = work->out.size;
    if (field->state != ABSENT) return DECLINED; /* twice */
    field->state = LEFT;
    if (tag != column->type) return UNFIT;
    TRY(put_field(work, in, column));
    if (!take(in, '}')) return DECLINED;
    *field = (Field){WRITTEN, {start, work->out.size - start}};
    work->in_order &= number == work->written++;
    return PUT(&work->out, "\t");
}

static inline int opens(const Cursor *in, const Column *column) {
    size_t size = column->opening_size;
    return size && (size_t)(in->end - in->at) >= size && memcmp(in->at, column->opening, size) == 0;
}

/* Write the field of an attribute that has a column, and note one that has none. Items of one table tend to have
 * their attributes in one order, which need not be that of the columns: `last` is the column of the one before. */
static Outcome put_member(Work *work, Cursor *in, Py_ssize_t *last) {
    Py_ssize_t number = work->followers[*last + 1];
    Member member = {in->at, NULL, NULL};
    Tag tag;
    if (number < work->column_count && opens(in, &work->columns[number])) {
        const Column *column = &work->columns[number];
        tag = column->type;
        member.value = in->at + column->attribute_size + 3;
        in->at += column->opening_size;
        skip_space(in);
    } else {
        View name;
        TRY(view_string(work, in, &name));
        number = column_named(work, name, number);
        if (!take(in, ':')) return DECLINED;
        skip_space(in);
        if (in->at >= in->end || *in->at != '{') return DECLINED;
        member.value = in->at;
        if (number < 0) return leave_member(work, in, member);
        TRY(take_tag(work, in, &tag));
    }
    work->followers[*last + 1] = number;
    *last = number;
    Outcome outcome = put_column(work, in, number, tag);
    return outcome == UNFIT ? leave_member(work, in, member) : outcome;
}

/* Fields that lie behind `mark` in the order of the item's attributes, in the order of the columns. */
static Outcome arrange(Work *work, size_t mark) {
    size_t size = work->out.size - mark;
    work->scratch.size = 0;
    TRY(put(&work->scratch, work->out.bytes + mark, size));
    work->out.size = mark;
    for (Py_ssize_t number = 0; number < work->column_count; number++) {
        const Field *field = &work->fields[number];
        View text = {(const unsigned char *)"\\N", 2};
        if (field->state == WRITTEN) text = (View){work->scratch.bytes + (field->text.start - mark), field->text.size};
        TRY(put(&work->out, text.start, text.size));
        TRY(PUT(&work->out, "\t"));
    }
    return DONE;
}

/* The fields of all columns; what they do not hold is in `members` then. */
static Outcome put_columns(Work *work, Cursor *in) {
    size_t mark = work->out.size;
    Py_ssize_t last = -1;
    int first = 1;
    work->member_count = 0;
    work->written = 0;
    work->in_order = 1;
    for (Py_ssize_t number = 0; number < work->column_count; number++) work->fields[number].state = ABSENT;
    if (!take(in, '{')) return DECLINED;
    while (!take(in, '}')) {
        if (!first && !take(in, ',')) return DECLINED;
        first = 0;
        skip_space(in);
        TRY(put_member(work, in, &last));
    }
    if (work->in_order && work->written == work->column_count) return DONE;
    for (Py_ssize_t number = 0; number < work->column_count; number++)
        if (work->columns[number].key_bytes && work->fields[number].state != WRITTEN) return DECLINED;
    return arrange(work, mark);
}

/* The field of the stamp, where there is one of the right size: 0 bytes long otherwise. */
static Outcome put_stamp(Work *work, const Member *member) {
    Cursor in = {member->value, member->end};
    size_t mark = work->out.size, size = 0;
    Tag tag;
    TRY(take_tag(work, &in, &tag));
    if (tag != TAG_B) return DONE;
    TRY(put_binary_field(work, &in, &size));
    if (size != STAMP_SIZE) {
        work->out.size = mark;
        return DONE;
    }
    return take(&in, '}') && in.at == member->end ? DONE : DECLINED;
}

/* The fields of the bookkeeping columns: what no column holds, and the stamp. */
static Outcome put_rest(Work *work) {
    unsigned char stamp[2 * STAMP_SIZE + 3];
    size_t stamp_size = 0, start = work->out.size;
    int any = 0;
    if (work->member_count == 0) return PUT(&work->out, "\\N\t\\N");
    for (size_t place = 0; place < work->member_count; place++) {
        const Member *member = &work->members[place];
        Cursor in = {member->name, member->end};
        View name;
        TRY(view_string(work, &in, &name));
        if (name.size == 0) return DECLINED;
        int is_stamp = equals(name, "_dsv", 4), is_predecessor = equals(name, "_dsp", 4);
        size_t mark = work->out.size;
        if (is_stamp) {
            TRY(put_stamp(work, member));
            if (work->out.size > mark) {
                stamp_size = work->out.size - mark;
                if (stamp_size != sizeof stamp) return DECLINED; /* never */
                memcpy(stamp, work->out.bytes + mark, stamp_size);
                work->out.size = mark;
                continue;
            }
        }
        if (!is_predecessor) {
            TRY(any ? PUT(&work->out, ",") : PUT(&work->out, "{"));
            Cursor again = {member->name, member->end};
            TRY(put_json_string(work, &again));
            TRY(PUT(&work->out, ":"));
            any = 1;
        }
        Cursor value = {member->value, member->end};
        TRY(put_typed(work, &value, MAX_LEVELS));
        if (value.at != member->end) return DECLINED;
        if (is_predecessor) work->out.size = mark; /* looked at, and dropped */
    }
    if (any) TRY(PUT(&work->out, "}"));
    if (work->out.size == start) TRY(PUT(&work->out, "\\N"));
    TRY(PUT(&work->out, "\t"));
    return stamp_size ? put(&work->out, stamp, stamp_size) : PUT(&work->out, "\\N");
}

static Outcome put_item(Work *work, Cursor *in) {
    TRY(put_columns(work, in));
    TRY(put_rest(work));
    return PUT(&work->out, "\n");
}

static Outcome put_line(Work *work, Cursor *in) {
    View name;
    if (!take(in, '{')) return DECLINED;
    skip_space(in);
    TRY(view_string(work, in, &name));
    if (!equals(name, "Item", 4) || !take(in, ':')) return DECLINED;
    skip_space(in);
    TRY(put_item(work, in));
    if (!take(in, '}')) return DECLINED;
    skip_space(in);
    return in->at == in->end ? DONE : DECLINED;
}

static int decline(Work *work, Py_ssize_t number) {
    if (work->declined_count == work->declined_capacity &&
        !grow((void **)&work->declined, &work->declined_capacity, work->declined_count + 1, sizeof(Py_ssize_t)))
        return 0;
    work->declined[work->declined_count++] = number;
    return 1;
}

/* One item by `put_one`: 0 only where all has failed. */
static int attempt(Work *work, Cursor *in, Outcome (*put_one)(Work *, Cursor *), Py_ssize_t number) {
    size_t mark = work->out.size;
    Outcome outcome = put_one(work, in);
    if (outcome == DONE) return 1;
    work->out.size = mark;
    return outcome != FAILED && decline(work, number);
}

static int put_lines(Work *work, Cursor *in, Py_ssize_t *items) {
    while (in->at < in->end) {
        const unsigned char *newline = memchr(in->at, '\n', (size_t)(in->end - in->at));
        Cursor line = {in->at, newline == NULL ? in->end : newline};
        in->at = newline == NULL ? in->end : newline + 1;
        skip_space(&line);
        if (line.at == line.end) continue;
        if (!attempt(work, &line, put_line, (*items)++)) return 0;
    }
    return 1;
}

typedef enum { READ, MALFORMED, BROKEN } Reading;

/* The elements of an array up to its closing bracket, the opening one left out. */
static Reading put_array(Work *work, Cursor *in, Py_ssize_t *items) {
    while (!take(in, ']')) {
        if (*items && !take(in, ',')) return MALFORMED;
        skip_space(in);
        if (in->at >= in->end || *in->at != '{') return MALFORMED;
        Cursor item = *in;
        size_t declined = work->declined_count;
        if (!attempt(work, &item, put_item, (*items)++)) return BROKEN;
        in->at = work->declined_count == declined ? item.at : behind(in->at, in->end);
        if (in->at == NULL) return MALFORMED;
    }
    return READ;
}

/* Python */

typedef struct {
    PyObject_HEAD
    Column *columns;
    Py_ssize_t column_count;
    int calls_python;
} Transcoder;

static void forget_columns(Transcoder *self) {
    for (Py_ssize_t number = 0; number < self->column_count; number++) {
        free(self->columns[number].attribute);
        free(self->columns[number].opening);
        Py_XDECREF(self->columns[number].call);
    }
    free(self->columns);
    self->columns = NULL;
    self->column_count = 0;
}

static int set_opening(Column *column) {
    for (size_t place = 0; place < column->attribute_size; place++) {
        unsigned char c = (unsigned char)column->attribute[place];
        if (c < 0x80 && !is_plain(c)) return 1;
    }
    const char *type = TAG_NAMES[column->type];
    size_t size = column->attribute_size, type_size = strlen(type);
    column->opening = malloc(size + type_size + 7);
    if (column->opening == NULL) return 0;
    char *to = column->opening;
    *to++ = '"';
    memcpy(to, column->attribute, size);
    memcpy(to += size, "\":{\"", 4);
    memcpy(to += 4, type, type_size);
    memcpy(to += type_size, "\":", 2);
    column->opening_size = size + type_size + 7;
    return 1;
}

static int read_column(PyObject *described, Column *column, int *calls_python) {
    const char *attribute, *type;
    Py_ssize_t attribute_size;
    int form;
    PyObject *call;
    if (!PyArg_ParseTuple(described, "y#silllO", &attribute, &attribute_size, &type, &form, &column->limit,
                          &column->scale, &column->key_bytes, &call))
        return 0;
    column->type = TAG_NONE;
    for (int tag = 0; tag < TAG_NONE; tag++)
        if (strcmp(type, TAG_NAMES[tag]) == 0) column->type = (Tag)tag;
    int bits_fit = form != FORM_INTEGER || (column->limit >= 1 && column->limit <= 64);
    int callable = form != FORM_CALLED || PyCallable_Check(call);
    if (column->type == TAG_NONE || form < 0 || form >= FORMS || !bits_fit || !callable || column->key_bytes < 0) {
        PyErr_SetString(PyExc_ValueError, "a column is described in a way that this version does not know");
        return 0;
    }
    column->form = (Form)form;
    column->attribute = malloc((size_t)attribute_size + 1);
    if (column->attribute == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    memcpy(column->attribute, attribute, (size_t)attribute_size);
    column->attribute_size = (size_t)attribute_size;
    if (!set_opening(column)) {
        PyErr_NoMemory();
        return 0;
    }
    Py_INCREF(call);
    column->call = call;
    *calls_python |= form == FORM_CALLED;
    return 1;
}

static PyObject *Transcoder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"columns", NULL};
    PyObject *columns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!:Transcoder", names, &PyTuple_Type, &columns)) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Transcoder *self = (Transcoder *)allocate(type, 0);
    if (self == NULL) return NULL;
    Py_ssize_t count = PyTuple_Size(columns);
    self->columns = calloc((size_t)count + 1, sizeof(Column));
    if (self->columns == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t number = 0; number < count; number++) {
        PyObject *described = PyTuple_GetItem(columns, number); /* borrowed */
        self->column_count = number + 1; /* what has been filled in so far is to be freed */
        if (described == NULL || !read_column(described, &self->columns[number], &self->calls_python)) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static void Transcoder_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    forget_columns((Transcoder *)object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static int begin(Work *work, const Transcoder *self, size_t input_size) {
    memset(work, 0, sizeof *work);
    work->columns = self->columns;
    work->column_count = self->column_count;
    work->fields = malloc(((size_t)self->column_count + 1) * sizeof(Field));
    work->followers = malloc(((size_t)self->column_count + 1) * sizeof(Py_ssize_t));
    for (Py_ssize_t place = 0; work->followers != NULL && place <= self->column_count; place++)
        work->followers[place] = place; /* the order of the columns, until items say otherwise */
    return work->fields != NULL && work->followers != NULL && reserve(&work->out, input_size / 8 * 7 + 64);
}

static void end(Work *work) {
    free(work->fields);
    free(work->followers);
    free(work->out.bytes);
    free(work->scratch.bytes);
    free(work->members);
    free(work->spans);
    free(work->slots);
    free(work->declined);
}

/* (text, rows, declined), or NULL with an exception set. */
static PyObject *result(const Work *work, Py_ssize_t items) {
    PyObject *declined = PyList_New((Py_ssize_t)work->declined_count);
    for (size_t place = 0; declined != NULL && place < work->declined_count; place++) {
        PyObject *number = PyLong_FromSsize_t(work->declined[place]);
        if (number == NULL || PyList_SetItem(declined, (Py_ssize_t)place, number) < 0) Py_CLEAR(declined);
    }
    PyObject *text = PyBytes_FromStringAndSize((const char *)work->out.bytes, (Py_ssize_t)work->out.size);
    if (declined == NULL || text == NULL) {
        Py_XDECREF(declined);
        Py_XDECREF(text);
        return NULL;
    }
    return Py_BuildValue("(NnN)", text, items - (Py_ssize_t)work->declined_count, declined);
}

static PyObject *failure(void) {
    return PyErr_Occurred() ? NULL : PyErr_NoMemory();
}

PyDoc_STRVAR(lines_doc,
             "lines(block, /)\n--\n\n"
             "Transcode lines, each {\"Item\":{...}}: the COPY text, its rows, and the numbers of the items declined.");

static PyObject *Transcoder_lines(PyObject *object, PyObject *args) {
    Transcoder *self = (Transcoder *)object;
    Py_buffer block;
    if (!PyArg_ParseTuple(args, "y*:lines", &block)) return NULL;
    Work work;
    Cursor in = {block.buf, (const unsigned char *)block.buf + block.len};
    Py_ssize_t items = 0;
    PyThreadState *released = self->calls_python ? NULL : PyEval_SaveThread();
    int done = begin(&work, self, (size_t)block.len) && put_lines(&work, &in, &items);
    if (released != NULL) PyEval_RestoreThread(released);
    PyObject *answer = done ? result(&work, items) : failure();
    end(&work);
    PyBuffer_Release(&block);
    return answer;
}

PyDoc_STRVAR(items_doc,
             "items(body, offset, /)\n--\n\n"
             "Transcode the items of an array, from behind its opening bracket: as `lines`, and the offset behind\n"
             "its closing one. Raises ValueError where it is no array of objects.");

static PyObject *Transcoder_items(PyObject *object, PyObject *args) {
    Transcoder *self = (Transcoder *)object;
    Py_buffer body;
    Py_ssize_t offset;
    if (!PyArg_ParseTuple(args, "y*n:items", &body, &offset)) return NULL;
    if (offset < 0 || offset > body.len) {
        PyBuffer_Release(&body);
        PyErr_SetString(PyExc_ValueError, "the offset is not in the body");
        return NULL;
    }
    Work work;
    const unsigned char *start = body.buf;
    Cursor in = {start + offset, start + body.len};
    Py_ssize_t items = 0;
    Reading reading = BROKEN;
    PyThreadState *released = self->calls_python ? NULL : PyEval_SaveThread();
    if (begin(&work, self, (size_t)body.len)) reading = put_array(&work, &in, &items);
    if (released != NULL) PyEval_RestoreThread(released);
    PyObject *answer = NULL;
    if (reading == READ) {
        PyObject *done = result(&work, items);
        if (done != NULL) answer = Py_BuildValue("(Nn)", done, (Py_ssize_t)(in.at - start));
    } else if (reading == MALFORMED) {
        PyErr_SetString(PyExc_ValueError, "this is not an array of objects");
    } else {
        answer = failure();
    }
    end(&work);
    PyBuffer_Release(&body);
    return answer;
}

static PyMethodDef Transcoder_methods[] = {
    {"lines", Transcoder_lines, METH_VARARGS, lines_doc},
    {"items", Transcoder_items, METH_VARARGS, items_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(Transcoder_doc,
             "Transcoder(columns)\n--\n\n"
             "Transcodes the items of one table. Each column is a tuple: attribute in UTF-8, DynamoDB type, form,\n"
             "limit, scale, most bytes of a key (0: none), and what form CALLED calls with a content as JSON.");

static PyType_Slot Transcoder_slots[] = {
    {Py_tp_new, Transcoder_new},
    {Py_tp_dealloc, Transcoder_dealloc},
    {Py_tp_methods, Transcoder_methods},
    {Py_tp_doc, (void *)Transcoder_doc},
    {0, NULL},
};

static PyType_Spec Transcoder_spec = {
    .name = "dualstore_accelerator.Transcoder",
    .basicsize = sizeof(Transcoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Transcoder_slots,
};

static int fill_module(PyObject *module) {
    PyObject *type = PyType_FromSpec(&Transcoder_spec);
    if (type == NULL) return -1;
    int added = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    if (added < 0 || add_fingerprints(module) < 0 || add_binary_rows(module) < 0) return -1;
    return PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, fill_module},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "dualstore_accelerator",
    .m_doc = "DynamoDB-JSON as text for PostgreSQL's COPY; such text in binary; fingerprints of it.",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit_dualstore_accelerator(void) {
    return PyModuleDef_Init(&module);
}
