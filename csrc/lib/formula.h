/* What generated kernels are made of: the primitives of formulas, and the loops around them. */
#ifndef FASTNET_FORMULA_H
#define FASTNET_FORMULA_H

#include "lib/elementary.h"
#include "lib/elementwise.h"

#define R(number) ((real)(number))

ELEMENT where(int condition, real a, real b) { return condition ? a : b; }
ELEMENT real_abs(real x) { return REAL_FN(fabs)(x); }
ELEMENT real_sqrt(real x) { return REAL_FN(sqrt)(x); }
ELEMENT real_sign(real x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
ELEMENT real_maximum(real a, real bound) { return bound > a ? bound : a; }
ELEMENT real_minimum(real a, real bound) { return bound < a ? bound : a; }
static inline int is_tiny(real x) { return REAL_FN(fabs)(x) < REAL(0x1p-126f, 0x1p-1022); }

/* Loops over LANES elements at a time, without a scalar remainder. INPUT_LANES: name_at points to the elements of an
 * array from `at` on; if fewer than LANES are left before `end`, to a copy padded with zeros. OUTPUT_LANES: name_at
 * points to where results go; if fewer are left, to a buffer, of which STORE_REST then stores the first elements. */
#define INPUT_LANES(name, at, end)                                                                 \
    real name##_rest[LANES];                                                                       \
    const real *name##_at = name + (at);                                                           \
    if ((end) - (at) < LANES) {                                                                    \
        load_lanes(name##_rest, name##_at, (end) - (at));                                          \
        name##_at = name##_rest;                                                                   \
    }
#define OUTPUT_LANES(name, at, end)                                                                \
    real name##_rest[LANES], *name##_at = (end) - (at) < LANES ? name##_rest : name + (at);
#define STORE_REST(name, at, end)                                                                  \
    if ((end) - (at) < LANES)                                                                      \
    store_lanes(name + (at), name##_rest, (end) - (at))

/* Each of LANES elements. The constant count spares a remainder; unrolling would only add copies of a long body. */
#define EACH_LANE(l) INDEPENDENT ROLLED for (int l = 0; l < LANES; l++)

/* Each element of an optimizer's vectors. */
#define EACH_PARAMETER(i)                                                                          \
    SHARED(r, call, call->size[0], 2048)                                                           \
        for (int64_t i = r.begin; i < r.end; i++)

#endif
