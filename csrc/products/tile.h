/* The micro-kernel of matrix products: one register tile of C = A·B, its epilogue, and its prefetches.
 *
 * A tile of C, `rows` × `vectors` SIMD vectors, stays in registers while the loop over k adds an outer product per
 * iteration: a broadcast element of each row of A times the vectors of a row of B. The epilogue adds the bias, applies
 * a ReLU mask and stores the tile.
 */
#ifndef FASTNET_TILE_H
#define FASTNET_TILE_H

#include "lib/simd.h"
#include "products/interleave.h"
#include "products/operand.h"

enum {
    TILE_COLUMNS = 2 * WIDTH,
    ROW_VECTORS = 8, /* of a one-row tile: enough independent sums to hide the latency of multiply-adds */
    SMALL_ROWS = 6,  /* of a tile whose B is unpacked and narrower than a vector */
};

#define EACH_ROW _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++)
#define EACH_VECTOR _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++)
#define EACH_SUM EACH_ROW EACH_VECTOR /* each accumulator */

/* The empty asm hides from the compiler that the rows' addresses are related. Otherwise it computes all of them at once
 * and spills them to the stack. These instructions between two tiles fill the reorder buffer, and the processor cannot
 * start one tile while it finishes the other. */
static inline real *next_row(real *row, int64_t stride) {
    row += stride;
    __asm__("" : "+r"(row));
    return row;
}
#define EACH_ROW_OF_C                                                                              \
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++, row = next_row(row, ldc))

#define EACH_ROW_OF_MASK                                                                           \
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i++, relu = next_row((real *)relu, ldc))

/* A strided region to prefetch: `runs` runs of `lines` cache lines, `stride` bytes apart. */
typedef struct {
    const char *at; /* in the first line of a run, and so far into it that the last line holds the run's last byte */
    int64_t stride, runs, lines;
} strip;

/* Rows to pack: each of `width` elements, whole vectors, `stride` elements apart in the source. */
typedef struct {
    const real *from;
    real *to;
    int64_t stride, rows, width;
} row_copy;

/* The memory work that a tile does for later ones: prefetch what they read and what they write, and pack rows of B.
 * The tile does it in `steps` small steps, spread over its loop over k. A burst of prefetches would fill the line fill
 * buffers and stall the tile's own loads. */
typedef struct {
    strip read, written;
    row_copy packed;
    int64_t steps;
} lookahead;

static inline strip strip_of(const void *at, int64_t stride, int64_t runs, int64_t bytes) {
    /* A run that begins within a line shares that line with the run before it, which prefetches it. */
    return (strip){(const char *)at + (bytes - 1) % FN_LINE, stride, runs, (bytes + FN_LINE - 1) / FN_LINE};
}

/* GCC does not see that a tile of no steps never reads its uninitialised strips. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

static inline void next_run(strip *s) {
    s->at += s->stride;
    s->lines = --s->runs > 0 ? s->lines : 0;
}

static inline void copy_row(row_copy *c) {
    for (int64_t j = 0; j < c->width; j += WIDTH)
        store(c->to + j, load(c->from + j));
    c->from += c->stride;
    c->to += c->width;
    c->rows--;
}

static inline int64_t steps_of(const lookahead *ahead) {
    const int64_t steps = ahead->read.runs > ahead->written.runs ? ahead->read.runs : ahead->written.runs;
    return steps > ahead->packed.rows ? steps : ahead->packed.rows;
}

/* One step of a tile's lookahead. */
static inline void take_step(strip *read, strip *written, row_copy *packed) {
    for (int64_t line = 0; line < read->lines; line++)
        __builtin_prefetch(read->at + line * FN_LINE);
    for (int64_t line = 0; line < written->lines; line++)
        __builtin_prefetch(written->at + line * FN_LINE, 1);
    next_run(read);
    next_run(written);
    if (packed->rows > 0)
        copy_row(packed);
}

/* The micro-kernel. `rows`, `vectors`, `whole` and `updates` are constants at each place where it is inlined.
 *
 * n         columns of C; B has as many, or whole vectors of them where `whole` is set
 * bias      NULL before the last block of k, and where there is none
 * reload    whether the tile starts from what C holds, not from zero
 * streaming whether it stores C by streaming stores
 * ahead     the lookahead, or NULL
 * relu      what the ReLU mask is computed from: C itself, or an array laid out as C is; NULL: no mask
 * queue     the update to interleave, if `updates`
 *
 * Structs are passed by pointer. An argument passed by value is written to the stack in whole vectors and read back in
 * parts, where store forwarding fails. */
