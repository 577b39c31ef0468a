/* Decisions of rows of outputs. Formula: fastnet/losses/decision.py. */
#include "engine/share.h"
#include "lib/kernel.h"

enum { DECISION_ROWS = 64 };

KERNEL(decision_forward, OUT_AS(double, d), IN(y)) {
    const int64_t C = call->size[0];
    SHARED(r, call, call->rows, DECISION_ROWS)
        for (int64_t b = r.begin; b < r.end; b++) {
            const real *const at = y + b * C;
            int64_t best = 0;
            for (int64_t c = 1; c < C && at[best] == at[best]; c++)
                best = at[c] > at[best] || at[c] != at[c] ? c : best;
            d[b] = (double)(C == 1 ? (double)at[0] >= call->scalar[0] : best);
        }
}
