/* Fingerprints of rows: 128 bits for each line of COPY text, the same for the same content in any notation.
 *
 * The lines that dualstore writes and the lines that PostgreSQL writes of equal rows differ in the order of
 * objects and sets, in white space, in the notation of numbers and moments, and in what is escaped. Each field
 * becomes a canonical form, and SipHash-1-3 with 128 bits (Aumasson and Bernstein, 2012) goes over the forms of
 * a line. Objects and sets are sums of the fingerprints of their members, so their order does not matter.
 *
 * Different contents have different forms: each form tells its kind and its size, or ends by itself. What cannot
 * be read as its column's kind is taken as it stands, which can only make equal rows differ, never the reverse:
 * whoever compares has to look at rows that differ in another way.
 *
 * Safety. Input is only read between `at` and `end`, every read behind a comparison with `end`. Output is only
 * written behind `reserve`. Recursion ends after MAX_LEVELS. No pointer into a buffer outlives a `reserve` of it.
 */

#include "fingerprints.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEVELS = 64, KEY_SIZE = 16 };

/* The numbers of dualstore.verify.fingerprints.Kind. */
typedef enum { KIND_TEXT, KIND_NUMBER, KIND_MOMENT, KIND_JSON, KIND_TEXTS, KIND_NUMBERS, KIND_LEFT_OUT, KINDS } Kind;

/* UNREAD: not of the kind that was expected. */
typedef enum { DONE, UNREAD, FAILED } Outcome;

#define TRY(expression)                        \
    do {                                       \
        Outcome outcome_ = (expression);       \
        if (outcome_ != DONE) return outcome_; \
    } while (0)

typedef struct {
    unsigned char *bytes;
    size_t size, capacity;
} Buffer;

typedef struct {
    const unsigned char *at, *end;
} Cursor;

typedef struct {
    uint64_t first, second;
} Fingerprint;

typedef struct {
    PyObject_HEAD
    Kind *kinds;
    Py_ssize_t kind_count;
    uint64_t key[2];
    Buffer form;  /* the canonical form of a line, as far as it is made */
    Buffer plain; /* a field without its escapes */
    Fingerprint *found;
    size_t found_count, found_capacity;
    int busy; /* in a call that has let go of the interpreter's lock */
} Fingerprints;

/* Memory */

static int reserve(Buffer *buffer, size_t size) {
    if (buffer->capacity - buffer->size >= size) return 1;
    if (size > SIZE_MAX / 4 || buffer->size > SIZE_MAX / 4) return 0;
    size_t capacity = (buffer->size + size) * 2 + 64;
    unsigned char *moved = realloc(buffer->bytes, capacity);
    if (moved == NULL) return 0;
    buffer->bytes = moved;
    buffer->capacity = capacity;
    return 1;
}

static inline Outcome put(Buffer *buffer, const void *bytes, size_t size) {
    if (!reserve(buffer, size)) return FAILED;
    if (size) memcpy(buffer->bytes + buffer->size, bytes, size); /* `bytes` may be NULL where there are none */
    buffer->size += size;
    return DONE;
}

static inline Outcome put_byte(Buffer *buffer, unsigned char byte) {
    if (!reserve(buffer, 1)) return FAILED;
    buffer->bytes[buffer->size++] = byte;
    return DONE;
}

enum { SIZE_SIZE = 4, MAX_LINE = INT32_MAX };

/* The same bytes on every machine: several may work on one verification. */
static inline void write_size(unsigned char *to, uint32_t size) {
    to[0] = (unsigned char)size;
    to[1] = (unsigned char)(size >> 8);
    to[2] = (unsigned char)(size >> 16);
    to[3] = (unsigned char)(size >> 24);
}

static inline Outcome put_size(Buffer *buffer, size_t size) {
    if (!reserve(buffer, SIZE_SIZE)) return FAILED;
    write_size(buffer->bytes + buffer->size, (uint32_t)size);
    buffer->size += SIZE_SIZE;
    return DONE;
}

