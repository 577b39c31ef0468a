/* The elementary functions of formulas, for arrays: test_elementary.py loads this. */
#include "lib/formula.h"

#define FUNCTION(name)                                                                             \
    void name(real *y, const real *x, int64_t n);                                                  \
    void name(real *y, const real *x, int64_t n) {                                                 \
        INDEPENDENT                                                                                \
        for (int64_t i = 0; i < n; i++)                                                            \
            y[i] = real_##name(x[i]);                                                              \
    }
FUNCTION(exp)
FUNCTION(exp_below_0)
FUNCTION(expm1)
FUNCTION(log)
FUNCTION(log1p)
FUNCTION(log1p_exp)
FUNCTION(tanh)
FUNCTION(sigmoid)
FUNCTION(erf)
FUNCTION(sin)
FUNCTION(cos)
