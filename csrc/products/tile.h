/* What matrix products are made of: tiles of C in registers, and copies of the operands in the order
 * in which tiles read them. */
#ifndef FASTNET_TILE_H
#define FASTNET_TILE_H

#include "products/beside.h"
#include "lib/simd.h"

enum {
    TILE_COLUMNS = 2 * WIDTH,
    ROW_VECTORS = 8, /* of a tile of one row: sums enough to keep the pipelines busy */
    NEAR = TURNS_FAST ? 1024 / sizeof(real) : 0, /* columns no further apart do not crowd in the cache. Measured */
    SMALL_ROWS = 6,  /* of a tile of less than a vector of columns of b in place */
};

/* Element (i, j) of a matrix is at[i·row + j·column]; row or column is 1. */
typedef struct {
    const real *at;
    int64_t row, column;
} matrix;

static inline matrix part(matrix m, int64_t i, int64_t j) {
    return (matrix){m.at + i * m.row + j * m.column, m.row, m.column};
}

static inline matrix transposed(matrix m) { return (matrix){m.at, m.column, m.row}; }

#define EACH_ROW _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
#define EACH_VECTOR _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++)
#define EACH_SUM EACH_ROW EACH_VECTOR

/* Each row of C, the next one's address unseen by the compiler: it would keep those of all rows on the stack, and what
 * that takes between two tiles leaves the processor no room to begin the second while it ends the first. */
static inline real *next_row(real *row, int64_t distance) {
    row += distance;
    __asm__("" : "+r"(row));
    return row;
}
#define EACH_ROW_OF_C                                                                              \
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++, row = next_row(row, c_row))

#define EACH_ROW_OF_GATE                                                                           \
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++, gate = next_row((real *)gate, c_row))

/* Pieces of memory, `step` bytes apart, of so many lines of cache each; `at` lies in a piece's first line, so that its
 * last byte lies in the last. */
typedef struct {
    const char *at;
    int64_t step, pieces, lines;
} strip;

/* Rows of whole vectors, `width` elements each, that are copied to where they lie together. */
typedef struct {
    const real *from;
    real *to;
    int64_t row, rows, width;
} copying;

/* What is read and what is written soon, and what is packed: while a tile computes, one piece of each after the other
 * is fetched, or copied, in so many turns; all at once they would keep its own loads waiting. */
typedef struct {
    strip read, written;
    copying packed;
    int64_t turns;
} ahead;

static inline strip strip_of(const void *at, int64_t step, int64_t pieces, int64_t bytes) {
    /* Where a piece begins within a line, its neighbour before it has fetched that. */
    return (strip){(const char *)at + (bytes - 1) % FN_LINE, step, pieces, (bytes + FN_LINE - 1) / FN_LINE};
}

/* GCC does not see that a tile without turns reads nothing of these. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

static inline void next_piece(strip *s) {
    s->at += s->step;
    s->lines = --s->pieces > 0 ? s->lines : 0;
}

static inline void copy_row(copying *c) {
    for (int64_t j = 0; j < c->width; j += WIDTH)
        store(c->to + j, load(c->from + j));
    c->from += c->row;
    c->to += c->width;
    c->rows--;
}

static inline int64_t turns_of(const ahead *soon) {
    const int64_t turns = soon->read.pieces > soon->written.pieces ? soon->read.pieces : soon->written.pieces;
    return turns > soon->packed.rows ? turns : soon->packed.rows;
}

static inline void take_turn(strip *read, strip *written, copying *packed) {
    for (int64_t line = 0; line < read->lines; line++)
        __builtin_prefetch(read->at + line * FN_LINE);
    for (int64_t line = 0; line < written->lines; line++)
        __builtin_prefetch(written->at + line * FN_LINE, 1);
    next_piece(read);
    next_piece(written);
    if (packed->rows > 0)
        copy_row(packed);
}

/* One tile: `rows`, `vectors`, `whole` and `updates` are constants where it is inlined. n columns of C exist, and of
 * b unless it has whole vectors; bias is NULL until the last block, soon where nothing is to be fetched, and gate where
 * C is not rectified: else it is C itself, or what lies as C does. todo is what waits where a tile updates. Without
 * whole vectors in b, nothing is fetched, nor is C stored past the caches. No function here takes a struct by value:
 * to read in parts what was just written whole waits for all stores before it. */
