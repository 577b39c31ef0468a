/* What the ways to compute a matrix product share: its description, and how loops cut it, prefetch and finish tiles. */
#ifndef FASTNET_PRODUCT_H
#define FASTNET_PRODUCT_H

#include "engine/share.h"
#include "products/pack.h"
#include "products/tile.h"

/* Element (i, j) of a matrix is at[i·rs + j·cs]: row stride and column stride, one of which is 1. */
typedef struct {
    const real *at;
    int64_t rs, cs;
} matrix;

static inline matrix part(matrix m, int64_t i, int64_t j) {
    return (matrix){m.at + i * m.rs + j * m.cs, m.rs, m.cs};
}

static inline matrix transposed(matrix m) { return (matrix){m.at, m.cs, m.rs}; }

enum {
    FEW_COLUMNS = WIDTH / 4,
    PART = 1 << 16, /* the least multiply-adds worth handing to another thread */

    /* Scratch memory holds two packed panels of B, or one twice as long, and packed tiles of A. */
    BLOCK_K = 512,
    PACKED_ROWS = (TILE_ROWS + WIDTH - 1) / WIDTH * WIDTH,
    LONG_BLOCK_K = 2 * BLOCK_K, /* where tiles of C are transposed, or an unpacked B stays in the cache */
    PANELS_OF_B = 2 * BLOCK_K * TILE_COLUMNS,
    TILE_OF_A = BLOCK_K * PACKED_ROWS,
    TILES_OF_A = (FN_SCRATCH / (int)sizeof(real) - PANELS_OF_B) / TILE_OF_A,

    /* From this stride on, rows fall into few sets of the caches, and each needs a TLB entry of its own. Then C is
     * prefetched. Packing A pays from a number of columns of C on, which depends on the direction in which A is
     * contiguous; packing B pays from a number of rows on. All are measured: docs/tuning.md. */
    LARGE_STRIDE = 3584 / sizeof(real),
    COLUMNS_FOR_ROWS_OF_A = 2 * TILE_COLUMNS,
    COLUMNS_FOR_COLUMNS_OF_A = 16 * TILE_COLUMNS,
    ROWS_FOR_B = 256,
    /* With an interleaved update a block of rows has so many tiles where A is packed or B exceeds the cache, else one:
     * rows wait for their update until the block is complete, but B is read once a block. */
    INTERLEAVED_TILES = 16,
};

/* C (M, N) = A (M, K) · B (K, N), plus C itself if accumulate, plus bias (N) unless NULL. */
typedef struct {
    int64_t M, N, K;
    matrix a, b;
    real *c;
    int64_t ldc;
    const real *bias;
    int accumulate;
    int has_epilogue; /* whether `apply_epilogue` is called for each tile of C */
    const fn_call *call;
    const real *origin; /* element 0 of C, from which the epilogue counts */
    int c_transposed;   /* C is stored by columns, ldc apart */
} product;

static inline int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

static inline real *element(const product *p, int64_t i, int64_t j) {
    return p->c + (p->c_transposed ? i + j * p->ldc : i * p->ldc + j);
}

static inline int pays_to_pack_a(matrix a, int64_t N) {
    return (a.rs >= LARGE_STRIDE && N >= COLUMNS_FOR_ROWS_OF_A) ||
           (a.cs >= LARGE_STRIDE && N >= COLUMNS_FOR_COLUMNS_OF_A);
}

static inline int pays_to_pack_b(const product *p) {
    return p->b.cs != 1 || (p->b.rs >= LARGE_STRIDE && p->M >= ROWS_FOR_B);
}

/* Cut n into as few parts of at most `most` as possible, of about equal length; returns that length, a multiple of
 * `unit`. */
static inline int64_t even(int64_t n, int64_t most, int64_t unit) {
    const int64_t part = n <= most ? n : quotient_up(n, quotient_up(n, most));
    return unit == 1 || !part ? part + !part : quotient_up(part, unit) * unit;
}

static inline product rows_of(product p, fn_range r) {
    p.M = r.end - r.begin;
    p.a.at += r.begin * p.a.rs;
    p.c = element(&p, r.begin, 0);
    return p;
}

static inline product columns_of(product p, fn_range r) {
    p.N = r.end - r.begin;
    p.b.at += r.begin * p.b.cs;
    p.c = element(&p, 0, r.begin);
    p.bias = p.bias ? p.bias + r.begin : NULL;
    return p;
}