/* SipHash-1-3, 128 bits: with fewer rounds than its authors first proposed, as the hash tables of Python and Rust
 * take it. The key is drawn for each run, and no fingerprint leaves the database: nobody can try collisions out. */

static inline uint64_t rotated(uint64_t value, int bits) {
    return value << bits | value >> (64 - bits);
}

static inline uint64_t little_endian(const unsigned char *at) {
    return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24 |
           (uint64_t)at[4] << 32 | (uint64_t)at[5] << 40 | (uint64_t)at[6] << 48 | (uint64_t)at[7] << 56;
}

static inline void sip_round(uint64_t v[4]) {
    v[0] += v[1]; v[1] = rotated(v[1], 13) ^ v[0]; v[0] = rotated(v[0], 32);
    v[2] += v[3]; v[3] = rotated(v[3], 16) ^ v[2];
    v[0] += v[3]; v[3] = rotated(v[3], 21) ^ v[0];
    v[2] += v[1]; v[1] = rotated(v[1], 17) ^ v[2]; v[2] = rotated(v[2], 32);
}

static inline void rounds(uint64_t v[4], int count) {
    for (int number = 0; number < count; number++) sip_round(v);
}

static Fingerprint fingerprint(const uint64_t key[2], const unsigned char *bytes, size_t size) {
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575ULL, key[1] ^ 0x646f72616e646f6dULL ^ 0xee,
                     key[0] ^ 0x6c7967656e657261ULL, key[1] ^ 0x7465646279746573ULL};
    const unsigned char *end = bytes + size / 8 * 8;
    for (; bytes != end; bytes += 8) {
        uint64_t word = little_endian(bytes);
        v[3] ^= word;
        rounds(v, 1);
        v[0] ^= word;
    }
    uint64_t last = (uint64_t)size << 56;
    for (size_t byte = 0; byte < size % 8; byte++) last |= (uint64_t)bytes[byte] << (8 * byte);
    v[3] ^= last;
    rounds(v, 1);
    v[0] ^= last;
    v[2] ^= 0xee;
    rounds(v, 3);
    Fingerprint made = {v[0] ^ v[1] ^ v[2] ^ v[3], 0};
    v[1] ^= 0xdd;
    rounds(v, 3);
    made.second = v[0] ^ v[1] ^ v[2] ^ v[3];
    return made;
}

/* What has been put since `mark` becomes a summand. */
static void add_member(Fingerprints *self, size_t mark, Fingerprint *sum) {
    Fingerprint member = fingerprint(self->key, self->form.bytes + mark, self->form.size - mark);
    sum->first += member.first;
    sum->second += member.second;
    self->form.size = mark;
}

static Outcome put_members(Fingerprints *self, unsigned char kind, size_t count, Fingerprint sum) {
    uint64_t halves[] = {sum.first, sum.second};
    unsigned char bytes[1 + SIZE_SIZE + sizeof halves];
    bytes[0] = kind;
    write_size(bytes + 1, (uint32_t)count);
    for (size_t place = 0; place < sizeof halves; place++)
        bytes[1 + SIZE_SIZE + place] = (unsigned char)(halves[place / 8] >> (8 * (place % 8)));
    return put(&self->form, bytes, sizeof bytes);
}

/* Texts and numbers */

static Outcome put_text(Fingerprints *self, const unsigned char *bytes, size_t size) {
    TRY(put_byte(&self->form, 'T'));
    TRY(put_size(&self->form, size));
    return put(&self->form, bytes, size);
}

static inline int is_digit(unsigned char c) {
    return c >= '0' && c <= '9';
}

