/* C = A·B (+ C) (+ bias) of operands rounded to bfloat16, with float32 sums: `gemm` as in gemm.h, for files that define
 * ROUNDED_OPERANDS before their includes.
 *
 * Both operands are always packed, and rounded on the way: blocks of A into tiles, B into one panel after the other. The
 * register tiles are those of tile.h, with the multiplication of operand.h. In the loops below a lane of k is what one
 * multiplication takes: a pair of numbers where the level has bfloat16 instructions, else one number.
 *
 * The bits of C do not depend on blocking, tile sizes or threads: each element adds its products in one order of k, and
 * between blocks of k the running sum is in C itself. The bias comes last.
 *
 * A few rows of C are the other way (`few_rows_of`): they read B in place and round it in registers.
 *
 * B may be weights that were rounded before (pairs.h). Panels then are not packed, or by few instructions.
 */
#ifndef FASTNET_ROUNDED_H
#define FASTNET_ROUNDED_H

#if !defined(ROUNDED_OPERANDS) || !ROUNDED_OPERANDS
#error "define ROUNDED_OPERANDS as 1 before the includes"
#endif

#include "products/pairs.h"
#include "products/product.h"

enum {
    GAP = 64 / sizeof(real), /* between packed rows, which would otherwise fall into few sets of the cache */
    LANES_OF_BLOCK = BLOCK_K,
    FEW_ROWS_OF_C = BFLOAT16_PAIRS ? 8 : 4, /* as many tiles as are worth their code */
};
_Static_assert((int)LANES_OF_BLOCK % 2 == 0, "blocks hold whole pairs");

/* B as pairs (pairs.h): `at` points to the first word of all, `rs` is the column with which it begins, and `cs` is 0. */
static inline int is_paired(const product *p) { return !p->b.cs; }

/* The words of pair u of a paired B, from column j on. */
static inline const uint32_t *words_of(const product *p, int64_t u, int64_t j) {
    return words_at((const uint32_t *)p->b.at, (p->K + 1) / 2, u, p->b.rs + j);
}

static inline product columns_of_rounded(product p, fn_range r) {
    p = columns_of(p, r);
    p.b.rs += is_paired(&p) ? r.begin : 0;
    return p;
}

/* The lanes of K numbers along k; an odd last one has a zero for its neighbour. */
static inline int64_t lanes_along(int64_t K) { return (K + 1) / 2 * (2 / OF_LANE); }

/* The lane `u` of n neighbouring columns: numbers 2u and 2u + 1 of each where lanes are pairs, else number u with the two
 * of a pair exchanged. `at` points to their row 0, rows are `stride` apart, and there are K. */
static inline __attribute__((always_inline)) vec lane_of_rows(const real *at, int64_t stride, int64_t u, int64_t K,
                                                              int64_t n) {
    const int64_t first = OF_LANE == 2 ? 2 * u : u ^ 1, second = 2 * u + 1;
    return join(first < K ? load_first(at + first * stride, n) : (vec){0},
                OF_LANE == 2 && second < K ? load_first(at + second * stride, n) : (vec){0});
}

/* WIDTH lanes of one row from lane u on, an even number; the row's K numbers lie one after the other. */
static inline vec lanes_of_row(const real *row, int64_t u, int64_t K) {
#if BFLOAT16_PAIRS
    const int64_t k = 2 * u;
    return pairs_of(load_first(row + k, K - k), load_first(row + k + WIDTH, K - k - WIDTH));
#elif VECTOR_BYTES / (REAL_IS_DOUBLE ? 8 : 4) == 1
    return (u ^ 1) < K ? rounded(load(row + (u ^ 1))) : (vec){0};
#else
    const vec x = rounded(load_first(row + u, K - u));
#if LANE_COUNT == 16
    return SHUFFLE(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif LANE_COUNT == 8
    return SHUFFLE(x, x, 1, 0, 3, 2, 5, 4, 7, 6);
#elif LANE_COUNT == 4
    return SHUFFLE(x, x, 1, 0, 3, 2);
#else
    return SHUFFLE(x, x, 1, 0);
#endif
#endif
}

/* Pack K × n elements of a matrix, K along k, as lanes: those of one column after the other, `width` apart. Columns from
 * the n-th on become zero. Without inlining, as three places call it. */
static __attribute__((noinline)) void pack_columns(real *to, matrix m, int64_t K, int64_t n, int64_t width) {
    const int64_t lanes = lanes_along(K);
    if (m.cs == 1) {
        int64_t u = 0;
        if (n == 2 * WIDTH && width == n) /* no masks: most panels are so */
            for (; u < K / 2 * (2 / OF_LANE); u++) {
                store(to + u * width, lane_of_rows(m.at, m.rs, u, INT64_MAX, WIDTH));
                store(to + u * width + WIDTH, lane_of_rows(m.at + WIDTH, m.rs, u, INT64_MAX, WIDTH));
            }
        for (; u < lanes; u++)
            for (int64_t j = 0; j < width; j += WIDTH)
                store(to + u * width + j, lane_of_rows(m.at + j, m.rs, u, K, n - j));
        return;
    }
    for (int64_t j = 0; j < width; j += WIDTH)
        for (int64_t u = 0; u < lanes; u += WIDTH) {
            vec block[WIDTH];
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++)
                block[i] = j + i < n ? lanes_of_row(m.at + (j + i) * m.cs, u, K) : (vec){0};
            transpose(block);
            for (int i = 0; i < WIDTH && u + i < lanes; i++)
                store(to + (u + i) * width + j, block[i]);
        }
}

