/* C = A·B (+ C) (+ bias): the one family of matrix products.
 *
 * A tile of TILE_ROWS × 2 vectors of C lives in registers while k runs over a block of at most
 * LONG_BLOCK_K. Every element of C adds its products one by one in the order of k, by fused
 * multiply-adds from zero or from what is there; between blocks C itself is the accumulator, and
 * the bias comes last. So its bits depend neither on the sizes of tiles and blocks nor on the
 * element's place, nor on which thread computes it.
 *
 * Strides make the transposed products: A and B may be read by columns as well as by rows. They are
 * read in place where that is as fast, and otherwise first copied to scratch memory in the order in
 * which tiles read them: B by panels of two vectors of columns, and A as many tiles of rows at a
 * time as the scratch memory holds. What is too large for the caches is fetched while the tile before
 * it computes, or stored past them (docs/design.md has the measurements). Where the transposed product
 * is cheaper, C is written by columns, through a tile on the stack. A single row of C, and a few rows of
 * less than a vector, are tiles of their own; where C has very few columns, vectors run across its rows.
 */
#ifndef FASTNET_GEMM_H
#define FASTNET_GEMM_H

#include "engine/share.h"
#include "products/tiling.h"

static inline void finish_piece(const product *p, const real *c, int64_t rows, int64_t n) {
    if (p->finishes)
        finish(p->call, c - p->origin, p->c_row, p->by_columns ? n : rows,
               p->by_columns ? rows : n);
}

/* By tiles; scratch is this thread's own. */
static inline __attribute__((always_inline)) void tiled(const product p, const int large_b, const int large_c,
                                                        real *scratch) {
    real *const panels[2] = {scratch, scratch + PANELS_OF_B / 2}, *const tiles_of_a = scratch + PANELS_OF_B;
    real turned[PACKED_ROWS * TILE_COLUMNS] __attribute__((aligned(64)));
    pending *const todo = is_updating(p.call) ? p.call->update->pending : NULL;
    const tiling t = tiling_of(&p, large_b, large_c, todo != NULL);
    pending waiting; /* rows of C whose parameters are to be updated beside the rows after them */
    if (todo) {
        waiting = *todo;
        waiting.at = waiting.end = p.c - todo->g;
    }

    for (int64_t k0 = 0; k0 == 0 || k0 < p.K; k0 += t.k)
        for (int64_t i0 = 0; i0 < p.M; i0 += t.rows) {
            const int64_t K = smaller(t.k, p.K - k0), M = smaller(t.rows, p.M - i0);
            const int64_t tiles_of_panel = quotient_up(M, t.height);
            matrix a = part(p.a, i0, k0);
            int64_t a_tile = t.height * a.row;
            if (t.pack_a) {
                for (int64_t i = 0; i < tiles_of_panel; i++)
                    pack(tiles_of_a + i * TILE_OF_A, a.at + i * a_tile, a.column, a.row, K,
                         smaller(t.height, M - i * t.height), PACKED_ROWS);
                a = (matrix){tiles_of_a, 1, PACKED_ROWS};
                a_tile = TILE_OF_A;
            }
            for (int64_t j0 = 0, turn = 0; j0 < p.N; j0 += TILE_COLUMNS, turn ^= t.two_panels) {
                const int64_t left = p.N - j0, n = smaller(TILE_COLUMNS, left);
                const int vectors = n > WIDTH ? 2 : 1, reload = p.accumulate || k0 > 0;
                const real *bias = p.bias && k0 + K >= p.K ? p.bias + j0 : NULL, *at = a.at;
                matrix b = part(p.b, k0, j0);
                const panel_of_b panel = {b, i0, j0, M, K, left, tiles_may_copy(&t, b, left)};
                if (t.pack_b || n < vectors * WIDTH) {
                    if (!t.two_panels || !j0)
                        pack(panels[turn], b.at, b.row, b.column, K, n, vectors * WIDTH);
                    b = (matrix){panels[turn], vectors * WIDTH, 1};
                }
                for (int64_t i = 0; i < tiles_of_panel; i++, at += a_tile) {
                    const int64_t rows = smaller(t.height, M - i * t.height);
                    real *c = element(&p, i0 + i * t.height, j0);
                    share_of_b mine = {0}; /* of the next panel */
                    ahead soon;
                    if (t.looks_ahead)
                        look_ahead(&p, &t, &panel, i, panels[turn ^ 1], &mine, &soon);

                    if (p.by_columns && reload)
                        pack(turned, c, 1, p.c_row, rows, n, TILE_COLUMNS);
                    if (todo && rows == ROWS_BESIDE && vectors == 2)
                        tile_beside(K, at, a.row, a.column, b.at, b.row, c, p.c_row, n, &soon, &waiting);
                    else
                        tiles[rows - 1][vectors - 1](K, at, a.row, a.column, b.at, b.row,
                                                     p.by_columns ? turned : c,
                                                     p.by_columns ? TILE_COLUMNS : p.c_row,
                                                     p.by_columns ? vectors * WIDTH : n, bias, reload,
                                                     t.past_caches, t.looks_ahead ? &soon : NULL, NULL);
                    if (p.by_columns)
                        unpack(c, p.c_row, turned, rows, n);
                    if (t.two_panels && !panel.tiles_copy && mine.rows > 0)
                        pack(place_of(&mine, panels[turn ^ 1]), mine.b.at, mine.b.row, mine.b.column, mine.rows,
                             mine.n, whole_vectors(mine.n));
                    if (k0 + K >= p.K)
                        finish_piece(&p, c, rows, n);
                }
            }
            if (todo) {
                update_rest(&waiting);
                waiting.end += M * p.N;
            }
        }
    if (todo)
        update_rest(&waiting);
    if (t.past_caches)
        settle();
}