static inline __attribute__((always_inline)) void
tile(const int rows, const int vectors, const int whole, int64_t K, const real *a, int64_t a_row,
     int64_t a_column, const real *b, int64_t b_row, real *c, int64_t c_row, int64_t n,
     const real *bias, int reload, int past_caches, const ahead *soon, const real *gate, const int updates,
     pending *todo) {
    const int full = n >= vectors * WIDTH;
    vec sum[TILE_ROWS][ROW_VECTORS], x[ROW_VECTORS];
    real *row = c;
    if (!reload)
        EACH_SUM sum[i][v] = (vec){0};
    else if (full)
        EACH_ROW_OF_C EACH_VECTOR sum[i][v] = load(row + v * WIDTH);
    else
        EACH_ROW_OF_C EACH_VECTOR sum[i][v] = load_first(row + v * WIDTH, n - v * WIDTH);
    /* A pointer to every fourth row of a, whose origin the compiler must not see: it would keep an
     * offset for each row, more than there are registers. */
    const real *from[(TILE_ROWS + 3) / 4];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i += 4) {
        from[i / 4] = a + i * a_row;
        __asm__("" : "+r"(from[i / 4]));
    }
    /* Copies: turns in memory would cost a large product 1 %, and copies set to zero as much of a small one. */
    strip read, written;
    copying packed;
    int64_t turns = 0;
    if (soon) {
        read = soon->read;
        written = soon->written;
        packed = soon->packed;
        turns = soon->turns;
    }
    int64_t updating = 0; /* vectors, a turn each */
    if (updates) {
        updating = smaller(smaller(todo->end - todo->at, vectors * rows * WIDTH) / WIDTH, K);
        turns = updating > turns ? updating : turns;
    }
    const int64_t stretch = turns ? K / turns : K;
    for (int64_t k = 0; k < K;) {
        int64_t end = K;
        if (turns) {
            take_turn(&read, &written, &packed);
            if (updates && updating-- > 0)
                update_vector(todo);
            end = --turns ? k + stretch : K;
        }
        for (; k < end; k++) {
            EACH_VECTOR {
                const real *at = b + k * b_row + v * WIDTH;
                x[v] = whole || v < vectors - 1 ? load(at) : load_first(at, n - v * WIDTH);
            }
            EACH_ROW {
                const vec factor = broadcast(from[i / 4][i % 4 * a_row]);
                EACH_VECTOR sum[i][v] = vec_madd(factor, x[v], sum[i][v]);
            }
#pragma GCC unroll 4
            for (int i = 0; i < rows; i += 4)
                from[i / 4] += a_column;
        }
    }
    if (bias) {
        EACH_VECTOR x[v] = load_first(bias + v * WIDTH, n - v * WIDTH);
        EACH_SUM sum[i][v] += x[v];
    }
    if (GATES && gate == c)
        EACH_SUM sum[i][v] = vec_gated(sum[i][v], sum[i][v]);
    else if (GATES && gate)
        EACH_ROW_OF_GATE EACH_VECTOR sum[i][v] =
            vec_gated(full ? load(gate + v * WIDTH) : load_first(gate + v * WIDTH, n - v * WIDTH), sum[i][v]);
    row = c;
    if (full && past_caches)
        EACH_ROW_OF_C EACH_VECTOR stream(row + v * WIDTH, sum[i][v]);
    else if (full)
        EACH_ROW_OF_C EACH_VECTOR store(row + v * WIDTH, sum[i][v]);
    else
        EACH_ROW_OF_C EACH_VECTOR store_first(row + v * WIDTH, sum[i][v], n - v * WIDTH);
}
#pragma GCC diagnostic pop

/* Each size of tile is compiled by itself. */
typedef void tile_of_size(int64_t K, const real *a, int64_t a_row, int64_t a_column, const real *b,
                          int64_t b_row, real *c, int64_t c_row, int64_t n, const real *bias,
                          int reload, int past_caches, const ahead *soon, const real *gate);
#define TILE(rows, vectors, whole)                                                                 \
    static __attribute__((noinline)) void tile_##rows##_##vectors##_##whole(                       \
        int64_t K, const real *a, int64_t a_row, int64_t a_column, const real *b, int64_t b_row,   \
        real *c, int64_t c_row, int64_t n, const real *bias, int reload, int past_caches,          \
        const ahead *soon, const real *gate) {                                                     \
        tile(rows, vectors, whole, K, a, a_row, a_column, b, b_row, c, c_row, n, bias, reload,     \
             whole && past_caches, whole ? soon : NULL, whole ? gate : NULL, 0, NULL);             \
    }