/* The least number of rows or columns that a thread takes, a multiple of `unit`; `work`: multiply-adds of each. */
static inline int64_t grain(int64_t unit, int64_t work) {
    return unit * (1 + PART / (unit * (work + 1)));
}

/* How the loops cut a product. */
typedef struct {
    int pack_a, pack_b;
    int prefetch_b;      /* tiles prefetch the next panel of B */
    int double_buffer;   /* and pack it, each a share, into the other of two buffers */
    int streaming;       /* C is stored by streaming stores: nobody reads it soon */
    int prefetch_c;      /* tiles prefetch the next tile of C */
    int needs_lookahead; /* tiles do any of this, prefetch rows of the next step, or interleave an update */
    int64_t height;      /* of a tile */
    int64_t rows, k;     /* of a block */
} blocking;

static inline blocking blocking_of(const product *p, int large_b, int large_c, int interleaving) {
    const int pack_a = pays_to_pack_a(p->a, p->N), pack_b = pays_to_pack_b(p);
    const int64_t height = interleaving ? INTERLEAVED_ROWS : even(p->M, TILE_ROWS, 1);
    const int64_t most = !interleaving ? TILES_OF_A : smaller(TILES_OF_A, pack_a || large_b ? INTERLEAVED_TILES : 1);
    const int long_block = !pack_a && (p->c_transposed || (!large_b && !pack_b));
    blocking t = {.pack_a = pack_a, .pack_b = pack_b, .height = height};
    t.rows = pack_a || interleaving ? even(p->M, most * height, height) : p->M;
    t.k = even(p->K, long_block ? LONG_BLOCK_K : BLOCK_K, 1);
    t.prefetch_b = large_b && !(p->c_transposed && pack_b);
    t.double_buffer = t.prefetch_b && pack_b;
    t.streaming = HAS_STREAMING_STORE && large_c && !interleaving && !p->has_epilogue && !p->c_transposed &&
                  !p->accumulate && p->K <= t.k &&
                  ((uintptr_t)p->c | (uintptr_t)p->ldc * sizeof(real)) % FN_LINE == 0;
    t.prefetch_c = !t.streaming && (large_b || large_c || p->ldc >= LARGE_STRIDE);
    t.needs_lookahead = t.prefetch_b || t.prefetch_c || interleaving || p->call->next_rows;
    return t;
}

/* A tile's share of a panel of B: rows from the k-th on, n columns wide. */
typedef struct {
    matrix b;
    int64_t k, rows, n;
} panel_share;

/* The i-th share of the first panel of B, which has K rows. Where the panel is transposed, shares are whole blocks of
 * WIDTH rows. Empty if no column is left. */
static inline panel_share share_of(matrix b, int64_t left, int64_t K, int64_t i, int64_t shares) {
    if (left <= 0)
        return (panel_share){0};
    const int64_t unit = b.cs == 1 ? 1 : WIDTH, units = quotient_up(K, unit);
    const int64_t k = units * i / shares * unit, end = units * (i + 1) / shares * unit;
    return (panel_share){part(b, k, 0), k, smaller(K, end) - k, smaller(TILE_COLUMNS, left)};
}

static inline int64_t bytes(int64_t n) { return n * (int64_t)sizeof(real); }

/* The share as contiguous runs, for prefetching. */
static inline strip strip_of_share(const panel_share *s) {
    return s->b.cs == 1 ? strip_of(s->b.at, bytes(s->b.rs), s->rows, bytes(s->n))
                        : strip_of(s->b.at, bytes(s->b.cs), s->n, bytes(s->rows));
}

static inline strip strip_of_tile(const product *p, int64_t i, int64_t j, int64_t rows, int64_t n) {
    return p->c_transposed ? strip_of(element(p, i, j), bytes(p->ldc), n, bytes(rows))
                           : strip_of(element(p, i, j), bytes(p->ldc), rows, bytes(n));
}

static inline int64_t whole_vectors(int64_t n) { return n > WIDTH ? 2 * WIDTH : WIDTH; }

/* Where the share lies in the packed panel. */
static inline real *place_of(const panel_share *s, real *panel) { return panel + s->k * whole_vectors(s->n); }

