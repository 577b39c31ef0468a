/* Random changes of images. Formulas: fastnet/layers/images.py. */
#include "engine/share.h"
#include "lib/kernel.h"
#include "lib/reduce.h"
#include "lib/rng.h"

/* Word k of row b, of a draw that has the words of BLOCKS rows. */
static inline uint32_t word_of_row(const uint32_t word[DRAW], int64_t b, int k) {
    const int64_t lane = b % BLOCKS;
    return word[lane / LANES * 4 * LANES + k * LANES + lane % LANES];
}

/* A uniform integer in [-most, most]. */
static inline int64_t shift_of(uint32_t word, int64_t most) {
    return (int64_t)((uint64_t)word * (uint64_t)(2 * most + 1) >> 32) - most;
}

typedef struct {
    int64_t across, channels;
} image;

/* The image of a row, mirrored (bit 0: left and right, bit 1: top and bottom) and then shifted. */
static inline void move_row(real *to, const real *from, int64_t N, image of, uint32_t mirrored, int64_t down,
                            int64_t right) {
    const int64_t line = of.across * of.channels, high = N / line;
    for (int64_t i = 0; i < high; i++)
        for (int64_t j = 0; j < of.across; j++) {
            const int64_t k = (mirrored & 2 ? high - 1 - i : i) - down;
            const int64_t l = (mirrored & 1 ? of.across - 1 - j : j) - right;
            const int inside = k >= 0 && k < high && l >= 0 && l < of.across;
            const int64_t here = i * line + j * of.channels, there = k * line + l * of.channels;
            for (int64_t c = 0; c < of.channels; c++)
                to[here + c] = inside ? from[there + c] : 0;
        }
    for (int64_t e = high * line; e < N; e++)
        to[e] = from[e];
}

/* sign: 1, or -1 for the opposite shifts. */
static inline void shift_rows(const fn_call *call, real *to, const real *from, int64_t sign) {
    const int64_t N = call->size[0], down = (int64_t)call->scalar[2], right = (int64_t)call->scalar[3];
    const image of = {(int64_t)call->scalar[0], (int64_t)call->scalar[1]};
    const philox at = philox_at(call->seed, call->step, call->stream);
    SHARED(r, call, call->rows, BLOCKS) {
        uint32_t word[DRAW];
        for (int64_t b = r.begin; b < r.end; b++) {
            if (b % BLOCKS == 0)
                philox_draw(word, &at, b / BLOCKS);
            move_row(to + b * N, from + b * N, N, of, 0, sign * shift_of(word_of_row(word, b, 0), down),
                     sign * shift_of(word_of_row(word, b, 1), right));
        }
    }
}

KERNEL(move_image_forward, OUT(y), IN(x)) { shift_rows(call, y, x, 1); }

KERNEL(move_image_vjp, OUT(dx), IN(dy)) {
    if (dx)
        shift_rows(call, dx, dy, -1);
}

static inline void mirror_rows(const fn_call *call, real *to, const real *from) {
    const int64_t N = call->size[0];
    const image of = {(int64_t)call->scalar[0], (int64_t)call->scalar[1]};
    const philox at = philox_at(call->seed, call->step, call->stream);
    SHARED(r, call, call->rows, BLOCKS) {
        uint32_t word[DRAW];
        for (int64_t b = r.begin; b < r.end; b++) {
            if (b % BLOCKS == 0)
                philox_draw(word, &at, b / BLOCKS);
            move_row(to + b * N, from + b * N, N, of, word_of_row(word, b, 2) & (uint32_t)call->scalar[2], 0, 0);
        }
    }
}

KERNEL(mirror_image_forward, OUT(y), IN(x)) { mirror_rows(call, y, x); }

KERNEL(mirror_image_vjp, OUT(dx), IN(dy)) {
    if (dx)
        mirror_rows(call, dx, dy);
}

static inline void stretch(const fn_call *call, real *to, const real *from) {
    const int64_t N = call->size[0];
    const double spread = call->scalar[0];
    const philox at = philox_at(call->seed, call->step, call->stream);
    SHARED(r, call, call->rows, BLOCKS) {
        uint32_t word[DRAW];
        for (int64_t b = r.begin; b < r.end; b++) {
            if (b % BLOCKS == 0)
                philox_draw(word, &at, b / BLOCKS);
            const real *of = from + b * N;
            real *into = to + b * N;
            SUM(double, sum, N, (double)of[i])
            const real mean = (real)(sum / (double)N);
            const real factor = (real)(1 + spread * ((2 * (double)word_of_row(word, b, 3) + 1) * 0x1p-32 - 1));
            INDEPENDENT
            for (int64_t e = 0; e < N; e++)
                into[e] = mean + factor * (of[e] - mean);
        }
    }
}

KERNEL(contrast_forward, OUT_OVER(y), IN_UNDER(x)) { stretch(call, y, x); }

KERNEL(contrast_vjp, OUT_OVER(dx), IN_UNDER(dy)) {
    if (dx)
        stretch(call, dx, dy);
}