/* Pack rows of K numbers, each contiguous, as rows of lanes, `stride` apart. */
static void pack_rows(real *to, matrix m, int64_t K, int64_t rows, int64_t stride) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t u = 0; u < lanes_along(K); u += WIDTH)
            store(to + i * stride + u, lanes_of_row(m.at + i * m.rs, u, K));
}

/* How the loops cut a product of rounded operands. */
static inline blocking rounded_blocking(const product *p, int large_b, int large_c, int interleaving) {
    const int64_t lanes = lanes_along(p->K), height = interleaving ? INTERLEAVED_ROWS : even(p->M, TILE_ROWS, 1);
    blocking t = {.height = height, .k = even(lanes, LANES_OF_BLOCK, 2), .prefetch_b = large_b && !is_paired(p)};
    const int64_t panel = t.k * TILE_COLUMNS, tile = PACKED_ROWS * (t.k + WIDTH + GAP);
    const int64_t most = (FN_SCRATCH / (int64_t)sizeof(real) - panel) / tile;
    t.rows = even(p->M, (interleaving ? smaller(most, INTERLEAVED_TILES) : most) * height, height);
    t.streaming = HAS_STREAMING_STORE && large_c && !interleaving && !p->has_epilogue && !p->accumulate &&
                  lanes <= t.k && ((uintptr_t)p->c | (uintptr_t)p->ldc * sizeof(real)) % FN_LINE == 0;
    t.prefetch_c = !t.streaming && (large_b || large_c || p->ldc >= LARGE_STRIDE);
    t.needs_lookahead = t.prefetch_b || t.prefetch_c || interleaving || p->call->next_rows;
    return t;
}

