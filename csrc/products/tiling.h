/* How a product is cut into blocks, panels and tiles, and what a tile fetches and packs for those after it. */
#ifndef FASTNET_TILING_H
#define FASTNET_TILING_H

#include "products/product.h"

typedef struct {
    int pack_a, pack_b;
    int by_shares;   /* while tiles compute with one panel of B, the next is fetched, */
    int two_panels;  /* and packed in another place */
    int past_caches; /* C is stored past the caches: nobody reads it soon, nor is it read here */
    int fetch_c;     /* the next tile of C is fetched */
    int looks_ahead; /* any of that, the rows of the next step, or an update beside */
    int64_t height;  /* of a tile */
    int64_t rows, k; /* of a block */
} tiling;

static inline tiling tiling_of(const product *p, int large_b, int large_c, int updates) {
    const int pack_a = pays_to_pack_a(p->a, p->N), pack_b = pays_to_pack_b(p);
    const int64_t height = updates ? ROWS_BESIDE : even(p->M, TILE_ROWS, 1);
    const int64_t most = !updates ? TILES_OF_A : smaller(TILES_OF_A, pack_a || large_b ? TILES_BESIDE : 1);
    const int long_block = !pack_a && (p->by_columns || (!large_b && !pack_b));
    tiling t = {.pack_a = pack_a, .pack_b = pack_b, .height = height};
    t.rows = pack_a || updates ? even(p->M, most * height, height) : p->M;
    t.k = even(p->K, long_block ? LONG_BLOCK_K : BLOCK_K, 1);
    t.by_shares = large_b && !(p->by_columns && pack_b);
    t.two_panels = t.by_shares && pack_b;
    t.past_caches = STREAMS && large_c && !updates && !p->finishes && !p->by_columns && !p->accumulate &&
                    p->K <= t.k && ((uintptr_t)p->c | (uintptr_t)p->c_row * sizeof(real)) % FN_LINE == 0;
    t.fetch_c = !t.past_caches && (large_b || large_c || p->c_row >= FAR);
    t.looks_ahead = t.by_shares || t.fetch_c || updates || p->call->next_rows;
    return t;
}

/* Rows of a panel of B from the k-th on, n columns wide. */
typedef struct {
    matrix b;
    int64_t k, rows, n;
} share_of_b;

/* The i-th of so many shares of the K rows of B's first panel, squares uncut; none if no column is left. */
static inline share_of_b share(matrix b, int64_t left, int64_t K, int64_t i, int64_t shares) {
    if (left <= 0)
        return (share_of_b){0};
    const int64_t unit = b.column == 1 ? 1 : WIDTH, units = quotient_up(K, unit);
    const int64_t k = units * i / shares * unit, end = units * (i + 1) / shares * unit;
    return (share_of_b){part(b, k, 0), k, smaller(K, end) - k, smaller(TILE_COLUMNS, left)};
}

static inline int64_t bytes(int64_t n) { return n * (int64_t)sizeof(real); }

/* A share of B by the pieces in which it lies together. */
static inline strip strip_of_b(const share_of_b *s) {
    return s->b.column == 1 ? strip_of(s->b.at, bytes(s->b.row), s->rows, bytes(s->n))
                            : strip_of(s->b.at, bytes(s->b.column), s->n, bytes(s->rows));
}

/* A tile of C likewise. */
static inline strip tile_of_c(const product *p, int64_t i, int64_t j, int64_t rows, int64_t n) {
    return p->by_columns ? strip_of(element(p, i, j), bytes(p->c_row), n, bytes(rows))
                         : strip_of(element(p, i, j), bytes(p->c_row), rows, bytes(n));
}

static inline int64_t whole_vectors(int64_t n) { return n > WIDTH ? 2 * WIDTH : WIDTH; }

/* Where a share lies in a packed panel. */
static inline real *place_of(const share_of_b *s, real *panel) { return panel + s->k * whole_vectors(s->n); }

/* Some lines of the rows that the next step reads, which are then no longer left; no piece if none are. */
static inline strip some_of(fn_rows *rows) {
    /* 7 at each of the 224 tiles of a minibatch of 32 rows of 784 float32 are all of them; more at a time take longer
     * than they hide. */
    enum { SOME = 7 };
    if (!rows || rows->begin >= rows->end)
        return (strip){0};
    const char *row = rows->data + rows->index[rows->begin] * rows->bytes;
    const strip some = {row + rows->at, FN_LINE, smaller(SOME, quotient_up(rows->bytes - rows->at, FN_LINE)), 1};
    rows->at += some.pieces * FN_LINE;
    if (rows->at >= rows->bytes) {
        rows->begin++;
        rows->at = 0;
    }
    return some;
}

/* A panel of B beside a block of M rows of C from element (i0, j0) on. */
typedef struct {
    matrix b; /* in place, whether it is packed or not */
    int64_t i0, j0, M, K;
    int64_t left;   /* columns of C from the panel's first on */
    int tiles_copy; /* the next panel */
} panel_of_b;

/* Whether tiles copy the next panel: only rows of whole vectors; for squares they lack registers. */
static inline int tiles_may_copy(const tiling *t, matrix b, int64_t left) {
    const int64_t n_next = smaller(TILE_COLUMNS, left - TILE_COLUMNS);
    return t->two_panels && b.column == 1 && n_next > 0 && n_next % WIDTH == 0;
}

/* What the i-th tile of a panel fetches, and copies to `to`, for those after it. `mine` is its share of the next
 * panel, which `tiled` packs where tiles do not. */
static inline __attribute__((always_inline)) void
look_ahead(const product *p, const tiling *t, const panel_of_b *panel, int64_t i, real *to, share_of_b *mine,
           ahead *soon) {
    const int64_t K = panel->K, tiles = quotient_up(panel->M, t->height);
    const int64_t rows_next = smaller(t->height, panel->M - (i + 1) * t->height);
    const int64_t left = panel->left - TILE_COLUMNS, n_next = smaller(TILE_COLUMNS, left);
    const matrix next = part(panel->b, 0, TILE_COLUMNS), after = part(next, 0, TILE_COLUMNS);
    share_of_b fetched = *mine = share(next, t->by_shares ? left : 0, K, i, tiles);
    if (panel->tiles_copy) /* they copy what the one before has fetched */
        fetched = rows_next > 0 ? share(next, left, K, i + 1, tiles) : share(after, left - TILE_COLUMNS, K, 0, tiles);
    *soon = (ahead){.read = fetched.rows > 0 ? strip_of_b(&fetched) : some_of(p->call->next_rows)};
    if (t->fetch_c && rows_next > 0)
        soon->written = tile_of_c(p, panel->i0 + (i + 1) * t->height, panel->j0, rows_next,
                                  smaller(TILE_COLUMNS, panel->left));
    else if (t->fetch_c && n_next > 0)
        soon->written = tile_of_c(p, panel->i0, panel->j0 + TILE_COLUMNS, smaller(t->height, panel->M), n_next);
    if (panel->tiles_copy)
        soon->packed = (copying){mine->b.at, place_of(mine, to), mine->b.row, mine->rows, whole_vectors(n_next)};
    soon->turns = smaller(turns_of(soon), K);
}

#endif
