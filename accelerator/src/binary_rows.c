/* Rows of COPY's text format as rows of its binary format, which PostgreSQL reads in two thirds of the time.
 *
 * What a field becomes depends on its column's type in PostgreSQL alone, given by its OID, and is what that
 * type's input function makes of the field. Only notations are read that the transcoders write; whatever else
 * there is, the whole text is refused, and goes as it is.
 *
 * Formats: PostgreSQL, "COPY", File Formats; numeric_recv, timestamptz_recv, date_recv, jsonb_recv, array_recv,
 * uuid_recv.
 *
 * Safety. Input is only read between `at` and `end` of a Field, every read behind a comparison with `end`.
 * Output is only written behind `reserve`, whose size the comment beside it tells. No pointer into the output
 * outlives a `reserve`: places are offsets.
 */

#include "binary_rows.h" /* before the others: it includes Python.h */
#include "postgres_types.h"
#include "row_order.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 96 * 1024, MAX_DIGITS = 1000, MAX_FIELD = INT32_MAX / 16, MAX_COLUMNS = 1600, SIZE_SIZE = 4 };

/* UNREAD: not in a notation that is read here. */
typedef enum { DONE, UNREAD, FAILED } Outcome;

#define TRY(expression)                        \
    do {                                       \
        Outcome outcome_ = (expression);       \
        if (outcome_ != DONE) return outcome_; \
    } while (0)

typedef struct {
    const unsigned char *at, *end;
} Field;

typedef struct {
    unsigned char *bytes;
    size_t size, capacity;
} Buffer;

typedef struct {
    PyObject_HEAD
    uint32_t *types;
    Py_ssize_t type_count, key_count;
} BinaryRows;

/* Rows of several texts. */
typedef struct {
    Buffer out, plain;
    PackedRow *rows, *spare;
    size_t row_count, row_capacity;
} Packed;

/* Memory */

static int reserve(Buffer *buffer, size_t size) {
    if (buffer->capacity - buffer->size >= size) return 1;
    if (size > SIZE_MAX / 4 || buffer->size > SIZE_MAX / 4) return 0;
    size_t capacity = (buffer->size + size) * 3 / 2 + 64;
    unsigned char *moved = realloc(buffer->bytes, capacity);
    if (moved == NULL) return 0;
    buffer->bytes = moved;
    buffer->capacity = capacity;
    return 1;
}

/* What follows is written without looking: `reserve` has been called for it. */

static inline void write_16(unsigned char *to, uint16_t value) {
    to[0] = (unsigned char)(value >> 8);
    to[1] = (unsigned char)value;
}

static inline void write_32(unsigned char *to, uint32_t value) {
    write_16(to, (uint16_t)(value >> 16));
    write_16(to + 2, (uint16_t)value);
}

static inline void put_16(Buffer *out, uint16_t value) {
    write_16(out->bytes + out->size, value);
    out->size += 2;
}

static inline void put_32(Buffer *out, uint32_t value) {
    write_32(out->bytes + out->size, value);
    out->size += 4;
}

static inline void put_64(Buffer *out, uint64_t value) {
    put_32(out, (uint32_t)(value >> 32));
    put_32(out, (uint32_t)value);
}

static inline void put_bytes(Buffer *out, const unsigned char *bytes, size_t size) {
    memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
}

/* Texts */

/* What a field says: no longer than the field. */
static Outcome put_unescaped(Buffer *out, Field in) {
    while (in.at < in.end) {
        const unsigned char *backslash = memchr(in.at, '\\', (size_t)(in.end - in.at));
        put_bytes(out, in.at, (size_t)((backslash == NULL ? in.end : backslash) - in.at));
        if (backslash == NULL) return DONE;
        if (in.end - backslash < 2) return UNREAD;
        unsigned char said;
        switch (backslash[1]) {
            case '\\': said = '\\'; break;
            case 'b': said = '\b'; break;
            case 'f': said = '\f'; break;
            case 'n': said = '\n'; break;
            case 'r': said = '\r'; break;
            case 't': said = '\t'; break;
            case 'v': said = '\v'; break;
            default: return UNREAD;
        }
        out->bytes[out->size++] = said;
        in.at = backslash + 2;
    }
    return DONE;
}

