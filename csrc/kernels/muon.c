/* Muon's products. Formulas: fastnet/optim/muon.py. */
#include "engine/share.h"
#include "lib/reduce.h"
#include "products/gemm.h"
#include <math.h>

enum { GRAIN = 2048 };

KERNEL(newton_schulz_update, INOUT(d), INOUT(before), INOUT(s), INOUT(p)) {
    const int64_t I = call->size[0], O = call->size[1], m = smaller(I, O);
    const real linear = (real)call->hyper[0], cubic = (real)call->hyper[1], quintic = (real)call->hyper[2];
    const matrix rows = {d, O, 1}, columns = {d, 1, O};
    if (I <= O)
        gemm(call, (product){m, m, O, rows, columns, s, m, NULL, 0, 0, call, NULL, 0});
    else
        gemm(call, (product){m, m, I, columns, rows, s, m, NULL, 0, 0, call, NULL, 0});
    together(call);
    SHARED(r, call, m * m, GRAIN)
        for (int64_t i = r.begin; i < r.end; i++) {
            before[i] = quintic * s[i];
            p[i] = cubic * s[i];
        }
    together(call);
    gemm(call, (product){m, m, m, {before, m, 1}, {s, m, 1}, p, m, NULL, 1, 0, call, NULL, 0});
    together(call);
    SHARED(r, call, I * O, GRAIN)
        for (int64_t i = r.begin; i < r.end; i++) {
            before[i] = d[i];
            d[i] = linear * before[i];
        }
    together(call);
    if (I <= O)
        gemm(call, (product){I, O, m, {p, m, 1}, {before, O, 1}, d, O, NULL, 1, 0, call, NULL, 0});
    else
        gemm(call, (product){I, O, m, {before, O, 1}, {p, m, 1}, d, O, NULL, 1, 0, call, NULL, 0});
}

KERNEL(unit_length_update, INOUT(d)) {
    const int64_t n = call->size[0] * call->size[1];
    const double eps = call->hyper[0];
    /* Every member of a team sums by itself, which is little beside the products that follow. */
    SUM(double, squares, n, (double)d[i] * (double)d[i])
    double norm = __builtin_sqrt(squares);
    if (!(squares < INFINITY)) {
        SUM(double, scaled, n, (SCALE * (double)d[i]) * (SCALE * (double)d[i]))
        norm = __builtin_sqrt(scaled) / SCALE;
    }
    const real factor = (real)(1 / (norm < eps ? eps : norm));
    together(call);
    SHARED(r, call, n, GRAIN)
        for (int64_t i = r.begin; i < r.end; i++)
            d[i] *= factor;
}

KERNEL(muon_step_update, INOUT(w), IN(d)) {
    const double I = (double)call->size[0], O = (double)call->size[1], ratio = O / I;
    const double size =
        call->hyper[1] > 0 ? 0.2 * __builtin_sqrt(I > O ? I : O) : __builtin_sqrt(ratio > 1 ? ratio : 1);
    const real length = (real)(-call->hyper[0] * size);
    SHARED(r, call, call->size[0] * call->size[1], GRAIN)
        for (int64_t i = r.begin; i < r.end; i++)
            w[i] = madd(length, d[i], w[i]);
}
