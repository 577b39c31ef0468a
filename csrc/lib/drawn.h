/* Kernels of formulas that take a random number `tail` for each element (see fastnet/random.py).
 *
 *     DRAWN(noisy_relu_forward, OUT_OVER(y), IN_UNDER(x)) {
 *         … y[i] = noisy_relu_forward_of(x[i], tail[i - begin]) …
 *     }
 *
 * computes elements [begin, end), as many as one draw of words serves. An optimizer's update uses DRAWN_PARAMETERS.
 */
#ifndef FASTNET_DRAWN_H
#define FASTNET_DRAWN_H

#include "lib/formula.h"
#include "lib/rng.h"

/* (k + ½)·2⁻³² for the lower 31 bits k of each word, negative if the top bit is set. */
static inline void tails_of(real tail[DRAW], const uint32_t word[DRAW]) {
    for (int i = 0; i < DRAW; i++) {
        const real size = ((real)(int32_t)(word[i] & INT32_MAX) + (real)0.5) * (real)0x1p-32;
        tail[i] = word[i] > INT32_MAX ? -size : size;
    }
}

/* The tails of a draw that begins at element `begin`; returns where it ends. */
static inline int64_t draw_tails(real tail[DRAW], const philox *at, int64_t begin, int64_t end) {
    _Alignas(64) uint32_t word[DRAW];
    if (begin < end) {
        philox_draw(word, at, begin / DRAW);
        tails_of(tail, word);
    }
    return smaller(begin + DRAW, end);
}

/* Ranges [begin, end) of an optimizer's vectors, each with the tails of its elements. */
#define DRAWN_PARAMETERS(tail, begin, end)                                                         \
    const philox at = philox_at(call->seed, call->step, call->stream);                             \
    real tail[DRAW];                                                                               \
    SHARED(r, call, call->size[0], 4 * DRAW)                                                       \
        for (int64_t begin = r.begin, end = draw_tails(tail, &at, begin, r.end); begin < r.end;    \
             begin = end, end = draw_tails(tail, &at, begin, r.end))

#define DRAWN(kernel, ...)                                                                         \
    static inline __attribute__((always_inline)) void kernel##_elements(                           \
        const fn_call *call EACH(KERNEL_PARAMETER, __VA_ARGS__), int64_t begin, int64_t end,       \
        const real tail[DRAW]);                                                                    \
    KERNEL(kernel, __VA_ARGS__) {                                                                  \
        const philox at = philox_at(call->seed, call->step, call->stream);                         \
        SHARED(r, call, call->rows * call->size[0], 4 * DRAW)                                      \
            for (int64_t i = r.begin; i < r.end; i += DRAW) {                                      \
                _Alignas(64) uint32_t word[DRAW];                                                  \
                _Alignas(64) real tail[DRAW];                                                      \
                philox_draw(word, &at, i / DRAW);                                                  \
                tails_of(tail, word);                                                              \
                kernel##_elements(call EACH(KERNEL_NAME, __VA_ARGS__), i,                          \
                                  smaller(i + DRAW, r.end), tail);                                 \
            }                                                                                      \
    }                                                                                              \
    static inline __attribute__((always_inline)) void kernel##_elements(                           \
        const fn_call *call EACH(KERNEL_PARAMETER, __VA_ARGS__), int64_t begin, int64_t end,       \
        const real tail[DRAW])

#endif