static int hexadecimal(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Pairs of hexadecimal digits as bytes. */
static Outcome put_pairs(Buffer *out, Field in) {
    if ((in.end - in.at) % 2) return UNREAD;
    for (; in.at < in.end; in.at += 2) {
        int high = hexadecimal(in.at[0]), low = hexadecimal(in.at[1]);
        if (high < 0 || low < 0) return UNREAD;
        out->bytes[out->size++] = (unsigned char)(high << 4 | low);
    }
    return DONE;
}

static Outcome put_bytea(Buffer *out, Field in) {
    if (in.end - in.at < 3 || memcmp(in.at, "\\\\x", 3) != 0) return UNREAD;
    return put_pairs(out, (Field){in.at + 3, in.end});
}

static Outcome put_uuid(Buffer *out, Field in) {
    static const int PARTS[] = {8, 4, 4, 4, 12};
    if (in.end - in.at != 36) return UNREAD;
    for (int part = 0; part < 5; part++) {
        if (part && *in.at++ != '-') return UNREAD;
        TRY(put_pairs(out, (Field){in.at, in.at + PARTS[part]}));
        in.at += PARTS[part];
    }
    return DONE;
}

static Outcome put_bool(Buffer *out, Field in) {
    if (in.end - in.at != 1 || (*in.at != 't' && *in.at != 'f')) return UNREAD;
    out->bytes[out->size++] = *in.at == 't';
    return DONE;
}

/* Numbers */

static inline int is_digit(unsigned char c) {
    return c >= '0' && c <= '9';
}

static Outcome put_integer(Buffer *out, Field in, int bits) {
    int negative = in.at < in.end && *in.at == '-';
    uint64_t value = 0, limit = (uint64_t)1 << (bits - 1);
    in.at += negative;
    if (in.at == in.end || in.end - in.at > 19) return UNREAD;
    for (; in.at < in.end; in.at++) {
        if (!is_digit(*in.at)) return UNREAD;
        value = value * 10 + (uint64_t)(*in.at - '0'); /* 19 digits fit 64 bits */
    }
    if (negative ? value > limit : value >= limit) return UNREAD;
    if (negative) value = 0 - value;
    if (bits == 16) put_16(out, (uint16_t)value);
    else if (bits == 32) put_32(out, (uint32_t)value);
    else put_64(out, value);
    return DONE;
}

/* A number as groups of four digits, counted from the point; at most 8 bytes and half of what the field has, and
 * 6 more. Groups of zeros at either end are left out, as PostgreSQL itself leaves them out. */
static Outcome put_numeric(Buffer *out, Field in) {
    int negative = in.at < in.end && *in.at == '-';
    in.at += negative;
    const unsigned char *whole = in.at;
    while (in.at < in.end && is_digit(*in.at)) in.at++;
    size_t before = (size_t)(in.at - whole), behind = 0;
    const unsigned char *fraction = in.at;
    if (in.at < in.end && *in.at == '.') {
        fraction = ++in.at;
        while (in.at < in.end && is_digit(*in.at)) in.at++;
        behind = (size_t)(in.at - fraction);
        if (behind == 0) return UNREAD;
    }
    if (in.at != in.end || before == 0 || before > MAX_DIGITS || behind > MAX_DIGITS) return UNREAD;
    size_t head = out->size, first_group = (before + 3) / 4;
    long weight = (long)first_group - 1;
    uint16_t count = 0, zeros = 0;
    out->size += 8;
    for (size_t group = 0; group < first_group + (behind + 3) / 4; group++) {
        unsigned value = 0;
        for (size_t place = 0; place < 4; place++) {
            unsigned digit = 0;
            if (group < first_group) {
                size_t padded = group * 4 + place, padding = first_group * 4 - before;
                if (padded >= padding) digit = whole[padded - padding] - '0';
            } else {
                size_t number = (group - first_group) * 4 + place;
                if (number < behind) digit = fraction[number] - '0';
            }
            value = value * 10 + digit;
        }
        if (value == 0 && count == 0) {
            weight--;
            continue;
        }
        put_16(out, (uint16_t)value);
        count++;
        zeros = value ? 0 : zeros + 1;
    }
    count -= zeros;
    out->size -= 2 * (size_t)zeros;
    unsigned char *to = out->bytes + head;
    write_16(to, count);
    write_16(to + 2, count ? (uint16_t)weight : 0);
    write_16(to + 4, negative && count ? 0x4000 : 0);
    write_16(to + 6, (uint16_t)behind);
    return DONE;
}

/* Moments */

/* Days from 2000-01-01 to a day of the Gregorian calendar, whose years begin in March here. */
static int64_t days_from_2000(int year, int month, int day) {
    int64_t y = month > 2 ? year : year - 1, m = month > 2 ? month - 3 : month + 9;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 730425;
}

static int take_digits(Field *in, int count, int *value) {
    *value = 0;
    if (in->end - in->at < count) return 0;
    for (; count; count--, in->at++) {
        if (!is_digit(*in->at)) return 0;
        *value = *value * 10 + (*in->at - '0');
    }
    return 1;
}

static int take(Field *in, const char *literal) {
    size_t size = strlen(literal);
    if ((size_t)(in->end - in->at) < size || memcmp(in->at, literal, size) != 0) return 0;
    in->at += size;
    return 1;
}

/* Years of four digits are those of our era to PostgreSQL, too; it knows no year 0. */
static int take_day(Field *in, int64_t *days) {
    static const int DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year, month, day;
    if (!take_digits(in, 4, &year) || !take(in, "-")) return 0;
    if (!take_digits(in, 2, &month) || !take(in, "-") || !take_digits(in, 2, &day)) return 0;
    if (year < 1 || month < 1 || month > 12) return 0;
    int leap = month == 2 && ((year % 4 == 0 && year % 100 != 0) || year % 400 == 0);
    if (day < 1 || day > DAYS[month - 1] + leap) return 0;
    *days = days_from_2000(year, month, day);
    return 1;
}

static Outcome put_date(Buffer *out, Field in) {
    int64_t days;
    if (!take_day(&in, &days) || in.at != in.end) return UNREAD;
    put_32(out, (uint32_t)days);
    return DONE;
}

/* In UTC: as PynamoDB writes a moment, or as Python does. */
static Outcome put_moment(Buffer *out, Field in, int has_zone) {
    int64_t days;
    int hour, minute, second, fraction = 0;
    if (!take_day(&in, &days) || !(take(&in, "T") || take(&in, " "))) return UNREAD;
    if (!take_digits(&in, 2, &hour) || !take(&in, ":") || !take_digits(&in, 2, &minute)) return UNREAD;
    if (!take(&in, ":") || !take_digits(&in, 2, &second)) return UNREAD;
    if (hour > 23 || minute > 59 || second > 59) return UNREAD;
    if (take(&in, ".") && !take_digits(&in, 6, &fraction)) return UNREAD;
    if (has_zone && !take(&in, "+0000") && !take(&in, "+00:00")) return UNREAD;
    if (in.at != in.end) return UNREAD;
    int64_t seconds = days * 86400 + hour * 3600 + minute * 60 + second;
    put_64(out, (uint64_t)(seconds * 1000000 + fraction));
    return DONE;
}

/* Arrays */

/* A member between quotes; the bytes of an array's text, from which COPY's own escapes are gone. */
static Outcome put_quoted(Buffer *out, Field *in) {
    if (in->at == in->end || *in->at != '"') return UNREAD;
    for (in->at++; in->at < in->end && *in->at != '"'; in->at++) {
        if (*in->at == '\\' && ++in->at == in->end) return UNREAD;
        out->bytes[out->size++] = *in->at;
    }
    if (in->at == in->end) return UNREAD;
    in->at++;
    return DONE;
}

static Outcome put_bare_number(Buffer *out, Field *in) {
    Field number = {in->at, in->at};
    while (number.end < in->end && *number.end != ',' && *number.end != '}') number.end++;
    in->at = number.end;
    return put_numeric(out, number);
}

/* Members take 14 bytes for each two of the text at most, as `1,` does. */
static Outcome put_array(Buffer *out, Field in, uint32_t member_type) {
    size_t head = out->size;
    uint32_t count = 0;
    if (in.end - in.at < 2 || *in.at++ != '{') return UNREAD;
    out->size += 20;
    while (in.at < in.end && *in.at != '}') {
        if (count && *in.at++ != ',') return UNREAD;
        size_t size_at = out->size;
        out->size += SIZE_SIZE;
        TRY(member_type == TYPE_NUMERIC ? put_bare_number(out, &in) : put_quoted(out, &in));
        write_32(out->bytes + size_at, (uint32_t)(out->size - size_at - SIZE_SIZE));
        count++;
    }
    if (in.end - in.at != 1 || count == 0) return UNREAD; /* no set is empty */
    unsigned char *to = out->bytes + head;
    write_32(to, 1);      /* dimensions */
    write_32(to + 4, 0);  /* no NULL among them */
    write_32(to + 8, member_type);
    write_32(to + 12, count);
    write_32(to + 16, 1); /* the number of the first */
    return DONE;
}

static Outcome put_texts(Buffer *out, Buffer *plain, Field in, uint32_t member_type) {
    size_t size = (size_t)(in.end - in.at);
    if (memchr(in.at, '\\', size) == NULL) return put_array(out, in, member_type);
    plain->size = 0;
    if (!reserve(plain, size)) return FAILED;
    TRY(put_unescaped(plain, in));
    return put_array(out, (Field){plain->bytes, plain->bytes + plain->size}, member_type);
}

/* Fields and rows */

static Outcome put_content(Buffer *out, Buffer *plain, Field in, uint32_t type) {
    switch (type) {
        case TYPE_TEXT: case TYPE_VARCHAR: case TYPE_JSON: return put_unescaped(out, in);
        case TYPE_JSONB:
            out->bytes[out->size++] = 1; /* the version of the format */
            return put_unescaped(out, in);
        case TYPE_BOOL: return put_bool(out, in);
        case TYPE_BYTEA: return put_bytea(out, in);
        case TYPE_UUID: return put_uuid(out, in);
        case TYPE_INT2: return put_integer(out, in, 16);
        case TYPE_INT4: return put_integer(out, in, 32);
        case TYPE_INT8: return put_integer(out, in, 64);
        case TYPE_NUMERIC: return put_numeric(out, in);
        case TYPE_DATE: return put_date(out, in);
        case TYPE_TIMESTAMP: return put_moment(out, in, 0);
        case TYPE_TIMESTAMPTZ: return put_moment(out, in, 1);
        case TYPE_NUMERICS: return put_array(out, in, TYPE_NUMERIC);
        case TYPE_TEXTS: return put_texts(out, plain, in, TYPE_TEXT);
        case TYPE_VARCHARS: return put_texts(out, plain, in, TYPE_VARCHAR);
        default: return UNREAD;
    }
}

static Outcome put_field(Buffer *out, Buffer *plain, Field in, uint32_t type) {
    size_t size = (size_t)(in.end - in.at);
    /* No content takes more than seven bytes for each of the field's, and the head of an array. */
    int is_array = type == TYPE_TEXTS || type == TYPE_VARCHARS || type == TYPE_NUMERICS;
    if (size > MAX_FIELD) return UNREAD;
    if (!reserve(out, SIZE_SIZE + 32 + (is_array ? size * 7 : size))) return FAILED;
    if (size == 2 && in.at[0] == '\\' && in.at[1] == 'N') {
        put_32(out, UINT32_MAX); /* NULL */
        return DONE;
    }
    size_t size_at = out->size;
    out->size += SIZE_SIZE;
    TRY(put_content(out, plain, in, type));
    write_32(out->bytes + size_at, (uint32_t)(out->size - size_at - SIZE_SIZE));
    return DONE;
}

static Outcome put_row(const BinaryRows *self, Buffer *out, Buffer *plain, Field line) {
    if (!reserve(out, 2)) return FAILED;
    put_16(out, (uint16_t)self->type_count);
    for (Py_ssize_t number = 0; number < self->type_count; number++) {
        int is_last = number == self->type_count - 1;
        const unsigned char *tab = memchr(line.at, '\t', (size_t)(line.end - line.at));
        if ((tab == NULL) != is_last) return UNREAD;
        TRY(put_field(out, plain, (Field){line.at, is_last ? line.end : tab}, self->types[number]));
        if (!is_last) line.at = tab + 1;
    }
    return DONE;
}

static Outcome note_row(Packed *packed, size_t at) {
    size_t end = packed->out.size;
    if (end > UINT32_MAX) return UNREAD;
    if (packed->row_count == packed->row_capacity) {
        size_t capacity = packed->row_capacity * 3 / 2 + 1024;
        PackedRow *moved = realloc(packed->rows, capacity * sizeof(PackedRow));
        if (moved == NULL) return FAILED;
        packed->rows = moved;
        packed->row_capacity = capacity;
    }
    packed->rows[packed->row_count++] = (PackedRow){0, (uint32_t)at, (uint32_t)(end - at)};
    return DONE;
}

static Outcome put_rows(const BinaryRows *self, Packed *packed, Field text) {
    if (!reserve(&packed->out, (size_t)(text.end - text.at) * 3 / 2 + 64)) return FAILED;
    while (text.at < text.end) {
        const unsigned char *newline = memchr(text.at, '\n', (size_t)(text.end - text.at));
        if (newline == NULL) return UNREAD;
        size_t at = packed->out.size;
        TRY(put_row(self, &packed->out, &packed->plain, (Field){text.at, newline}));
        TRY(note_row(packed, at));
        text.at = newline + 1;
    }
    return DONE;
}

/* All of a text, or nothing. */
static Outcome put_text(const BinaryRows *self, Packed *packed, Field text) {
    size_t size = packed->out.size, row_count = packed->row_count;
    Outcome outcome = put_rows(self, packed, text);
    if (outcome == DONE) return DONE;
    packed->out.size = size;
    packed->row_count = row_count;
    return outcome;
}

static Outcome sort_rows(const BinaryRows *self, Packed *packed) {
    if (packed->row_count == 0) return DONE;
    packed->spare = malloc(packed->row_count * sizeof(PackedRow));
    if (packed->spare == NULL) return FAILED;
    PackedRow *sorted = in_key_order(packed->out.bytes, self->types, (size_t)self->key_count, packed->rows,
                                     packed->spare, packed->row_count);
    if (sorted != packed->rows) {
        packed->spare = packed->rows;
        packed->rows = sorted;
    }
    return DONE;
}

static void free_packed(Packed *packed) {
    free(packed->out.bytes);
    free(packed->plain.bytes);
    free(packed->rows);
    free(packed->spare);
}

/* Python */

static int is_known(uint32_t type) {
    static const uint32_t KNOWN[] = {
        TYPE_BOOL, TYPE_BYTEA, TYPE_INT8, TYPE_INT2, TYPE_INT4, TYPE_TEXT, TYPE_JSON, TYPE_TEXTS, TYPE_VARCHARS,
        TYPE_VARCHAR, TYPE_DATE, TYPE_TIMESTAMP, TYPE_TIMESTAMPTZ, TYPE_NUMERICS, TYPE_NUMERIC, TYPE_UUID,
        TYPE_JSONB
    };
    for (size_t each = 0; each < sizeof KNOWN / sizeof *KNOWN; each++)
        if (KNOWN[each] == type) return 1;
    return 0;
}

static int read_types(BinaryRows *self, PyObject *types) {
    Py_ssize_t count = PyTuple_Size(types);
    if (count < 1 || count > MAX_COLUMNS) {
        PyErr_SetString(PyExc_ValueError, "a row has 1 to 1600 columns");
        return 0;
    }
    self->types = calloc((size_t)count, sizeof(uint32_t));
    if (self->types == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    self->type_count = count;
    for (Py_ssize_t number = 0; number < count; number++) {
        PyObject *each = PyTuple_GetItem(types, number); /* borrowed */
        unsigned long type = each == NULL ? 0 : PyLong_AsUnsignedLong(each);
        if (PyErr_Occurred()) return 0;
        if (type > UINT32_MAX || !is_known((uint32_t)type)) {
            PyErr_SetString(PyExc_ValueError, "a column is of a type that has no binary form here");
            return 0;
        }
        self->types[number] = (uint32_t)type;
    }
    return 1;
}

static PyObject *BinaryRows_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"types", "keys", NULL};
    PyObject *types;
    Py_ssize_t keys;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!n:BinaryRows", names, &PyTuple_Type, &types, &keys)) return NULL;
    if (keys < 0 || keys > PyTuple_Size(types)) {
        PyErr_SetString(PyExc_ValueError, "a key has no more columns than a row");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    BinaryRows *self = (BinaryRows *)allocate(type, 0); /* zeros */
    if (self == NULL) return NULL;
    if (!read_types(self, types)) {
        Py_DECREF(self);
        return NULL;
    }
    self->key_count = keys;
    return (PyObject *)self;
}

static void BinaryRows_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    free(((BinaryRows *)object)->types);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* One of the texts that were given, and whether it is left out. */
typedef struct {
    Py_buffer view;
    int is_left;
} Text;

static void release_texts(Text *texts, Py_ssize_t held) {
    while (held) PyBuffer_Release(&texts[--held].view);
    PyMem_Free(texts);
}

/* The texts of a tuple, until `release_texts`; NULL with an exception where one is no text. */
static Text *hold_texts(PyObject *tuple, Py_ssize_t count) {
    Text *texts = PyMem_Calloc((size_t)count + 1, sizeof(Text));
    if (texts == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t held = 0; held < count; held++) {
        PyObject *each = PyTuple_GetItem(tuple, held); /* borrowed; the tuple keeps it */
        if (each != NULL && PyObject_GetBuffer(each, &texts[held].view, PyBUF_SIMPLE) == 0) continue;
        release_texts(texts, held);
        return NULL;
    }
    return texts;
}

/* Without the lock of the interpreter. */
static Outcome pack(const BinaryRows *self, Packed *packed, Text *texts, Py_ssize_t count) {
    for (Text *text = texts; text < texts + count; text++) {
        const unsigned char *at = text->view.buf;
        Outcome outcome = put_text(self, packed, (Field){at, at + text->view.len});
        if (outcome == FAILED) return FAILED;
        text->is_left = outcome == UNREAD;
    }
    return sort_rows(self, packed);
}

static PyObject *places_left(const Text *texts, Py_ssize_t count) {
    PyObject *places = PyList_New(0);
    for (Py_ssize_t each = 0; places != NULL && each < count; each++) {
        if (!texts[each].is_left) continue;
        PyObject *place = PyLong_FromSsize_t(each);
        if (place == NULL || PyList_Append(places, place) < 0) Py_CLEAR(places);
        Py_XDECREF(place);
    }
    return places;
}

/* Where the chunk ends that begins with this row, and its size: at least one row. */
static size_t chunk_end(const Packed *packed, size_t start, size_t *size) {
    size_t end = start;
    for (*size = 0; end < packed->row_count; end++) {
        if (end > start && *size + packed->rows[end].size > CHUNK_BYTES) break;
        *size += packed->rows[end].size;
    }
    return end;
}

/* A list of bytes: the rows in their order. */
static PyObject *chunks_of(const Packed *packed) {
    PyObject *chunks = PyList_New(0);
    for (size_t start = 0, end; chunks != NULL && start < packed->row_count; start = end) {
        size_t size;
        end = chunk_end(packed, start, &size);
        PyObject *chunk = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (chunk == NULL || PyList_Append(chunks, chunk) < 0) {
            Py_XDECREF(chunk);
            Py_CLEAR(chunks);
            break;
        }
        char *to = PyBytes_AsString(chunk);
        for (size_t each = start; each < end; each++) {
            memcpy(to, packed->out.bytes + packed->rows[each].at, packed->rows[each].size);
            to += packed->rows[each].size;
        }
        Py_DECREF(chunk); /* the list has it */
    }
    return chunks;
}

PyDoc_STRVAR(in_order_doc,
             "in_order(texts, /)\n--\n\n"
             "Whole lines of COPY text as rows of COPY's binary format, in the order of their keys and without head\n"
             "and end: a list of bytes that together are the rows, and a list of the places of the texts left out.\n"
             "A text is left out where a field is not as the transcoders write it: it can still be sent as it is.");

static PyObject *BinaryRows_in_order(PyObject *object, PyObject *tuple) {
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "texts come in a tuple");
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(tuple);
    Text *texts = hold_texts(tuple, count);
    if (texts == NULL) return NULL;
    Packed packed = {{NULL, 0, 0}, {NULL, 0, 0}, NULL, NULL, 0, 0};
    PyThreadState *released = PyEval_SaveThread();
    Outcome outcome = pack((const BinaryRows *)object, &packed, texts, count);
    PyEval_RestoreThread(released);
    PyObject *chunks = NULL, *left = NULL, *answer = NULL;
    if (outcome == DONE) chunks = chunks_of(&packed);
    else PyErr_NoMemory();
    if (chunks != NULL) left = places_left(texts, count);
    if (left != NULL) answer = PyTuple_Pack(2, chunks, left);
    Py_XDECREF(chunks);
    Py_XDECREF(left);
    free_packed(&packed);
    release_texts(texts, count);
    return answer;
}

static PyMethodDef BinaryRows_methods[] = {
    {"in_order", BinaryRows_in_order, METH_O, in_order_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(BinaryRows_doc,
             "BinaryRows(types, keys)\n--\n\n"
             "Turns COPY text into rows of COPY's binary format. `types` are the OIDs of the columns' types, and the\n"
             "first `keys` of them are the key; raises ValueError where one of them has no binary form here.");

static PyType_Slot BinaryRows_slots[] = {
    {Py_tp_new, BinaryRows_new},
    {Py_tp_dealloc, BinaryRows_dealloc},
    {Py_tp_methods, BinaryRows_methods},
    {Py_tp_doc, (void *)BinaryRows_doc},
    {0, NULL},
};

static PyType_Spec BinaryRows_spec = {
    .name = "dualstore_accelerator.BinaryRows",
    .basicsize = sizeof(BinaryRows),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = BinaryRows_slots,
};

int add_binary_rows(PyObject *module) {
    PyObject *type = PyType_FromSpec(&BinaryRows_spec);
    if (type == NULL) return -1;
    int added = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return added;
}
