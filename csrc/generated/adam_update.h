/* Written by csrc/generate.py from the formulas in fastnet/optim/adam.py: change those. */
#ifndef FASTNET_ADAM_UPDATE_H
#define FASTNET_ADAM_UPDATE_H

#include "lib/formula.h"

ELEMENT adam_update_settled(real v) {
    return where(is_tiny(v), R(0.0), v);
}

ELEMENT adam_update_settled_with(real v, real mover) {
    return where(is_tiny(v) & is_tiny(mover), R(0.0), v);
}

enum { ADAM_UPDATE_NUMBERS = 9 };

static inline void adam_update_numbers(real number[], const double *hyper) {
    const double weight_decay_ = hyper[0];
    const double shrink_ = hyper[1];
    const double step_size_ = hyper[2];
    const double root_scale_ = hyper[3];
    const double beta1_ = hyper[4];
    const double beta2_ = hyper[5];
    const double eps_ = hyper[6];
    number[0] = R(weight_decay_);
    number[1] = R(1.0 - beta1_);
    number[2] = R(beta1_);
    number[3] = R(1.0 - beta2_);
    number[4] = R(beta2_);
    number[5] = R(root_scale_);
    number[6] = R(eps_);
    number[7] = R(-step_size_);
    number[8] = R(shrink_);
}

static inline __attribute__((always_inline)) void
adam_update_element(real *w, real *m, real *v, const real *g, const real *number) {
    const real w_ = *w;
    const real m_ = *m;
    const real v_ = *v;
    const real g_ = *g;
    const real d_ = madd(number[0], w_, g_);
    const real first_ = madd(number[1], d_, number[2] * m_);
    const real second_ = madd(number[3] * d_, d_, number[4] * v_);
    const real moved_ = adam_update_settled(first_);
    const real step_ = moved_ / madd(real_sqrt(second_), number[5], number[6]);
    *w = madd(number[7], step_, number[8] * w_);
    *m = moved_;
    *v = adam_update_settled_with(second_, first_);
}

#endif