/* The general loops: blocks of k, blocks of rows, panels of B, tiles. `scratch` is this thread's own. */
static __attribute__((noinline)) void rounded_tiles(const product p, int large_b, int large_c, real *scratch) {
    update_queue *const update = is_interleaving(p.call) ? p.call->update->queue : NULL;
    const blocking t = rounded_blocking(&p, large_b, large_c, update != NULL);
    const int64_t all = lanes_along(p.K);
    real *const b_panel = scratch, *const tiles_of_a = scratch + t.k * TILE_COLUMNS;
    const real *const mask = relu_mask_of(&p);
    update_queue queue; /* of the parameters of the block of rows before */
    if (update) {
        queue = *update;
        queue.at = queue.end = p.c - update->g;
    }
    for (int64_t u0 = 0; u0 == 0 || u0 < all; u0 += t.k)
        for (int64_t i0 = 0; i0 < p.M; i0 += t.rows) {
            const int64_t k0 = u0 * OF_LANE, lanes = smaller(t.k, all - u0), M = smaller(t.rows, p.M - i0);
            const int64_t K = smaller(lanes * OF_LANE, p.K - k0), tiles_of_panel = quotient_up(M, t.height);
            const int last = u0 + lanes >= all, reload = p.accumulate || u0 > 0;
            /* Rows of A that are contiguous stay so, and each tile of others is packed for itself. */
            const matrix a = part(p.a, i0, k0);
            const int64_t stride = quotient_up(lanes, WIDTH) * WIDTH + GAP;
            const int by_rows = a.cs == 1;
            const int64_t a_tile = by_rows ? t.height * stride : lanes * PACKED_ROWS;
            for (int64_t i = 0; i < tiles_of_panel; i++) {
                const int64_t rows = smaller(t.height, M - i * t.height);
                if (by_rows)
                    pack_rows(tiles_of_a + i * a_tile, part(a, i * t.height, 0), K, rows, stride);
                else
                    pack_columns(tiles_of_a + i * a_tile, transposed(part(a, i * t.height, 0)), K, rows, PACKED_ROWS);
            }
            for (int64_t j0 = 0; j0 < p.N; j0 += TILE_COLUMNS) {
                const int64_t left = p.N - j0, n = smaller(TILE_COLUMNS, left), width = whole_vectors(n);
                const matrix b = is_paired(&p) ? p.b : part(p.b, k0, j0);
                const panel_loop panel = {b, i0, j0, M, K, left, 0};
                const real *bias = p.bias && last ? p.bias + j0 : NULL;
                const real *from = b_panel;
                int64_t row = width;
                if (is_paired(&p)) {
                    const uint32_t *const words = words_of(&p, k0 / 2, j0);
#if BFLOAT16_PAIRS
                    from = (const real *)words;
                    row = PANEL_COLUMNS;
#else
                    spread_pairs(b_panel, words, lanes, width);
#endif
                } else {
                    pack_columns(b_panel, b, K, n, width);
                }
                for (int64_t i = 0; i < tiles_of_panel; i++) {
                    const int64_t rows = smaller(t.height, M - i * t.height);
                    const real *const at = tiles_of_a + i * a_tile;
                    const int64_t rs = by_rows ? stride : 1, cs = by_rows ? 1 : PACKED_ROWS;
                    real *c = element(&p, i0 + i * t.height, j0);
                    panel_share share;
                    lookahead ahead;
                    if (t.needs_lookahead) {
                        plan_lookahead(&p, &t, &panel, i, NULL, &share, &ahead);
                        ahead.steps = smaller(ahead.steps, lanes);
                    }
                    if (update && rows == INTERLEAVED_ROWS && n > WIDTH)
                        tile_with_update(lanes, at, rs, cs, from, row, c, p.ldc, n, &ahead, &queue);
                    else
                        tiles[rows - 1][n > WIDTH](lanes, at, rs, cs, from, row, c, p.ldc, n, bias, reload,
                                                   t.streaming, t.needs_lookahead ? &ahead : NULL,
                                                   !mask || !last   ? NULL
                                                   : mask == p.c ? c
                                                                 : mask + (c - p.origin));
                    if (last && !mask)
                        run_epilogue(&p, c, rows, n);
                }
            }
            if (update) {
                update_all(&queue);
                queue.end += M * p.N;
            }
        }
    if (update)
        update_all(&queue);
    if (t.streaming)
        streaming_fence();
}

/* Vectors of a tile whose B is rounded in registers, which hold its sums. A single row takes as many as there are, where
 * C has them, so that rows of B are read in long runs. */
static inline __attribute__((always_inline)) int direct_vectors(int64_t rows, int64_t n) {
    return rows > 4 ? 3 : rows > 1 || n < ROW_VECTORS * WIDTH ? 4 : ROW_VECTORS;
}

/* A few rows of C, whose columns of B are contiguous by rows: each row of B is read once and rounded in registers, or is
 * pairs already. */
static inline __attribute__((always_inline)) void direct_tile(const int rows, const int vectors, const int paired,
                                                              const product *p, int64_t j, const real *a,
                                                              int64_t stride) {
    const int64_t n = p->N - j, lanes = lanes_along(p->K), pairs = (p->K + 1) / 2;
    vec sum[FEW_ROWS_OF_C][ROW_VECTORS], x[ROW_VECTORS];
    EACH_SUM sum[i][v] = p->accumulate ? load_first(element(p, i, j) + v * WIDTH, n - v * WIDTH) : (vec){0};
    int64_t u = 0;
#define ADD_LANE(lane)                                                                             \
    {                                                                                              \
        EACH_VECTOR x[v] = lane;                                                                   \
        EACH_ROW {                                                                                 \
            const vec factor = repeat_operand(a + i * stride + u);                                 \
            EACH_VECTOR sum[i][v] = add_product(factor, x[v], sum[i][v]);                          \
        }                                                                                          \
    }
    if (paired) {
        const uint32_t *words[ROW_VECTORS];
        EACH_VECTOR words[v] = words_of(p, 0, j + (v * WIDTH < n ? v * WIDTH : 0));
        for (int64_t k = 0; k < pairs; k++)
#pragma GCC unroll 2
            for (int odd = 0; odd < 2 / OF_LANE; odd++, u++)
                ADD_LANE(lane_of_words(words[v] + k * PANEL_COLUMNS, odd))
    } else if (n >= vectors * WIDTH) /* no masks */
        for (; u < p->K / 2 * (2 / OF_LANE); u++)
            ADD_LANE(lane_of_rows(p->b.at + j + v * WIDTH, p->b.rs, u, INT64_MAX, WIDTH))
    for (; u < lanes; u++)
        ADD_LANE(lane_of_rows(p->b.at + j + v * WIDTH, p->b.rs, u, p->K, n - v * WIDTH))
#undef ADD_LANE
    if (p->bias) {
        EACH_VECTOR x[v] = load_first(p->bias + j + v * WIDTH, n - v * WIDTH);
        EACH_SUM sum[i][v] += x[v];
    }
    EACH_SUM store_first(element(p, i, j) + v * WIDTH, sum[i][v], n - v * WIDTH);
    run_epilogue(p, element(p, 0, j), rows, smaller(vectors * WIDTH, n));
}

