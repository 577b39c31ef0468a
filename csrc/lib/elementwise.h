/* Elementwise kernels, each from one formula.
 *
 *     ELEMENTWISE(relu_forward, OUT_OVER(y), IN_UNDER(x)) {
 *         ELEMENTS(i)
 *             y[i] = x[i] <= 0 ? 0 : x[i];
 *     }
 *
 * defines the formula for elements [begin, end), the kernel, which shares all elements among a team, and the epilogue,
 * by which the kernel before it applies the formula to each piece that it has just written.
 */
#ifndef FASTNET_ELEMENTWISE_H
#define FASTNET_ELEMENTWISE_H

#include "engine/share.h"
#include "lib/simd.h"

#define ELEMENTWISE(kernel, ...) ELEMENTWISE_BY(kernel##_range, kernel, __VA_ARGS__)

/* The same for a formula that reads two arrays and computes so little that beyond the caches memory is the limit. There
 * Zen 4 is faster with 256-bit loads, after which its hardware prefetchers run further ahead. Within the caches, and on
 * Zen 5 everywhere, 512-bit loads are faster; see docs/tuning.md. */
#if defined(__AVX512F__) && !defined(__clang__)
static inline int halves_pay(int64_t n) { return exceeds_cache(n) && __builtin_cpu_is("amdfam19h"); }

#define CHEAP_ELEMENTWISE(kernel, ...)                                                             \
    ELEMENTS_OF(kernel, __VA_ARGS__);                                                              \
    static __attribute__((noinline, target("prefer-vector-width=256"))) void kernel##_halves(      \
        const fn_call *call EACH(KERNEL_PARAMETER, __VA_ARGS__), int64_t begin, int64_t end) {     \
        kernel##_elements(call EACH(KERNEL_NAME, __VA_ARGS__), begin, end);                        \
    }                                                                                              \
    ELEMENTWISE_BY((halves_pay(call->rows * call->size[0]) ? kernel##_halves : kernel##_range),    \
                   kernel, __VA_ARGS__)
#else
#define CHEAP_ELEMENTWISE ELEMENTWISE
#endif

#define ELEMENTS_OF(kernel, ...)                                                                   \
    static inline __attribute__((always_inline)) void kernel##_elements(                           \
        const fn_call *call EACH(KERNEL_PARAMETER, __VA_ARGS__), int64_t begin, int64_t end)

#define ELEMENTWISE_BY(range, kernel, ...)                                                         \
    ELEMENTS_OF(kernel, __VA_ARGS__);                                                              \
    static __attribute__((noinline)) void kernel##_range(                                          \
        const fn_call *call EACH(KERNEL_PARAMETER, __VA_ARGS__), int64_t begin, int64_t end) {     \
        kernel##_elements(call EACH(KERNEL_NAME, __VA_ARGS__), begin, end);                        \
    }                                                                                              \
    static void kernel##_epilogue(const fn_call *call, int64_t first, int64_t stride, int64_t rows,   \
                               int64_t n) {                                                        \
        const int tensors = COUNT(__VA_ARGS__);                                                    \
        for (int64_t at = first; rows > 0; rows--, at += stride)                                   \
            if (WIDTH > 1 && n == 2 * WIDTH)                                                       \
                kernel##_elements(call EACH(KERNEL_ARGUMENT, __VA_ARGS__), at, at + 2 * WIDTH);    \
            else                                                                                   \
                kernel##_range(call EACH(KERNEL_ARGUMENT, __VA_ARGS__), at, at + n);               \
    }                                                                                              \
    KERNEL_AS(kernel, kernel##_epilogue, FN_FUSES_NOTHING, __VA_ARGS__) {                          \
        SHARED(r, call, call->rows * call->size[0], 2048)                                          \
            range(call EACH(KERNEL_NAME, __VA_ARGS__), r.begin, r.end);                            \
    }                                                                                              \
    ELEMENTS_OF(kernel, __VA_ARGS__)

#define KERNEL_NAME(k, pair) , PAIR_NAME pair

/* Each element of the range; an output may be an input. */
#define ELEMENTS(i) INDEPENDENT for (int64_t i = begin; i < end; i++)

#endif