/* What tiles rectify C by, from element 0 of C on; NULL: they do not. */
static inline const real *gate_of(const product *p) {
    if (!GATES || !p->finishes || !p->call->next || !p->call->gates)
        return NULL;
    return p->call->gates == FN_GATE_ITSELF ? p->c : fn_tensor(p->call->next, 2); /* dx, dy and y of the rectifier */
}

/* By tiles, where a product is plain: nothing is fetched ahead. A function of its own, and p is not copied: with a
 * short way from one product to the next the processor begins this one while it ends the one before. */
static __attribute__((noinline)) void plain(const product *p, real *panel) {
    const int64_t K = p->K, N = p->N, height = even(p->M, TILE_ROWS, 1);
    const int pack_b = pays_to_pack_b(p);
    const real *gate = gate_of(p);
    for (int64_t j0 = 0; j0 < N; j0 += TILE_COLUMNS) {
        const int64_t n = smaller(TILE_COLUMNS, N - j0);
        const int vectors = n > WIDTH ? 2 : 1;
        const real *bias = p->bias ? p->bias + j0 : NULL, *a = p->a.at;
        real *c = p->c + j0;
        matrix b = part(p->b, 0, j0);
        if (pack_b || n < vectors * WIDTH) {
            pack(panel, b.at, b.row, b.column, K, n, vectors * WIDTH);
            b = (matrix){panel, vectors * WIDTH, 1};
        }
        for (int64_t left = p->M; left > 0; left -= height, a += height * p->a.row, c += height * p->c_row) {
            const int64_t rows = smaller(height, left);
            tiles[rows - 1][vectors - 1](K, a, p->a.row, p->a.column, b.at, b.row, c, p->c_row, n, bias,
                                         p->accumulate, 0, NULL, gate ? gate + (c - p->c) : NULL);
            if (!gate)
                finish_piece(p, c, rows, n);
        }
    }
}

/* A single row by a contiguous B, whose rows are read through once. */
static void one_row(const product p) {
    for (int64_t j = 0; j < p.N; j += ROW_VECTORS * WIDTH) {
        const int64_t n = smaller(ROW_VECTORS * WIDTH, p.N - j);
        row_tiles[(n - 1) / WIDTH](p.K, p.a.at, p.a.row, p.a.column, p.b.at + j, p.b.row, p.c + j,
                                   p.c_row, n, p.bias ? p.bias + j : NULL, p.accumulate, 0, NULL, NULL);
        finish_piece(&p, p.c + j, 1, n);
    }
}

/* A square of which only some rows, or less than all of each, are there, transposed; zeros elsewhere. One copy for
 * all that few_columns unrolls. */
static __attribute__((noinline)) void load_corner(vec square[WIDTH], const real *from, int64_t row, int64_t rows,
                                                  int64_t n) {
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; i++)
        square[i] = i < rows ? load_first(from + i * row, n) : (vec){0};
    turn(square);
}