/* Sign, place of the last digit, digits: without zeros in front, nor behind. */
static Outcome put_numeral(Fingerprints *self, const unsigned char *at, const unsigned char *end) {
    unsigned char negative = at < end && *at == '-';
    at += negative;
    const unsigned char *whole = at;
    while (at < end && is_digit(*at)) at++;
    const unsigned char *point = at, *fraction = at;
    if (point == whole) return UNREAD;
    if (at < end && *at == '.') {
        fraction = ++at;
        while (at < end && is_digit(*at)) at++;
        if (at == fraction) return UNREAD;
    }
    if (at != end) return UNREAD; /* infinite, or none, or in scientific notation, which neither side writes */
    while (end > fraction && end[-1] == '0') end--;
    int64_t place = -(int64_t)(end - fraction);
    if (place == 0)
        for (; point > whole && point[-1] == '0'; point--) place++;
    while (whole < point && *whole == '0') whole++;
    if (whole == point)
        while (fraction < end && *fraction == '0') fraction++;
    size_t whole_size = (size_t)(point - whole), fraction_size = (size_t)(end - fraction);
    if (whole_size + fraction_size == 0) negative = 0, place = 0;
    TRY(put_byte(&self->form, negative ? '-' : '+'));
    TRY(put_size(&self->form, (size_t)place)); /* of at most MAX_LINE, so four bytes hold it */
    TRY(put_size(&self->form, whole_size + fraction_size));
    TRY(put(&self->form, whole, whole_size));
    return put(&self->form, fraction, fraction_size);
}

/* Moments: in UTC, or without a zone; the column's type says which. */

static Outcome put_moment(Fingerprints *self, const unsigned char *at, const unsigned char *end) {
    static const char SHAPE[] = "0000-00-00 00:00:00";
    enum { SECONDS = sizeof SHAPE - 1, DIGITS = 6 };
    unsigned char form[1 + SECONDS + DIGITS];
    if (end - at < SECONDS) return UNREAD;
    form[0] = 'M';
    for (int place = 0; place < SECONDS; place++) {
        unsigned char c = at[place] == 'T' ? ' ' : at[place];
        if (SHAPE[place] == '0' ? !is_digit(c) : c != (unsigned char)SHAPE[place]) return UNREAD;
        form[1 + place] = c;
    }
    at += SECONDS;
    memset(form + 1 + SECONDS, '0', DIGITS);
    if (at < end && *at == '.') {
        int digits = 0;
        at++;
        while (at < end && is_digit(*at) && digits < DIGITS) form[1 + SECONDS + digits++] = *at++;
        if (digits == 0) return UNREAD;
    }
    if (at < end) {
        size_t left = (size_t)(end - at);
        if (memcmp(at, "+0000", left < 5 ? left : 5) != 0 || (left != 3 && left != 5)) return UNREAD;
    }
    return put(&self->form, form, sizeof form);
}

/* Documents, as PostgreSQL and dualstore write them */

static inline void skip_space(Cursor *in) {
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\n' || *in->at == '\r' || *in->at == '\t')) in->at++;
}

static inline int take(Cursor *in, unsigned char wanted) {
    skip_space(in);
    if (in->at >= in->end || *in->at != wanted) return 0;
    in->at++;
    return 1;
}

