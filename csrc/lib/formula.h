/* What the kernels written by generate.py are made of: the primitives of formulas, and their loops. */
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

/* The LANES elements of an array from `at` on, as name_at: where fewer are left before `end`, a copy of these
 * with zeros behind them. What is computed for a copy goes to one, whose first elements are then stored. */
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

/* The elements of a row of lanes. That their number is known spares the compiler's code for elements left over,
 * and one copy is enough for what takes long. */
#define EACH_LANE(l) INDEPENDENT ROLLED for (int l = 0; l < LANES; l++)

/* Each element of an optimizer's vectors. */
#define EACH_PARAMETER(i)                                                                          \
    SHARED(r, call, call->size[0], 2048)                                                           \
        for (int64_t i = r.begin; i < r.end; i++)

#endif