/* At most FEW_COLUMNS columns: vectors run across the rows, GROUPS of them side by side. */
static inline __attribute__((always_inline)) void few_columns(const int columns, const product p) {
    enum { GROUPS = 4 };
#define EACH_LANES                                                                                 \
    _Pragma("GCC unroll 4") for (int g = 0; g < GROUPS; g++)                                       \
        _Pragma("GCC unroll 4") for (int j = 0; j < columns; j++)
    for (int64_t i0 = 0; i0 < p.M; i0 += GROUPS * WIDTH) {
        const int64_t M = smaller(GROUPS * WIDTH, p.M - i0);
        real *c = p.c + i0 * p.c_row, lane[GROUPS][4][WIDTH];
        vec sum[GROUPS][4];
        for (int64_t i = 0; p.accumulate && i < M; i++)
            for (int j = 0; j < columns; j++)
                lane[i / WIDTH][j][i % WIDTH] = c[i * p.c_row + j];
        EACH_LANES sum[g][j] = p.accumulate ? load(lane[g][j]) : (vec){0};
        for (int64_t k0 = 0; k0 < p.K; k0 += WIDTH) {
            const int64_t K = smaller(WIDTH, p.K - k0);
#pragma GCC unroll 4
            for (int g = 0; g < GROUPS; g++) {
                const matrix a = part(p.a, i0 + g * WIDTH, k0);
                const int64_t rows = M - g * WIDTH;
                vec square[WIDTH]; /* a's columns */
                if (rows <= 0)
                    break;
                if (a.row == 1) {
#pragma GCC unroll 16
                    for (int k = 0; k < WIDTH; k++)
                        square[k] = k < K ? load_first(a.at + k * a.column, rows) : (vec){0};
                } else if (rows >= WIDTH && K == WIDTH) {
                    load_turned(square, a.at, a.row);
                } else {
                    vec corner[WIDTH];
                    load_corner(corner, a.at, a.row, rows, K);
#pragma GCC unroll 16
                    for (int i = 0; i < WIDTH; i++)
                        square[i] = corner[i];
                }
#pragma GCC unroll 16
                for (int k = 0; k < WIDTH; k++)
                    if (k < K)
#pragma GCC unroll 4
                        for (int j = 0; j < columns; j++) {
                            const real b = p.b.at[(k0 + k) * p.b.row + j * p.b.column];
                            sum[g][j] = vec_madd(square[k], broadcast(b), sum[g][j]);
                        }
            }
        }
        EACH_LANES sum[g][j] = p.bias ? sum[g][j] + p.bias[j] : sum[g][j];
        if (columns == 1 && p.c_row == 1) {
#pragma GCC unroll 4
            for (int g = 0; g < GROUPS; g++)
                store_first(c + g * WIDTH, sum[g][0], M - g * WIDTH);
        } else {
            EACH_LANES store(lane[g][j], sum[g][j]);
            for (int64_t i = 0; i < M; i++)
                for (int j = 0; j < columns; j++)
                    c[i * p.c_row + j] = lane[i / WIDTH][j][i % WIDTH];
        }
        finish_piece(&p, c, M, columns);
    }
}

/* Every way but `plain`; one function, so that no product is passed on by value. */
static __attribute__((noinline)) void by_parts(const fn_call *call, const product *given, int updates, int large_b,
                                               int large_c) {
    const product p = *given;
    if (p.N <= FEW_COLUMNS && !p.by_columns && !updates) {
        SHARED(r, call, p.M, grain(4 * WIDTH, p.N * p.K)) {
            if (p.N == 1)
                few_columns(1, rows_of(p, r));
            else if (p.N == 2)
                few_columns(2, rows_of(p, r));
            else if (p.N == 3)
                few_columns(3, rows_of(p, r));
            else
                few_columns(4, rows_of(p, r));
        }
    } else if (p.M == 1 && p.b.column == 1 && !p.by_columns && !updates) {
        SHARED(r, call, p.N, grain(ROW_VECTORS * WIDTH, p.K))
            one_row(columns_of(p, r));
    } else {
        const int along_rows = p.M > p.N;
        const int64_t rows = (pays_to_pack_b(&p) ? 8 : 1) * TILE_ROWS; /* each part packs by itself */
        const int64_t columns = (pays_to_pack_a(p.a, p.N) ? 4 : 1) * TILE_COLUMNS;
        SHARED(r, call, along_rows ? p.M : p.N,
               along_rows ? grain(rows, p.N * p.K) : grain(columns, p.M * p.K))
            tiled(along_rows ? rows_of(p, r) : columns_of(p, r), large_b, large_c, call->scratch);
    }
}

/* Decides between them; every member of a team takes the same way. */
static __attribute__((noinline)) void gemm_by_size(const fn_call *call, const product *p) {
    const int updates = is_updating(call); /* which only `tiled` does */
    product swapped;
    if (!updates && pays_to_swap(p)) {
        swapped = (product){.M = p->N,
                            .N = p->M,
                            .K = p->K,
                            .a = transposed(p->b),
                            .b = transposed(p->a),
                            .c = p->c,
                            .c_row = is_vector(p) ? 1 : p->c_row,
                            .accumulate = p->accumulate,
                            .finishes = p->finishes,
                            .call = p->call,
                            .origin = p->origin,
                            .by_columns = !is_vector(p)};
        p = &swapped;
    }
    const int large_b = exceeds_cache(p->K * p->N), large_c = exceeds_cache(p->M * p->N);
    if (!call->member && !call->next_rows && !updates && is_plain(p, large_b, large_c))
        plain(p, call->scratch);
    else
        by_parts(call, p, updates, large_b, large_c);
}

/* The small case comes before the product is written to memory. */
static inline __attribute__((always_inline)) void gemm(const fn_call *call, product p) {
    if (!p.M || !p.N)
        return;
    if (p.M > SMALL_ROWS || p.N >= WIDTH || p.b.column != 1) {
        gemm_by_size(call, &p);
    } else if (is_first(call)) {
        small_tiles[p.M - 1](p.K, p.a.at, p.a.row, p.a.column, p.b.at, p.b.row, p.c, p.c_row, p.N,
                             p.bias, p.accumulate, 0, NULL, NULL);
        finish_piece(&p, p.c, p.M, p.N);
    }
}

#endif