typedef void tile_of_few_rows(const product *p, int64_t j, const real *a, int64_t stride);
#define DIRECT_OF(rows, vectors, paired)                                                           \
    static __attribute__((noinline)) void direct_tile_##rows##_##vectors##_##paired(               \
        const product *p, int64_t j, const real *a, int64_t stride) {                              \
        direct_tile(rows, vectors, paired, p, j, a, stride);                                       \
    }
#define DIRECT(rows, vectors) DIRECT_OF(rows, vectors, 0) DIRECT_OF(rows, vectors, 1)
DIRECT(1, 8)
DIRECT(1, 4)
DIRECT(2, 4)
DIRECT(3, 4)
DIRECT(4, 4)
#if BFLOAT16_PAIRS
DIRECT(5, 3)
DIRECT(6, 3)
DIRECT(7, 3)
DIRECT(8, 3)
#endif
#undef DIRECT
#undef DIRECT_OF

static void few_rows_of(const product p, real *scratch) {
#define BOTH(rows, vectors) {direct_tile_##rows##_##vectors##_0, direct_tile_##rows##_##vectors##_1}
    static tile_of_few_rows *const of_rows[FEW_ROWS_OF_C][2] = {
        BOTH(1, 4), BOTH(2, 4), BOTH(3, 4), BOTH(4, 4),
#if BFLOAT16_PAIRS
        BOTH(5, 3), BOTH(6, 3), BOTH(7, 3), BOTH(8, 3),
#endif
    }, *const long_row[2] = BOTH(1, 8);
#undef BOTH
    const int paired = is_paired(&p);
    const int64_t stride = quotient_up(lanes_along(p.K), WIDTH) * WIDTH;
    pack_rows(scratch, p.a, p.K, p.M, stride);
    for (int64_t j = 0, vectors; j < p.N; j += vectors * WIDTH) {
        vectors = direct_vectors(p.M, p.N - j);
        (vectors == ROW_VECTORS ? long_row : of_rows[p.M - 1])[paired](&p, j, scratch, stride);
    }
}

/* Whether `few_rows_of` serves: its rows of A fit into scratch memory. */
static inline int has_few_rows(const product *p) {
    return p->M <= FEW_ROWS_OF_C && p->b.cs <= 1 && p->a.cs == 1 &&
           p->M * (lanes_along(p->K) + WIDTH) * (int64_t)sizeof(real) <= FN_SCRATCH;
}

/* Share the product among the team, by rows or by columns of C; every member of a team chooses the same. */
static __attribute__((noinline)) void gemm_of_rounded(const fn_call *call, const product *given) {
    const product p = *given;
    const int large_b = exceeds_cache(p.K * p.N), large_c = exceeds_cache(p.M * p.N);
    const int along_rows = p.M > p.N;
    if (has_few_rows(&p) && !is_interleaving(call)) {
        SHARED(r, call, p.N, grain(ROW_VECTORS * WIDTH, p.M * p.K))
            few_rows_of(columns_of_rounded(p, r), call->scratch);
        return;
    }
    /* Parts are large, as each thread packs for itself. */
    SHARED(r, call, along_rows ? p.M : p.N,
           along_rows ? grain(8 * TILE_ROWS, p.N * p.K) : grain(4 * TILE_COLUMNS, p.M * p.K))
        rounded_tiles(along_rows ? rows_of(p, r) : columns_of_rounded(p, r), large_b, large_c, call->scratch);
}

static inline void gemm(const fn_call *call, product p) {
    if (p.M && p.N)
        gemm_of_rounded(call, &p);
}

#endif
