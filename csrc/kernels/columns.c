/* Some columns of a tensor. Formulas: fastnet/layers/columns.py. */
#include <string.h>

#include "engine/share.h"
#include "lib/kernel.h"

KERNEL(take_columns_forward, OUT(y), IN(x), IN_AS(int64_t, places)) {
    const int64_t M = call->size[0], N = call->size[1];
    SHARED(r, call, call->rows, 16)
        for (int64_t b = r.begin; b < r.end; b++)
            for (int64_t m = 0; m < M; m++)
                y[b * M + m] = x[b * N + places[m]];
}

KERNEL(take_columns_vjp, OUT(dx), IN(dy), IN_AS(int64_t, places)) {
    const int64_t M = call->size[0], N = call->size[1];
    SHARED(r, call, call->rows, 16)
        for (int64_t b = r.begin; b < r.end; b++) {
            memset(dx + b * N, 0, (size_t)N * sizeof(real));
            for (int64_t m = 0; m < M; m++)
                dx[b * N + places[m]] += dy[b * M + m];
        }
}
