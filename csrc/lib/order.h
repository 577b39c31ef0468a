/* The order of an epoch's rows: the stable order of random keys, as `permutation` in fastnet/random.py has it. */
#ifndef FASTNET_ORDER_H
#define FASTNET_ORDER_H

#include "lib/rng.h"

/* The keys that one draw gives. Block b of the stream has those of rows 2b and 2b + 1, the upper word first. */
typedef struct {
    uint64_t key[2 * BLOCKS];
} drawn_keys;

static __attribute__((noinline)) drawn_keys draw_keys(const philox *p, int64_t draw) {
    drawn_keys drawn;
    uint32_t word[DRAW];
    philox_draw(word, p, draw);
    for (int b = 0; b < BLOCKS; b++) {
        const uint32_t *const own = word + b / LANES * 4 * LANES + b % LANES;
        drawn.key[2 * b] = (uint64_t)own[0] << 32 | own[LANES];
        drawn.key[2 * b + 1] = (uint64_t)own[2 * LANES] << 32 | own[3 * LANES];
    }
    return drawn;
}

static uint64_t key_of(const philox *p, uint64_t row) {
    return draw_keys(p, (int64_t)(row / (2 * BLOCKS))).key[row % (2 * BLOCKS)];
}

/* See fn_draws. */
static void draw_many(uint64_t seed, int64_t stream, uint64_t step, int64_t first, int64_t n, uint64_t *drawn) {
    const philox p = philox_at(seed, step, stream);
    for (int64_t row = first, end = first + n; row < end;) {
        const drawn_keys keys = draw_keys(&p, row / (2 * BLOCKS));
        for (int64_t i = row % (2 * BLOCKS); i < 2 * BLOCKS && row < end; i++)
            drawn[row++ - first] = keys.key[i];
    }
}

/* FEW numbers are sorted by insertion alone. Up to MANY stay in a core's own cache: one pass spreads them over buckets
 * by their upper bits, and insertion sorts the nearly sorted result. More are split into parts first. */
enum { FEW = 24, MANY = 1 << 16, MAX_BITS = 14, SPLIT_BITS = 8 };

static void insertion_sort(uint64_t *a, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        const uint64_t own = a[i];
        int64_t at = i;
        for (; at > 0 && a[at - 1] > own; at--)
            a[at] = a[at - 1];
        a[at] = own;
    }
}

/* Sort n uniform numbers from `a` into `sorted`, which is `a` or `spare`. They agree in all but their last `bits`. */
static void sort(uint64_t *a, uint64_t *spare, int64_t n, int bits, uint64_t *sorted) {
    if (n <= FEW) {
        insertion_sort(a, n);
        if (sorted != a)
            memcpy(sorted, a, (size_t)n * sizeof *a);
        return;
    }
    const int all = 63 - __builtin_clzll((uint64_t)n), most = n > MANY ? SPLIT_BITS : MAX_BITS;
    const int wanted = all < most ? all : most, own = wanted < bits ? wanted : bits, rest = bits - own;
    const uint64_t mask = (UINT64_C(1) << own) - 1;
    int64_t begin[(1 << MAX_BITS) + 1];
    memset(begin, 0, sizeof *begin * (size_t)(mask + 2));
    for (int64_t i = 0; i < n; i++)
        begin[(a[i] >> rest & mask) + 1]++;
    for (uint64_t b = 0; b < mask; b++)
        begin[b + 1] += begin[b];
    for (int64_t i = 0; i < n; i++)
        spare[begin[a[i] >> rest & mask]++] = a[i]; /* begin[b] becomes where the next bucket begins */
    if (n <= MANY) {
        insertion_sort(spare, n);
        if (sorted != spare)
            memcpy(sorted, spare, (size_t)n * sizeof *spare);
        return;
    }
    for (int64_t b = 0, first = 0; b <= (int64_t)mask; first = begin[b++])
        sort(spare + first, a + first, begin[b] - first, rest, sorted + first);
}

/* The sort has seen the upper bits of the keys only. Put rows that agree in these into the order of their whole keys. */
static void settle_ties(const philox *p, uint64_t *a, int64_t n, uint64_t row_bits) {
    for (int64_t i = 1; i < n; i++) {
        const uint64_t own = a[i];
        int64_t at = i;
        for (; at > 0 && (a[at - 1] | row_bits) == (own | row_bits); at--) {
            if (key_of(p, a[at - 1] & row_bits) <= key_of(p, own & row_bits))
                break;
            a[at] = a[at - 1];
        }
        a[at] = own;
    }
}

/* See fn_order. */
static void order(uint64_t seed, int64_t stream, uint64_t epoch, int64_t n, int64_t *rows, uint64_t *spare) {
    const philox p = philox_at(seed, epoch, stream);
    const int bits = n > 1 ? 64 - __builtin_clzll((uint64_t)n - 1) : 0;
    const uint64_t row_bits = (UINT64_C(1) << bits) - 1;
    uint64_t *const a = (uint64_t *)rows;
    for (int64_t draw = 0, row = 0; row < n; draw++) {
        const drawn_keys drawn = draw_keys(&p, draw);
        for (int i = 0; i < 2 * BLOCKS && row < n; i++, row++)
            a[row] = (drawn.key[i] & ~row_bits) | (uint64_t)row;
    }
    sort(a, spare, n, 64, a);
    settle_ties(&p, a, n, row_bits);
    for (int64_t i = 0; i < n; i++)
        rows[i] = (int64_t)(a[i] & row_bits);
}

#endif
