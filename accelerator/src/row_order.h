/* Rows of COPY's binary format in the order of their keys: see row_order.c. */

#ifndef DUALSTORE_ROW_ORDER_H
#define DUALSTORE_ROW_ORDER_H

#include <stddef.h>
#include <stdint.h>

/* A row among others. `prefix` is set while they are brought into order. */
typedef struct {
    uint64_t prefix;
    uint32_t at, size;
} PackedRow;

/* Bring rows into the order that PostgreSQL's index on their first columns has; of equal keys the first stays
 * first. `rows` and `spare` have room for `count` rows each; the answer is the one that holds them then.
 *
 * bytes: where the rows lie, each with all its columns and within bounds, as binary_rows.c makes them.
 * types: of the first columns. keys: how many of them are the key; with none, rows stay as they are. */
PackedRow *in_key_order(const unsigned char *bytes, const uint32_t *types, size_t keys, PackedRow *rows,
                        PackedRow *spare, size_t count);

#endif
