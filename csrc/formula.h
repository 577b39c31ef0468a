/* What the kernels written by generate.py are made of: the primitives of formulas, and their loops. */
#ifndef FASTNET_FORMULA_H
#define FASTNET_FORMULA_H

#include "elementary.h"
#include "elementwise.h"

#define R(number) ((real)(number))

ELEMENT where(int condition, real a, real b) { return condition ? a : b; }
ELEMENT real_abs(real x) { return REAL_FN(fabs)(x); }
ELEMENT real_sqrt(real x) { return REAL_FN(sqrt)(x); }
ELEMENT real_sign(real x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
ELEMENT real_maximum(real a, real bound) { return bound > a ? bound : a; }
ELEMENT real_minimum(real a, real bound) { return bound < a ? bound : a; }
static inline int is_tiny(real x) { return REAL_FN(fabs)(x) < REAL(0x1p-126f, 0x1p-1022); }

/* The last elements of an array, fewer than LANES, with zeros behind them. */
#define REST(name, at, end)                                                                        \
    real name##_rest[LANES];                                                                       \
    load_lanes(name##_rest, name + (at), (end) - (at))

/* Each element of an optimizer's vectors. */
#define EACH_PARAMETER(i)                                                                          \
    SHARED(r, call, call->size[0], 2048)                                                           \
        for (int64_t i = r.begin; i < r.end; i++)

#endif