/* One that updates beside, which takes the registers of a row. */
enum { ROWS_BESIDE = TILE_ROWS - 1 };
static __attribute__((noinline, unused)) void
tile_beside(int64_t K, const real *a, int64_t a_row, int64_t a_column, const real *b, int64_t b_row, real *c,
            int64_t c_row, int64_t n, const ahead *soon, pending *todo) {
    tile(ROWS_BESIDE, 2, 1, K, a, a_row, a_column, b, b_row, c, c_row, n, NULL, 0, 0, soon, NULL, 1, todo);
}

#if TILE_ROWS == 14
#define ROWS(f) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14)
#elif TILE_ROWS == 12
#define ROWS(f) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12)
#else
#define ROWS(f) f(1) f(2) f(3) f(4) f(5) f(6)
#endif
#define VECTORS(f) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8)
#define DEFINE(rows) TILE(rows, 1, 1) TILE(rows, 2, 1)
ROWS(DEFINE)
#undef DEFINE
#define DEFINE(vectors) TILE(1, vectors, 0)
VECTORS(DEFINE)
#undef DEFINE
TILE(2, 1, 0)
TILE(3, 1, 0)
TILE(4, 1, 0)
TILE(5, 1, 0)
TILE(6, 1, 0)
#define NAME(rows) {tile_##rows##_1_1, tile_##rows##_2_1},
static tile_of_size *const tiles[TILE_ROWS][2] = {ROWS(NAME)};
#undef NAME
#define NAME(vectors) tile_1_##vectors##_0,
static tile_of_size *const row_tiles[ROW_VECTORS] = {VECTORS(NAME)};
#undef NAME
/* By rows, with b's part of a vector in place. */
static tile_of_size *const small_tiles[SMALL_ROWS] = {tile_1_1_0, tile_2_1_0, tile_3_1_0,
                                                      tile_4_1_0, tile_5_1_0, tile_6_1_0};

/* Columns of whole squares. */
static inline __attribute__((always_inline)) void pack_squares(real *panel, const real *at, int64_t column,
                                                               int64_t K, const int64_t width) {
    for (int64_t j = 0; j < width; j += WIDTH)
        for (int64_t k = 0; k < K; k += WIDTH) {
            vec square[WIDTH];
            load_turned(square, at + k + j * column, column);
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++)
                store(panel + (k + i) * width + j, square[i]);
        }
}

#if defined(__clang__)
#define ONE_COPY __attribute__((noinline))
#else
#define ONE_COPY __attribute__((noinline, noclone))
#endif

/* Copy K rows of n columns of a matrix to a panel of rows of `width`, whole vectors, with zeros behind
 * the n-th. The panel has room for a multiple of WIDTH rows. Copies for some arguments would be no faster. */
static ONE_COPY void pack(real *panel, const real *at, int64_t row, int64_t column, int64_t K, int64_t n,
                          int64_t width) {
    if (column == 1) {
        for (int64_t k = 0; k < K; k++) {
            const real *from = at + k * row;
            for (int64_t j = 0; j < width; j += WIDTH)
                store(panel + k * width + j, load_first(from + j, n - j));
        }
        return;
    }
    if (column <= NEAR && n == width && K % WIDTH == 0) {
        if (width == WIDTH)
            pack_squares(panel, at, column, K, WIDTH);
        else
            pack_squares(panel, at, column, K, 2 * WIDTH);
        return;
    }
    for (int64_t j = 0; j < width; j += WIDTH)
        for (int64_t k = 0; k < K; k += WIDTH) {
            const real *from = at + k + j * column;
            vec square[WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++)
                square[i] = j + i < n ? load_first(from + i * column, K - k) : (vec){0};
            turn(square);
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++)
                store(panel + (k + i) * width + j, square[i]);
        }
}

/* Copy a panel's `rows` rows of n to the columns of c, which lie c_row apart: the way back. */
static void unpack(real *c, int64_t c_row, const real *panel, int64_t rows, int64_t n) {
    for (int64_t i = 0; i < rows; i += WIDTH)
        for (int64_t j = 0; j < n; j += WIDTH) {
            vec square[WIDTH];
            load_turned(square, panel + i * TILE_COLUMNS + j, TILE_COLUMNS);
#pragma GCC unroll 16
            for (int k = 0; k < WIDTH; k++)
                if (j + k < n)
                    store_first(c + (j + k) * c_row + i, square[k], rows - i);
        }
}

#endif
