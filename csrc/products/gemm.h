/* C = A·B (+ C) (+ bias): the matrix products of the linear layer.
 *
 * The scheme is that of BLIS and GotoBLAS. The micro-kernel (tile.h) computes a register tile of C over a block of k.
 * B goes into packed panels, A into packed tiles of rows, each where packing pays (pack.h); otherwise the micro-kernel
 * reads the operand in place. Row and column strides describe transposed operands. What exceeds the caches is
 * prefetched by earlier tiles, or stored by streaming stores; docs/tuning.md has the measurements.
 *
 * The bits of C do not depend on blocking, tile sizes, packing or threads. Each element adds its products one after the
 * other in the order of k, by fused multiply-adds, from zero or from what C holds. Between blocks of k the running sum
 * is in C itself. The bias comes last.
 *
 * Some shapes take another way than the general loops (`tiled`):
 *   - `plain`, where everything stays in the caches: fewer decisions before the first tile
 *   - Cᵀ = Bᵀ·Aᵀ, where that is cheaper; each tile of C is transposed on the stack
 *   - `one_row`, for M = 1, and `small_tiles`, for a few rows of less than a vector
 *   - `few_columns`, for very small N: SIMD lanes run across the rows of C
 */
#ifndef FASTNET_GEMM_H
#define FASTNET_GEMM_H

#include "products/product.h"

static inline int is_vector(const product *p) { return p->M == 1 || (p->N == 1 && p->ldc == 1); }

/* Whether Cᵀ = Bᵀ·Aᵀ is cheaper. */
static inline int pays_to_transpose(const product *p) {
    if (p->bias)
        return 0;
    if (is_vector(p)) /* so that the matrix is read contiguously */
        return p->M == 1 ? p->b.cs > 1 : p->a.cs > 1;
    if (p->b.cs == 1) /* so that fewer SIMD lanes are idle */
        return p->a.rs == 1 && p->N > FEW_COLUMNS && p->M >= WIDTH &&
               p->K * (WIDTH - p->N) > 8 * p->N;
    if (p->a.cs != 1 || p->M % WIDTH)
        return 0;
    if (pays_to_pack_a(transposed(p->b), p->M)) /* which costs more than packing B by transposed blocks */
        return 0;
    /* Compare the elements to transpose: A's and C's, which is loaded and stored once a block, with B's. */
    const int64_t transposes_of_c = 2 * quotient_up(p->K, LONG_BLOCK_K) - 1;
    return 2 * p->M * (p->K + transposes_of_c * p->N) < p->K * p->N;
}

/* Whether the short way serves: B and C stay in the caches, one block of k and of rows covers all, and no special shape
 * applies. */
static inline int is_plain(const product *p, int large_b, int large_c) {
    return p->M > 1 && p->N > FEW_COLUMNS && !large_b && !large_c && !p->c_transposed && p->K <= LONG_BLOCK_K &&
           p->ldc < LARGE_STRIDE && !pays_to_pack_a(p->a, p->N);
}

