/* The L2 penalty of a weight matrix. Formulas: fastnet/losses/penalty.py. */
#include "engine/share.h"
#include "lib/reduce.h"

KERNEL(l2_penalty_forward, OUT_AS(double, loss), OUT_AS(double, share), IN_AS(double, data), IN_AS(double, row_loss),
       IN(w)) {
    (void)row_loss;
    if (!is_first(call))
        return;
    const int64_t count = call->size[0] * call->size[1], rows = call->rows;
    SUM(double, squares, count, (double)w[i] * (double)w[i])
    share[0] = call->scalar[0] / (double)(rows > 1 ? rows : 1);
    loss[0] = data[0] + 0.5 * share[0] * squares;
}

KERNEL(l2_penalty_vjp, OUT(dw), IN_AS(double, share), IN(w)) {
    const real factor = (real)share[0];
    if (dw)
        SHARED(r, call, call->size[0] * call->size[1], 4096)
            for (int64_t k = r.begin; k < r.end; k++)
                dw[k] = call->accumulate ? dw[k] + w[k] * factor : w[k] * factor;
}
