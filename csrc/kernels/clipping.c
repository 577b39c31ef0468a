/* Norms of gradients and weights, and scaling down to a limit. Formulas: gradients.py and penalties.py in
 * fastnet/optim. */
#include "engine/share.h"
#include "lib/reduce.h"
#include <math.h>

/* A sum of squares less than this may have lost accuracy, and is computed again of scaled numbers. */
#define LEAST 0x1p-930

KERNEL(grad_norm_update, OUT_AS(double, norm), OUT_AS(double, sums), IN(g)) {
    const int64_t N = call->size[0], M = call->size[1], size = (N + M - 1) / M;
    SHARED(r, call, M, 1)
        for (int64_t b = r.begin; b < r.end; b++) {
            const int64_t begin = smaller(b * size, N), n = smaller(size, N - begin);
            SUM(double, squares, n, (double)g[begin + i] * (double)g[begin + i])
            sums[b] = squares;
        }
    together(call);
    if (is_first(call)) {
        SUM(double, squares, M, sums[i])
        norm[0] = __builtin_sqrt(squares);
        if (!(squares > LEAST && squares < INFINITY)) {
            const double scale = squares < 1 ? 1 / SCALE : SCALE;
            SUM(double, scaled, N, (scale * (double)g[i]) * (scale * (double)g[i]))
            norm[0] = __builtin_sqrt(scaled) / scale;
        }
    }
}

KERNEL(scale_to_norm_update, INOUT(g), IN_AS(double, norm)) {
    const double factor = call->hyper[0] / (norm[0] + 1e-6);
    if (factor >= 1)
        return;
    SHARED(r, call, call->size[0], 2048)
        for (int64_t i = r.begin; i < r.end; i++)
            g[i] *= (real)factor;
}

enum { COLUMNS = 64 };

KERNEL(scale_units_update, INOUT(w)) {
    const int64_t I = call->size[0], O = call->size[1];
    const double max_norm = call->hyper[0];
    SHARED(r, call, O, COLUMNS)
        for (int64_t j = r.begin; j < r.end; j += COLUMNS) {
            const int64_t n = smaller(COLUMNS, r.end - j);
            double squares[COLUMNS] = {0};
            real factor[COLUMNS];
            int longer = 0;
            for (int64_t i = 0; i < I; i++)
                for (int64_t c = 0; c < n; c++)
                    squares[c] += (double)w[i * O + j + c] * (double)w[i * O + j + c];
            for (int64_t c = 0; c < n; c++) {
                double norm = __builtin_sqrt(squares[c]);
                if (!(squares[c] < INFINITY)) {
                    double scaled = 0;
                    for (int64_t i = 0; i < I; i++) {
                        const double x = SCALE * (double)w[i * O + j + c];
                        scaled += x * x;
                    }
                    norm = __builtin_sqrt(scaled) / SCALE;
                }
                factor[c] = norm > max_norm ? (real)(max_norm / norm) : 1;
                longer |= norm > max_norm;
            }
            for (int64_t i = 0; longer && i < I; i++)
                for (int64_t c = 0; c < n; c++)
                    w[i * O + j + c] *= factor[c];
        }
}
