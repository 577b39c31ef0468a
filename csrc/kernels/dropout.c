/* Dropout, alone, by a schedule and after ReLU, and alpha dropout. The VJP draws the mask again instead of reading a
 * stored one. Formulas: dropout.py and relu_dropout.py in fastnet/layers. */
#include "engine/share.h"
#include "lib/rng.h"

/* to = scale·from if the element's random word is ≥ threshold, else 0; both may be the same array. The numbers are
 * threshold and scale. Elements of `from` that are ≤ bound count as 0; none do if the bound is NaN. */
static __attribute__((noinline)) void mask(const fn_call *call, const double *numbers, real *to, const real *from,
                                           real bound) {
    const uint64_t threshold = (uint64_t)numbers[0];
    const uint32_t least = (uint32_t)threshold;
    const real scale = (real)numbers[1];
    const philox at = philox_at(call->seed, step_of(call->step), call->stream);
    const int64_t before = place_of(call->step) * call->size[0]; /* elements of rows before these */
    SHARED(r, call, call->rows * call->size[0], 16 * DRAW) {
        if (threshold > UINT32_MAX) { /* no word reaches it */
            memset(to + r.begin, 0, (size_t)(r.end - r.begin) * sizeof(real));
            continue;
        }
        for (int64_t i = r.begin; i < r.end; i += DRAW) {
            _Alignas(64) uint32_t room[2 * DRAW];
            const int64_t n = smaller(DRAW, r.end - i);
            const uint32_t *const word = philox_words(room, &at, before + i);
            INDEPENDENT
            for (int64_t e = 0; e < n; e++) {
                const real kept = (from[i + e] <= bound ? 0 : from[i + e]) * scale;
                to[i + e] = word[e] >= least ? kept : 0;
            }
        }
    }
}

static const real unbounded = REAL_FN(nan)("");

KERNEL(dropout_forward, OUT_OVER(y), IN_UNDER(x)) { mask(call, call->scalar, y, x, unbounded); }

KERNEL(dropout_vjp, OUT_OVER(dx), IN_UNDER(dy)) { mask(call, call->scalar, dx, dy, unbounded); }

KERNEL(scheduled_dropout_forward, OUT_OVER(y), IN_UNDER(x), IN_AS(double, n)) { mask(call, n, y, x, unbounded); }

KERNEL(scheduled_dropout_vjp, OUT_OVER(dx), IN_UNDER(dy), IN_AS(double, n)) { mask(call, n, dx, dy, unbounded); }

KERNEL(relu_dropout_forward, OUT_OVER(y), IN_UNDER(x)) { mask(call, call->scalar, y, x, 0); }

/* The same with y = scale·x + kept, or dropped. */
KERNEL(alpha_dropout_forward, OUT_OVER(y), IN_UNDER(x)) {
    const uint64_t threshold = (uint64_t)call->scalar[0];
    const real scale = (real)call->scalar[1], kept = (real)call->scalar[2], dropped = (real)call->scalar[3];
    const philox at = philox_at(call->seed, step_of(call->step), call->stream);
    const int64_t before = place_of(call->step) * call->size[0]; /* elements of rows before these */
    SHARED(r, call, call->rows * call->size[0], 16 * DRAW)
        for (int64_t i = r.begin; i < r.end; i += DRAW) {
            _Alignas(64) uint32_t room[2 * DRAW];
            const int64_t n = smaller(DRAW, r.end - i);
            const uint32_t *const word = philox_words(room, &at, before + i);
            INDEPENDENT
            for (int64_t e = 0; e < n; e++) {
                const real value = madd(x[i + e], scale, kept);
                y[i + e] = word[e] >= threshold ? value : dropped;
            }
        }
}

KERNEL(alpha_dropout_vjp, OUT_OVER(dx), IN_UNDER(dy)) { mask(call, call->scalar, dx, dy, unbounded); }