/* The general loops: blocks of k, blocks of rows, panels of B, tiles. `scratch` is this thread's own. */
static inline __attribute__((always_inline)) void tiled(const product p, const int large_b, const int large_c,
                                                        real *scratch) {
    real *const panels[2] = {scratch, scratch + PANELS_OF_B / 2}, *const tiles_of_a = scratch + PANELS_OF_B;
    real tile_of_c[PACKED_ROWS * TILE_COLUMNS] __attribute__((aligned(64)));
    update_queue *const update = is_interleaving(p.call) ? p.call->update->queue : NULL;
    const blocking t = blocking_of(&p, large_b, large_c, update != NULL);
    update_queue queue; /* of the parameters of the block of rows before */
    if (update) {
        queue = *update;
        queue.at = queue.end = p.c - update->g;
    }

    for (int64_t k0 = 0; k0 == 0 || k0 < p.K; k0 += t.k)
        for (int64_t i0 = 0; i0 < p.M; i0 += t.rows) {
            const int64_t K = smaller(t.k, p.K - k0), M = smaller(t.rows, p.M - i0);
            const int64_t tiles_of_panel = quotient_up(M, t.height);
            matrix a = part(p.a, i0, k0);
            int64_t a_tile = t.height * a.rs;
            if (t.pack_a) {
                for (int64_t i = 0; i < tiles_of_panel; i++)
                    pack(tiles_of_a + i * TILE_OF_A, a.at + i * a_tile, a.cs, a.rs, K,
                         smaller(t.height, M - i * t.height), PACKED_ROWS);
                a = (matrix){tiles_of_a, 1, PACKED_ROWS};
                a_tile = TILE_OF_A;
            }
            for (int64_t j0 = 0, current = 0; j0 < p.N; j0 += TILE_COLUMNS, current ^= t.double_buffer) {
                const int64_t left = p.N - j0, n = smaller(TILE_COLUMNS, left);
                const int vectors = n > WIDTH ? 2 : 1, reload = p.accumulate || k0 > 0;
                const real *bias = p.bias && k0 + K >= p.K ? p.bias + j0 : NULL, *at = a.at;
                matrix b = part(p.b, k0, j0);
                const panel_loop panel = {b, i0, j0, M, K, left, may_pack_ahead(&t, b, left)};
                if (t.pack_b || n < vectors * WIDTH) {
                    if (!t.double_buffer || !j0)
                        pack(panels[current], b.at, b.rs, b.cs, K, n, vectors * WIDTH);
                    b = (matrix){panels[current], vectors * WIDTH, 1};
                }
                for (int64_t i = 0; i < tiles_of_panel; i++, at += a_tile) {
                    const int64_t rows = smaller(t.height, M - i * t.height);
                    real *c = element(&p, i0 + i * t.height, j0);
                    panel_share share = {0};
                    lookahead ahead;
                    if (t.needs_lookahead)
                        plan_lookahead(&p, &t, &panel, i, panels[current ^ 1], &share, &ahead);

                    if (p.c_transposed && reload)
                        pack(tile_of_c, c, 1, p.ldc, rows, n, TILE_COLUMNS);
                    if (update && rows == INTERLEAVED_ROWS && vectors == 2)
                        tile_with_update(K, at, a.rs, a.cs, b.at, b.rs, c, p.ldc, n, &ahead, &queue);
                    else
                        tiles[rows - 1][vectors - 1](K, at, a.rs, a.cs, b.at, b.rs,
                                                     p.c_transposed ? tile_of_c : c,
                                                     p.c_transposed ? TILE_COLUMNS : p.ldc,
                                                     p.c_transposed ? vectors * WIDTH : n, bias, reload,
                                                     t.streaming, t.needs_lookahead ? &ahead : NULL, NULL);
                    if (p.c_transposed)
                        unpack(c, p.ldc, tile_of_c, rows, n);
                    if (t.double_buffer && !panel.packs_ahead && share.rows > 0)
                        pack(place_of(&share, panels[current ^ 1]), share.b.at, share.b.rs, share.b.cs, share.rows,
                             share.n, whole_vectors(share.n));
                    if (k0 + K >= p.K)
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

/* The loops where everything stays in the caches: no blocks of k or rows, no lookahead. A function of its own that does
 * not copy p: few instructions lie between two products, so the processor starts one while it finishes the other. */
static __attribute__((noinline)) void plain(const product *p, real *panel) {
    const int64_t K = p->K, N = p->N, height = even(p->M, TILE_ROWS, 1);
    const int pack_b = pays_to_pack_b(p);
    const real *relu = relu_mask_of(p);
    for (int64_t j0 = 0; j0 < N; j0 += TILE_COLUMNS) {
        const int64_t n = smaller(TILE_COLUMNS, N - j0);
        const int vectors = n > WIDTH ? 2 : 1;
        const real *bias = p->bias ? p->bias + j0 : NULL, *a = p->a.at;
        real *c = p->c + j0;
        matrix b = part(p->b, 0, j0);
        if (pack_b || n < vectors * WIDTH) {
            pack(panel, b.at, b.rs, b.cs, K, n, vectors * WIDTH);
            b = (matrix){panel, vectors * WIDTH, 1};
        }
        for (int64_t left = p->M; left > 0; left -= height, a += height * p->a.rs, c += height * p->ldc) {
            const int64_t rows = smaller(height, left);
            tiles[rows - 1][vectors - 1](K, a, p->a.rs, p->a.cs, b.at, b.rs, c, p->ldc, n, bias,
                                         p->accumulate, 0, NULL, relu ? relu + (c - p->c) : NULL);
            if (!relu)
                run_epilogue(p, c, rows, n);
        }
    }
}

/* One row of C, with B contiguous by rows: each row of B is read once, from end to end. */
static void one_row(const product p) {
    for (int64_t j = 0; j < p.N; j += ROW_VECTORS * WIDTH) {
        const int64_t n = smaller(ROW_VECTORS * WIDTH, p.N - j);
        row_tiles[(n - 1) / WIDTH](p.K, p.a.at, p.a.rs, p.a.cs, p.b.at + j, p.b.rs, p.c + j,
                                   p.ldc, n, p.bias ? p.bias + j : NULL, p.accumulate, 0, NULL, NULL);
        run_epilogue(&p, p.c + j, 1, n);
    }
}

/* load_transposed of a block at the edge: only `rows` rows of n elements exist, and the others count as zero. Not
 * inlined, as few_columns would have a copy for each unrolled group. */
static __attribute__((noinline)) void load_edge(vec block[WIDTH], const real *from, int64_t row, int64_t rows,
                                                int64_t n) {
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; i++)
        block[i] = i < rows ? load_first(from + i * row, n) : (vec){0};
    transpose(block);
}

/* At most FEW_COLUMNS columns: SIMD lanes run across the rows of C, GROUPS vectors of them at a time. */
static inline __attribute__((always_inline)) void few_columns(const int columns, const product p) {
    enum { GROUPS = 4 };
#define EACH_LANES                                                                                 \
    _Pragma("GCC unroll 4") for (int g = 0; g < GROUPS; g++)                                       \
        _Pragma("GCC unroll 4") for (int j = 0; j < columns; j++)
    for (int64_t i0 = 0; i0 < p.M; i0 += GROUPS * WIDTH) {
        const int64_t M = smaller(GROUPS * WIDTH, p.M - i0);
        real *c = p.c + i0 * p.ldc, lane[GROUPS][4][WIDTH];
        vec sum[GROUPS][4];
        for (int64_t i = 0; p.accumulate && i < M; i++)
            for (int j = 0; j < columns; j++)
                lane[i / WIDTH][j][i % WIDTH] = c[i * p.ldc + j];
        EACH_LANES sum[g][j] = p.accumulate ? load(lane[g][j]) : (vec){0};
        for (int64_t k0 = 0; k0 < p.K; k0 += WIDTH) {
            const int64_t K = smaller(WIDTH, p.K - k0);
#pragma GCC unroll 4
            for (int g = 0; g < GROUPS; g++) {
                const matrix a = part(p.a, i0 + g * WIDTH, k0);
                const int64_t rows = M - g * WIDTH;
                vec block[WIDTH]; /* WIDTH rows of A, transposed */
                if (rows <= 0)
                    break;
                if (a.rs == 1) {
#pragma GCC unroll 16
                    for (int k = 0; k < WIDTH; k++)
                        block[k] = k < K ? load_first(a.at + k * a.cs, rows) : (vec){0};
                } else if (rows >= WIDTH && K == WIDTH) {
                    load_transposed(block, a.at, a.rs);
                } else {
                    vec edge[WIDTH];
                    load_edge(edge, a.at, a.rs, rows, K);
#pragma GCC unroll 16
                    for (int i = 0; i < WIDTH; i++)
                        block[i] = edge[i];
                }
#pragma GCC unroll 16
                for (int k = 0; k < WIDTH; k++)
                    if (k < K)
#pragma GCC unroll 4
                        for (int j = 0; j < columns; j++) {
                            const real b = p.b.at[(k0 + k) * p.b.rs + j * p.b.cs];
                            sum[g][j] = vec_madd(block[k], broadcast(b), sum[g][j]);
                        }
            }
        }
        EACH_LANES sum[g][j] = p.bias ? sum[g][j] + p.bias[j] : sum[g][j];
        if (columns == 1 && p.ldc == 1) {
#pragma GCC unroll 4
            for (int g = 0; g < GROUPS; g++)
                store_first(c + g * WIDTH, sum[g][0], M - g * WIDTH);
        } else {
            EACH_LANES store(lane[g][j], sum[g][j]);
            for (int64_t i = 0; i < M; i++)
                for (int j = 0; j < columns; j++)
                    c[i * p.ldc + j] = lane[i / WIDTH][j][i % WIDTH];
        }
        run_epilogue(&p, c, M, columns);
    }
}

/* Functions of their own: the compiler takes more than proportionally longer for one that contains all. */
#define FEW_COLUMNS_OF(columns)                                                                    \
    static __attribute__((noinline, unused)) void few_columns_##columns(const product *p, fn_range r) { \
        few_columns(columns, rows_of(*p, r));                                                      \
    }
FEW_COLUMNS_OF(1)
FEW_COLUMNS_OF(2)
FEW_COLUMNS_OF(3)
FEW_COLUMNS_OF(4)
#undef FEW_COLUMNS_OF

/* Share the product among the team, by rows or by columns of C. One function, so that no product is passed by value. */
static __attribute__((noinline)) void by_parts(const fn_call *call, const product *given, int interleaving, int large_b,
                                               int large_c) {
    const product p = *given;
    if (FEW_COLUMNS && p.N <= FEW_COLUMNS && !p.c_transposed && !interleaving) {
        SHARED(r, call, p.M, grain(4 * WIDTH, p.N * p.K)) {
            if (FEW_COLUMNS == 1 || p.N == 1) /* no function of more columns than the level's vectors need is kept */
                few_columns_1(&p, r);
            else if (FEW_COLUMNS == 2 || p.N == 2)
                few_columns_2(&p, r);
            else if (p.N == 3)
                few_columns_3(&p, r);
            else
                few_columns_4(&p, r);
        }
    } else if (p.M == 1 && p.b.cs == 1 && !p.c_transposed && !interleaving) {
        SHARED(r, call, p.N, grain(ROW_VECTORS * WIDTH, p.K))
            one_row(columns_of(p, r));
    } else {
        const int along_rows = p.M > p.N;
        const int64_t rows = (pays_to_pack_b(&p) ? 8 : 1) * TILE_ROWS; /* larger parts, as each packs for itself */
        const int64_t columns = (pays_to_pack_a(p.a, p.N) ? 4 : 1) * TILE_COLUMNS;
        SHARED(r, call, along_rows ? p.M : p.N,
               along_rows ? grain(rows, p.N * p.K) : grain(columns, p.M * p.K))
            tiled(along_rows ? rows_of(p, r) : columns_of(p, r), large_b, large_c, call->scratch);
    }
}

/* Choose the way; every member of a team chooses the same. */
static __attribute__((noinline)) void gemm_by_size(const fn_call *call, const product *p) {
    const int interleaving = is_interleaving(call); /* only `tiled` does that */
    product flipped;
    if (!interleaving && pays_to_transpose(p)) {
        flipped = (product){.M = p->N,
                            .N = p->M,
                            .K = p->K,
                            .a = transposed(p->b),
                            .b = transposed(p->a),
                            .c = p->c,
                            .ldc = is_vector(p) ? 1 : p->ldc,
                            .accumulate = p->accumulate,
                            .has_epilogue = p->has_epilogue,
                            .call = p->call,
                            .origin = p->origin,
                            .c_transposed = !is_vector(p)};
        p = &flipped;
    }
    const int large_b = exceeds_cache(p->K * p->N), large_c = exceeds_cache(p->M * p->N);
    if (!call->member && !call->next_rows && !interleaving && is_plain(p, large_b, large_c))
        plain(p, call->scratch);
    else
        by_parts(call, p, interleaving, large_b, large_c);
}

/* The entry. It handles the smallest products first, whose description then stays in registers. */
static inline __attribute__((always_inline)) void gemm(const fn_call *call, product p) {
    if (!p.M || !p.N)
        return;
    if (p.M > SMALL_ROWS || p.N >= WIDTH || p.b.cs != 1) {
        gemm_by_size(call, &p);
    } else if (is_first(call)) {
        small_tiles[p.M - 1](p.K, p.a.at, p.a.rs, p.a.cs, p.b.at, p.b.rs, p.c, p.ldc, p.N,
                             p.bias, p.accumulate, 0, NULL, NULL);
        run_epilogue(&p, p.c, p.M, p.N);
    }
}

#endif
