/* Dropout with masks drawn anew by the VJP. Formulas: fastnet/layers/dropout.py. */
#include "rng.h"
#include "share.h"

/* The n elements, at most DRAW, of a draw: to = scale·from where the word ≥ threshold, else 0. */
static inline __attribute__((always_inline)) void mask_draw(real *to, const real *from, int64_t n,
                                                            int64_t draw, const philox *at,
                                                            uint32_t threshold, real scale) {
    _Alignas(64) uint32_t word[DRAW];
    philox_draw(word, at, draw);
    INDEPENDENT
    for (int64_t e = 0; e < n; e++) {
        const real kept = from[e] * scale;
        to[e] = word[e] >= threshold ? kept : 0;
    }
}

/* Both may be the same array. */
static inline void mask(const fn_call *call, real *to, const real *from) {
    const uint64_t threshold = (uint64_t)call->scalar[0];
    const uint32_t least = (uint32_t)threshold;
    const real scale = (real)call->scalar[1];
    const philox at = philox_at(call->seed, call->step, call->stream);
    SHARED(r, call, call->rows * call->size[0], 16 * DRAW) {
        int64_t i = r.begin;
        if (threshold > UINT32_MAX) { /* no word reaches it */
            memset(to + i, 0, (size_t)(r.end - i) * sizeof(real));
            continue;
        }
        for (; i + DRAW <= r.end; i += DRAW)
            mask_draw(to + i, from + i, DRAW, i / DRAW, &at, least, scale);
        if (i < r.end)
            mask_draw(to + i, from + i, r.end - i, i / DRAW, &at, least, scale);
    }
}

KERNEL(dropout_forward, OUT_OVER(y), IN_UNDER(x)) { mask(call, y, x); }

KERNEL(dropout_vjp, OUT_OVER(dx), IN_UNDER(dy)) { mask(call, dx, dy); }