static int hexadecimal(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The control character or quote that a backslash stands for; what else JSON allows, neither side writes. */
static Outcome put_json_escape(Fingerprints *self, Cursor *in) {
    static const char NAMES[] = "\"\\/bfnrt", VALUES[] = "\"\\/\b\f\n\r\t";
    if (in->at >= in->end) return UNREAD;
    unsigned char kind = *in->at++;
    if (kind == 'u') {
        if (in->end - in->at < 4 || in->at[0] != '0' || in->at[1] != '0') return UNREAD;
        int high = hexadecimal(in->at[2]), low = hexadecimal(in->at[3]);
        if (high < 0 || high > 7 || low < 0) return UNREAD;
        in->at += 4;
        return put_byte(&self->form, (unsigned char)(high << 4 | low));
    }
    const char *found = kind ? strchr(NAMES, kind) : NULL;
    return found == NULL ? UNREAD : put_byte(&self->form, (unsigned char)VALUES[found - NAMES]);
}

static Outcome put_json_string(Fingerprints *self, Cursor *in) {
    if (!take(in, '"')) return UNREAD;
    TRY(put_byte(&self->form, 'T'));
    size_t mark = self->form.size;
    TRY(put_size(&self->form, 0));
    for (;;) {
        const unsigned char *run = in->at;
        while (in->at < in->end && *in->at != '"' && *in->at != '\\') in->at++;
        TRY(put(&self->form, run, (size_t)(in->at - run)));
        if (in->at >= in->end) return UNREAD;
        if (*in->at++ == '"') break;
        TRY(put_json_escape(self, in));
    }
    write_size(self->form.bytes + mark, (uint32_t)(self->form.size - mark - SIZE_SIZE));
    return DONE;
}

static int take_word(Cursor *in, const char *word) {
    size_t size = strlen(word);
    if ((size_t)(in->end - in->at) < size || memcmp(in->at, word, size) != 0) return 0;
    in->at += size;
    return 1;
}

static Outcome put_json(Fingerprints *self, Cursor *in, int levels);

static Outcome put_object(Fingerprints *self, Cursor *in, int levels) {
    Fingerprint sum = {0, 0};
    size_t count = 0, mark = self->form.size;
    in->at++;
    while (!take(in, '}')) {
        if (count++ && !take(in, ',')) return UNREAD;
        TRY(put_json_string(self, in));
        if (!take(in, ':')) return UNREAD;
        TRY(put_json(self, in, levels));
        add_member(self, mark, &sum);
    }
    return put_members(self, 'O', count, sum);
}

static Outcome put_list(Fingerprints *self, Cursor *in, int levels) {
    int any = 0;
    in->at++;
    TRY(put_byte(&self->form, '['));
    while (!take(in, ']')) {
        if (any && !take(in, ',')) return UNREAD;
        any = 1;
        TRY(put_json(self, in, levels));
    }
    return put_byte(&self->form, ']');
}

static Outcome put_json(Fingerprints *self, Cursor *in, int levels) {
    skip_space(in);
    if (levels == 0 || in->at >= in->end) return UNREAD;
    switch (*in->at) {
        case '{': return put_object(self, in, levels - 1);
        case '[': return put_list(self, in, levels - 1);
        case '"': return put_json_string(self, in);
        case 't': return take_word(in, "true") ? put_byte(&self->form, 't') : UNREAD;
        case 'f': return take_word(in, "false") ? put_byte(&self->form, 'f') : UNREAD;
        case 'n': return take_word(in, "null") ? put_byte(&self->form, 'n') : UNREAD;
        default: break;
    }
    const unsigned char *start = in->at;
    while (in->at < in->end && (is_digit(*in->at) || *in->at == '-' || *in->at == '.')) in->at++;
    return put_numeral(self, start, in->at);
}

static Outcome put_document(Fingerprints *self, const unsigned char *at, const unsigned char *end) {
    Cursor in = {at, end};
    TRY(put_json(self, &in, MAX_LEVELS));
    skip_space(&in);
    return in.at == in.end ? DONE : UNREAD;
}

/* Sets: one-dimensional arrays (PostgreSQL, Arrays, Array Input and Output Syntax) */

/* What stands between quotes, behind the first of them. */
static Outcome put_quoted(Fingerprints *self, Cursor *in) {
    TRY(put_byte(&self->form, 'T'));
    size_t mark = self->form.size;
    TRY(put_size(&self->form, 0));
    for (;;) {
        if (in->at >= in->end) return UNREAD;
        unsigned char c = *in->at++;
        if (c == '"') break;
        if (c == '\\') {
            if (in->at >= in->end) return UNREAD;
            c = *in->at++;
        }
        TRY(put_byte(&self->form, c));
    }
    write_size(self->form.bytes + mark, (uint32_t)(self->form.size - mark - SIZE_SIZE));
    return DONE;
}

static int ends_element(unsigned char c) {
    return c == ',' || c == '}' || c == '{' || c == '"' || c == '\\';
}

static Outcome put_element(Fingerprints *self, Cursor *in, int numbers) {
    if (in->at < in->end && *in->at == '"') {
        in->at++;
        return put_quoted(self, in);
    }
    const unsigned char *start = in->at;
    while (in->at < in->end && !ends_element(*in->at)) in->at++;
    size_t size = (size_t)(in->at - start);
    if (size == 0) return UNREAD;
    if (size == 4 && memcmp(start, "NULL", 4) == 0) return put_byte(&self->form, 'N');
    return numbers ? put_numeral(self, start, in->at) : put_text(self, start, size);
}

static Outcome put_array(Fingerprints *self, const unsigned char *at, const unsigned char *end, int numbers) {
    Cursor in = {at, end};
    Fingerprint sum = {0, 0};
    size_t count = 0, mark = self->form.size;
    if (in.at >= in.end || *in.at++ != '{') return UNREAD;
    if (in.at < in.end && *in.at == '}') {
        in.at++;
    } else {
        for (;;) {
            TRY(put_element(self, &in, numbers));
            add_member(self, mark, &sum);
            count++;
            if (in.at >= in.end) return UNREAD;
            unsigned char c = *in.at++;
            if (c == '}') break;
            if (c != ',') return UNREAD;
        }
    }
    return in.at == in.end ? put_members(self, 'S', count, sum) : UNREAD;
}

/* Lines */

/* A field without the escapes of COPY's text format; 0 where memory is out. */
static int unescape(Buffer *plain, const unsigned char *at, const unsigned char *end) {
    static const char NAMES[] = "bfnrtv", VALUES[] = "\b\f\n\r\t\v";
    plain->size = 0;
    if (!reserve(plain, (size_t)(end - at))) return 0;
    while (at < end) {
        unsigned char c = *at++;
        if (c == '\\' && at < end) {
            c = *at++;
            const char *found = c ? strchr(NAMES, c) : NULL;
            if (found != NULL) c = (unsigned char)VALUES[found - NAMES];
        }
        plain->bytes[plain->size++] = c;
    }
    return 1;
}

static Outcome put_kind(Fingerprints *self, Kind kind, const unsigned char *at, const unsigned char *end) {
    switch (kind) {
        case KIND_NUMBER: return put_numeral(self, at, end);
        case KIND_MOMENT: return put_moment(self, at, end);
        case KIND_JSON: return put_document(self, at, end);
        case KIND_TEXTS: return put_array(self, at, end, 0);
        case KIND_NUMBERS: return put_array(self, at, end, 1);
        default: return put_text(self, at, (size_t)(end - at));
    }
}

static Outcome put_field(Fingerprints *self, Kind kind, const unsigned char *at, const unsigned char *end) {
    if (end - at == 2 && at[0] == '\\' && at[1] == 'N') return put_byte(&self->form, 'N');
    if (memchr(at, '\\', (size_t)(end - at)) != NULL) {
        if (!unescape(&self->plain, at, end)) return FAILED;
        at = self->plain.bytes;
        end = at + self->plain.size;
    }
    size_t mark = self->form.size;
    Outcome outcome = put_kind(self, kind, at, end);
    if (outcome != UNREAD) return outcome;
    self->form.size = mark;
    TRY(put_byte(&self->form, 'U')); /* no text that was read is equal to one that was not */
    return put_text(self, at, (size_t)(end - at));
}

static Outcome take_line(Fingerprints *self, const unsigned char *at, const unsigned char *end) {
    if (end - at > MAX_LINE) return UNREAD;
    self->form.size = 0;
    for (Py_ssize_t number = 0; number < self->kind_count; number++) {
        const unsigned char *tab = memchr(at, '\t', (size_t)(end - at));
        int is_last = number == self->kind_count - 1;
        if ((tab == NULL) != is_last) return UNREAD;
        const unsigned char *field_end = is_last ? end : tab;
        if (self->kinds[number] != KIND_LEFT_OUT) TRY(put_field(self, self->kinds[number], at, field_end));
        at = is_last ? end : tab + 1;
    }
    if (self->found_count == self->found_capacity) {
        size_t capacity = self->found_capacity * 2 + 1024;
        if (capacity > SIZE_MAX / sizeof(Fingerprint)) return FAILED;
        Fingerprint *moved = realloc(self->found, capacity * sizeof(Fingerprint));
        if (moved == NULL) return FAILED;
        self->found = moved;
        self->found_capacity = capacity;
    }
    self->found[self->found_count++] = fingerprint(self->key, self->form.bytes, self->form.size);
    return DONE;
}

static Outcome take_lines(Fingerprints *self, const unsigned char *at, const unsigned char *end) {
    while (at < end) {
        const unsigned char *newline = memchr(at, '\n', (size_t)(end - at));
        if (newline == NULL) return UNREAD;
        TRY(take_line(self, at, newline));
        at = newline + 1;
    }
    return DONE;
}

/* Python */

static int read_kinds(Fingerprints *self, PyObject *kinds) {
    Py_ssize_t count = PyTuple_Size(kinds);
    if (count < 1) {
        PyErr_SetString(PyExc_ValueError, "a line has at least one field");
        return 0;
    }
    self->kinds = calloc((size_t)count, sizeof(Kind));
    if (self->kinds == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    self->kind_count = count;
    for (Py_ssize_t number = 0; number < count; number++) {
        PyObject *each = PyTuple_GetItem(kinds, number); /* borrowed */
        long kind = each == NULL ? -1 : PyLong_AsLong(each);
        if (kind == -1 && PyErr_Occurred()) return 0;
        if (kind < 0 || kind >= KINDS) {
            PyErr_SetString(PyExc_ValueError, "a field is of a kind that this version does not know");
            return 0;
        }
        self->kinds[number] = (Kind)kind;
    }
    return 1;
}

static PyObject *Fingerprints_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"kinds", "key", NULL};
    PyObject *kinds;
    const char *key;
    Py_ssize_t key_size;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!y#:Fingerprints", names, &PyTuple_Type, &kinds, &key, &key_size))
        return NULL;
    if (key_size != KEY_SIZE) {
        PyErr_SetString(PyExc_ValueError, "the key has 16 bytes");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Fingerprints *self = (Fingerprints *)allocate(type, 0); /* zeros */
    if (self == NULL) return NULL;
    self->key[0] = little_endian((const unsigned char *)key);
    self->key[1] = little_endian((const unsigned char *)key + 8);
    if (!read_kinds(self, kinds)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void Fingerprints_dealloc(PyObject *object) {
    Fingerprints *self = (Fingerprints *)object;
    PyTypeObject *type = Py_TYPE(object);
    free(self->kinds);
    free(self->form.bytes);
    free(self->plain.bytes);
    free(self->found);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(add_doc,
             "add(text, /)\n--\n\n"
             "Take the fingerprints of whole lines of COPY text. Raises ValueError where a line has not as many\n"
             "fields as there are kinds, or no end; the lines before it have been taken.");

static PyObject *Fingerprints_add(PyObject *object, PyObject *text) {
    enum { LARGE = 8192 };
    Fingerprints *self = (Fingerprints *)object;
    Py_buffer view;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "fingerprints are taken by one thread at a time");
        return NULL;
    }
    if (PyObject_GetBuffer(text, &view, PyBUF_SIMPLE) < 0) return NULL;
    const unsigned char *at = view.buf;
    self->busy = 1;
    PyThreadState *released = view.len < LARGE ? NULL : PyEval_SaveThread();
    Outcome outcome = take_lines(self, at, at + view.len);
    if (released != NULL) PyEval_RestoreThread(released);
    self->busy = 0;
    PyBuffer_Release(&view);
    if (outcome == UNREAD) PyErr_SetString(PyExc_ValueError, "this is not COPY text of these fields");
    if (outcome == FAILED) PyErr_NoMemory();
    if (outcome != DONE) return NULL;
    Py_RETURN_NONE;
}

static void put_big_endian(unsigned char *to, uint64_t value, int size) {
    for (int byte = 0; byte < size; byte++) to[byte] = (unsigned char)(value >> (8 * (size - 1 - byte)));
}

/* One half of the fingerprints as PostgreSQL receives bigint[] in binary (array_recv). */
static PyObject *array_of(const Fingerprints *self, int second) {
    enum { HEADER = 20, ELEMENT = 12, BIGINT = 20 };
    if (self->found_count > INT32_MAX) return PyErr_NoMemory();
    PyObject *made = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(HEADER + ELEMENT * self->found_count));
    if (made == NULL) return NULL;
    unsigned char *to = (unsigned char *)PyBytes_AsString(made);
    const uint64_t header[] = {1, 0, BIGINT, self->found_count, 1}; /* dimensions, nulls, type, size, first */
    for (int number = 0; number < 5; number++, to += 4) put_big_endian(to, header[number], 4);
    for (size_t number = 0; number < self->found_count; number++, to += ELEMENT) {
        put_big_endian(to, 8, 4);
        put_big_endian(to + 4, second ? self->found[number].second : self->found[number].first, 8);
    }
    return made;
}

PyDoc_STRVAR(take_doc,
             "take()\n--\n\n"
             "All fingerprints since the last call: how many, the sums of their halves as 64 bits with a sign,\n"
             "and both halves as arrays in PostgreSQL's binary format.");

static PyObject *Fingerprints_take(PyObject *object, PyObject *unused) {
    Fingerprints *self = (Fingerprints *)object;
    (void)unused;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "fingerprints are taken by one thread at a time");
        return NULL;
    }
    Fingerprint sum = {0, 0};
    for (size_t number = 0; number < self->found_count; number++) {
        sum.first += self->found[number].first;
        sum.second += self->found[number].second;
    }
    PyObject *first = array_of(self, 0), *second = first == NULL ? NULL : array_of(self, 1);
    if (second == NULL) {
        Py_XDECREF(first);
        return NULL;
    }
    Py_ssize_t count = (Py_ssize_t)self->found_count;
    self->found_count = 0;
    return Py_BuildValue("(nLLNN)", count, (long long)sum.first, (long long)sum.second, first, second);
}

static PyMethodDef Fingerprints_methods[] = {
    {"add", Fingerprints_add, METH_O, add_doc},
    {"take", Fingerprints_take, METH_NOARGS, take_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(Fingerprints_doc,
             "Fingerprints(kinds, key)\n--\n\n"
             "Takes 128 bits of each line of COPY text, the same for equal rows however they are written. `kinds`\n"
             "says what each field is, as a tuple of numbers; `key` are 16 bytes that nobody can foresee.");

static PyType_Slot Fingerprints_slots[] = {
    {Py_tp_new, Fingerprints_new},
    {Py_tp_dealloc, Fingerprints_dealloc},
    {Py_tp_methods, Fingerprints_methods},
    {Py_tp_doc, (void *)Fingerprints_doc},
    {0, NULL},
};

static PyType_Spec Fingerprints_spec = {
    .name = "dualstore_accelerator.Fingerprints",
    .basicsize = sizeof(Fingerprints),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Fingerprints_slots,
};

int add_fingerprints(PyObject *module) {
    PyObject *type = PyType_FromSpec(&Fingerprints_spec);
    if (type == NULL) return -1;
    int added = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return added;
}