/* The next few cache lines of the rows that the next training step reads; empty if all are prefetched. */
static inline strip next_rows_of(fn_rows *rows) {
    enum { SOME = 7 }; /* few enough to hide behind a tile, enough to get through a minibatch; see docs/tuning.md */
    if (!rows || rows->begin >= rows->end)
        return (strip){0};
    const char *row = rows->data + rows->index[rows->begin] * rows->bytes;
    const strip some = {row + rows->at, FN_LINE, smaller(SOME, quotient_up(rows->bytes - rows->at, FN_LINE)), 1};
    rows->at += some.runs * FN_LINE;
    if (rows->at >= rows->bytes) {
        rows->begin++;
        rows->at = 0;
    }
    return some;
}

/* The innermost blocked loop: one panel of B by a block of M rows of C, from element (i0, j0) of C on. */
typedef struct {
    matrix b; /* the panel in B itself, packed or not */
    int64_t i0, j0, M, K;
    int64_t left;    /* columns of C from the panel's first on */
    int packs_ahead; /* whether the micro-kernel packs the next panel */
} panel_loop;

/* Whether the micro-kernel packs the next panel. It copies rows of whole vectors only: to transpose blocks it would
 * need more registers than a tile leaves. */
static inline int may_pack_ahead(const blocking *t, matrix b, int64_t left) {
    const int64_t n_next = smaller(TILE_COLUMNS, left - TILE_COLUMNS);
    return t->double_buffer && b.cs == 1 && n_next > 0 && n_next % WIDTH == 0;
}

/* Fill in the lookahead of the i-th tile of a panel, which packs into `to`. `share` is the tile's share of the next
 * panel; `tiled` packs it where the micro-kernel does not. */
static inline __attribute__((always_inline)) void
plan_lookahead(const product *p, const blocking *t, const panel_loop *panel, int64_t i, real *to, panel_share *share,
               lookahead *ahead) {
    const int64_t K = panel->K, tiles = quotient_up(panel->M, t->height);
    const int64_t rows_next = smaller(t->height, panel->M - (i + 1) * t->height);
    const int64_t left = panel->left - TILE_COLUMNS, n_next = smaller(TILE_COLUMNS, left);
    const matrix next = part(panel->b, 0, TILE_COLUMNS), after = part(next, 0, TILE_COLUMNS);
    panel_share prefetched = *share = share_of(next, t->prefetch_b ? left : 0, K, i, tiles);
    if (panel->packs_ahead) /* a tile packs the share that the tile before has prefetched */
        prefetched = rows_next > 0 ? share_of(next, left, K, i + 1, tiles)
                                   : share_of(after, left - TILE_COLUMNS, K, 0, tiles);
    *ahead = (lookahead){.read = prefetched.rows > 0 ? strip_of_share(&prefetched) : next_rows_of(p->call->next_rows)};
    if (t->prefetch_c && rows_next > 0)
        ahead->written = strip_of_tile(p, panel->i0 + (i + 1) * t->height, panel->j0, rows_next,
                                       smaller(TILE_COLUMNS, panel->left));
    else if (t->prefetch_c && n_next > 0)
        ahead->written = strip_of_tile(p, panel->i0, panel->j0 + TILE_COLUMNS, smaller(t->height, panel->M), n_next);
    if (panel->packs_ahead)
        ahead->packed = (row_copy){share->b.at, place_of(share, to), share->b.rs, share->rows, whole_vectors(n_next)};
    ahead->steps = smaller(steps_of(ahead), K);
}

/* Call the fused elementwise kernel for a tile that has its last values. */
static inline void run_epilogue(const product *p, const real *c, int64_t rows, int64_t n) {
    if (p->has_epilogue)
        apply_epilogue(p->call, c - p->origin, p->ldc, p->c_transposed ? n : rows, p->c_transposed ? rows : n);
}

/* What the ReLU mask of C is computed from, laid out as C is; NULL: tiles apply no mask. */
static inline const real *relu_mask_of(const product *p) {
    if (!MASKS_IN_TILES || !p->has_epilogue || !p->call->next || !p->call->relu_mask)
        return NULL;
    return p->call->relu_mask == FN_MASK_OF_ITSELF ? p->c : fn_tensor(p->call->next, 2); /* y of relu_vjp(dx, dy, y) */
}

#endif