static inline __attribute__((always_inline)) void
tile(const int rows, const int vectors, const int whole, int64_t K, const real *a, int64_t rs_a,
     int64_t cs_a, const real *b, int64_t rs_b, real *c, int64_t ldc, int64_t n,
     const real *bias, int reload, int streaming, const lookahead *ahead, const real *relu, const int updates,
     update_queue *queue) {
    const int full = n >= vectors * WIDTH;
    vec sum[TILE_ROWS][ROW_VECTORS], x[ROW_VECTORS];
    real *row = c;
    if (!reload)
        EACH_SUM sum[i][v] = (vec){0};
    else if (full)
        EACH_ROW_OF_C EACH_VECTOR sum[i][v] = load(row + v * WIDTH);
    else
        EACH_ROW_OF_C EACH_VECTOR sum[i][v] = load_first(row + v * WIDTH, n - v * WIDTH);
    /* A pointer to every fourth row of A; addressing modes reach the rows between. The empty asm hides that the
     * pointers are related. Otherwise the compiler keeps one offset per row, and runs out of registers. */
    const real *from[(TILE_ROWS + 3) / 4];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i += 4) {
        from[i / 4] = a + i * rs_a;
        __asm__("" : "+r"(from[i / 4]));
    }
    /* Copied to registers, which the steps then change. Without a lookahead they stay uninitialised, as zeroing them
     * would slow down small products. */
    strip read, written;
    row_copy packed;
    int64_t steps = 0;
    if (ahead) {
        read = ahead->read;
        written = ahead->written;
        packed = ahead->packed;
        steps = ahead->steps;
    }
    int64_t updating = 0; /* vectors to update, one a step */
    if (updates) {
        updating = smaller(smaller(queue->end - queue->at, vectors * rows * WIDTH) / WIDTH, K);
        steps = updating > steps ? updating : steps;
    }
    const int64_t k_per_step = steps ? K / steps : K;
    for (int64_t k = 0; k < K;) {
        int64_t end = K;
        if (steps) {
            take_step(&read, &written, &packed);
            if (updates && updating-- > 0)
                update_vector(queue);
            end = --steps ? k + k_per_step : K;
        }
        for (; k < end; k++) {
            EACH_VECTOR {
                const real *at = b + k * rs_b + v * WIDTH;
                x[v] = whole || v < vectors - 1 ? load(at) : load_first(at, n - v * WIDTH);
            }
            EACH_ROW {
                const vec factor = repeat_operand(from[i / 4] + i % 4 * rs_a);
                EACH_VECTOR sum[i][v] = add_product(factor, x[v], sum[i][v]);
            }
#pragma GCC unroll 4
            for (int i = 0; i < rows; i += 4)
                from[i / 4] += cs_a;
        }
    }
    if (bias) {
        EACH_VECTOR x[v] = load_first(bias + v * WIDTH, n - v * WIDTH);
        EACH_SUM sum[i][v] += x[v];
    }
    if (MASKS_IN_TILES && relu == c)
        EACH_SUM sum[i][v] = vec_relu(sum[i][v], sum[i][v]);
    else if (MASKS_IN_TILES && relu)
        EACH_ROW_OF_MASK EACH_VECTOR sum[i][v] =
            vec_relu(full ? load(relu + v * WIDTH) : load_first(relu + v * WIDTH, n - v * WIDTH), sum[i][v]);
    row = c;
    if (full && streaming)
        EACH_ROW_OF_C EACH_VECTOR store_streaming(row + v * WIDTH, sum[i][v]);
    else if (full)
        EACH_ROW_OF_C EACH_VECTOR store(row + v * WIDTH, sum[i][v]);
    else
        EACH_ROW_OF_C EACH_VECTOR store_first(row + v * WIDTH, sum[i][v], n - v * WIDTH);
}
#pragma GCC diagnostic pop

/* Each tile size is a function of its own. A tile whose B is not in whole vectors has no lookahead, no streaming stores
 * and no ReLU mask: it serves small products only. */
typedef void tile_of_size(int64_t K, const real *a, int64_t rs_a, int64_t cs_a, const real *b,
                          int64_t rs_b, real *c, int64_t ldc, int64_t n, const real *bias,
                          int reload, int streaming, const lookahead *ahead, const real *relu);
#define TILE(rows, vectors, whole)                                                                 \
    static __attribute__((noinline)) void tile_##rows##_##vectors##_##whole(                       \
        int64_t K, const real *a, int64_t rs_a, int64_t cs_a, const real *b, int64_t rs_b,         \
        real *c, int64_t ldc, int64_t n, const real *bias, int reload, int streaming,              \
        const lookahead *ahead, const real *relu) {                                                \
        tile(rows, vectors, whole, K, a, rs_a, cs_a, b, rs_b, c, ldc, n, bias, reload,             \
             whole && streaming, whole ? ahead : NULL, whole ? relu : NULL, 0, NULL);              \
    }

/* The tile that interleaves an update. It has one row less, whose registers the update uses. */
enum { INTERLEAVED_ROWS = TILE_ROWS - 1 };
static __attribute__((noinline, unused)) void
tile_with_update(int64_t K, const real *a, int64_t rs_a, int64_t cs_a, const real *b, int64_t rs_b, real *c,
                 int64_t ldc, int64_t n, const lookahead *ahead, update_queue *queue) {
    tile(INTERLEAVED_ROWS, 2, 1, K, a, rs_a, cs_a, b, rs_b, c, ldc, n, NULL, 0, 0, ahead, NULL, 1, queue);
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
/* By number of rows: B is unpacked and narrower than a vector. */
static tile_of_size *const small_tiles[SMALL_ROWS] = {tile_1_1_0, tile_2_1_0, tile_3_1_0,
                                                      tile_4_1_0, tile_5_1_0, tile_6_1_0};

#endif
