/* Dropout with masks drawn anew by the VJP. Formulas: fastnet/layers/dropout.py. */
#include "kernel.h"
#include "rng.h"

/* to = scale·from where the element's word ≥ threshold, else 0; both may be the same array. */
static inline void mask(const fn_call *call, real *to, const real *from) {
    const int64_t n = call->rows * call->size[0];
    const uint64_t threshold = (uint64_t)call->scalar[0]; /* up to 2³²: compared in 64 bits */
    const real scale = (real)call->scalar[1];
    for (int64_t i = 0; i < n; i += DRAW) {
        uint32_t word[4][LANES];
        philox_draw(word, i / DRAW, call->seed, call->step, (uint32_t)call->stream);
        const uint32_t *flat = &word[0][0];
        const int64_t here = smaller(DRAW, n - i);
        INDEPENDENT
        for (int64_t e = 0; e < here; e++)
            to[i + e] = flat[e] >= threshold ? from[i + e] * scale : 0;
    }
}

KERNEL(dropout_forward, OUT_OVER(y), IN_UNDER(x)) { mask(call, y, x); }

KERNEL(dropout_vjp, OUT_OVER(dx), IN_UNDER(dy)) { mask(call, dx, dy); }
