/* How kernels are written. Every kernel source is compiled once for each dtype and level of the instruction set.
 *
 *     KERNEL(relu_forward, OUT_OVER(y), IN_UNDER(x)) { … call->rows * call->size[0] … }
 *
 * defines three things: a function of typed pointers, named and ordered as in the Python reference; an entry that
 * unpacks them from a call; and a descriptor, which registers the kernel through a linker section. There is no list to
 * keep.
 */
#ifndef FASTNET_KERNEL_H
#define FASTNET_KERNEL_H

#include "engine/call.h"

#if REAL_IS_DOUBLE
typedef double real;
#define REAL(f, d) d /* a constant that differs between the dtypes */
#define REAL_FN(name) __builtin_##name
#else
typedef float real;
#define REAL(f, d) f
#define REAL_FN(name) __builtin_##name##f
#endif

/* Tensors of the plan's dtype. OVER and UNDER mark an op that may work in place: the output may be the input itself.
 * Tensors never overlap in any other way. */
#define OUT(name) (real *restrict, name)
#define IN(name) (const real *restrict, name)
#define INOUT(name) (real *restrict, name)
#define OUT_OVER(name) (real *, name)
#define IN_UNDER(name) (const real *, name)
/* Tensors of another dtype. */
#define OUT_AS(type, name) (type *restrict, name)
#define IN_AS(type, name) (const type *restrict, name)
#define INOUT_AS(type, name) (type *restrict, name)

#define KERNEL(kernel, ...) KERNEL_AS(kernel, NULL, FN_FUSES_NOTHING, __VA_ARGS__)

/* A kernel that calls `apply_epilogue` for each piece of its first tensor, so that the elementwise kernel after it
 * can be fused with it. */
#define FUSING_KERNEL(kernel, ...) KERNEL_AS(kernel, NULL, FN_FUSES_PIECES, __VA_ARGS__)

/* The same for a kernel whose first tensor is a product by `gemm`: tiles can apply a ReLU mask in registers, too. */
#define PRODUCT_KERNEL(kernel, ...) KERNEL_AS(kernel, NULL, FN_FUSES_TILES, __VA_ARGS__)

#define KERNEL_AS(kernel, epilogue, fuses, ...)                                                    \
    static inline void kernel(const fn_call *call EACH(KERNEL_PARAMETER, __VA_ARGS__));            \
    static void kernel##_entry(const fn_call *call) {                                              \
        const int tensors = COUNT(__VA_ARGS__);                                                    \
        kernel(call EACH(KERNEL_ARGUMENT, __VA_ARGS__));                                           \
    }                                                                                              \
    static const fn_kernel kernel##_info = {#kernel, &(EACH(KERNEL_TEXT, __VA_ARGS__))[2],         \
                                            REAL_IS_DOUBLE ? FN_FLOAT64 : FN_FLOAT32, LEVEL,       \
                                            kernel##_entry, epilogue, fuses};                      \
    static const fn_kernel *const kernel##_listed                                                  \
        __attribute__((section("fn_kernels"), used)) = &kernel##_info;                             \
    static inline void kernel(const fn_call *call EACH(KERNEL_PARAMETER, __VA_ARGS__))

/* A tensor is a pair (type, name); k counts the tensors from this one to the last. */
#define PAIR_TYPE(type, name) type
#define PAIR_NAME(type, name) name
#define PAIR_TEXT(type, name) ", " #name
#define KERNEL_PARAMETER(k, pair) , PAIR_TYPE pair PAIR_NAME pair
#define KERNEL_ARGUMENT(k, pair) , (PAIR_TYPE pair) fn_tensor(call, tensors - k)
#define KERNEL_TEXT(k, pair) PAIR_TEXT pair

#define COUNT(...) COUNT_OF(__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define COUNT_OF(a, b, c, d, e, f, g, h, i, j, k, l, n, ...) n
#define EACH(f, ...) EACH_OF(COUNT(__VA_ARGS__), f, __VA_ARGS__)
#define EACH_OF(n, f, ...) EACH_N(n, f, __VA_ARGS__)
#define EACH_N(n, f, ...) EACH_##n(f, __VA_ARGS__)
#define EACH_1(f, a) f(1, a)
#define EACH_2(f, a, ...) f(2, a) EACH_1(f, __VA_ARGS__)
#define EACH_3(f, a, ...) f(3, a) EACH_2(f, __VA_ARGS__)
#define EACH_4(f, a, ...) f(4, a) EACH_3(f, __VA_ARGS__)
#define EACH_5(f, a, ...) f(5, a) EACH_4(f, __VA_ARGS__)
#define EACH_6(f, a, ...) f(6, a) EACH_5(f, __VA_ARGS__)
#define EACH_7(f, a, ...) f(7, a) EACH_6(f, __VA_ARGS__)
#define EACH_8(f, a, ...) f(8, a) EACH_7(f, __VA_ARGS__)
#define EACH_9(f, a, ...) f(9, a) EACH_8(f, __VA_ARGS__)
#define EACH_10(f, a, ...) f(10, a) EACH_9(f, __VA_ARGS__)
#define EACH_11(f, a, ...) f(11, a) EACH_10(f, __VA_ARGS__)
#define EACH_12(f, a, ...) f(12, a) EACH_11(f, __VA_ARGS__)

/* INDEPENDENT, before a loop: the iterations do not depend on one another. Without it the compiler falls back to scalar
 * code where an output may be an input. ROLLED, before a loop: do not unroll. */
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#define ROLLED _Pragma("GCC unroll 1")
#endif

/* Sums across a row use this many lanes on every machine, whatever its vectors: so all add in the same order. */
enum { LANES = 16 };

/* a·b + c: fused if the level has FMA instructions, otherwise rounded twice. */
static inline real madd(real a, real b, real c) {
#if defined(__FMA__) || defined(__aarch64__)
    return REAL_FN(fma)(a, b, c);
#else
    return a * b + c;
#endif
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

#endif
