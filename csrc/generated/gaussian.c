/* Written by csrc/generate.py from the formulas in fastnet/losses/gaussian.py: change those. */
#include "lib/formula.h"

ELEMENT gaussian_curve_forward_of(real mean, real variance, real t, real tmean, real tvariance, double eps) {
    const real s = real_maximum(variance, R(eps));
    const real r = (t - mean) / s;
    return (tmean + r * tvariance) / s;
}

ELEMENT gaussian_curve_forward_of_variance_of(real mean, real variance, real t, real tmean, real tvariance, double eps) {
    const real s = real_maximum(variance, R(eps));
    const real r = (t - mean) / s;
    return (r * tmean + (r * r - R(0.5) / s) * tvariance) / s;
}

ELEMENTWISE(gaussian_curve_forward, OUT_OVER(of_mean), IN_UNDER(mean), OUT(of_variance), IN_UNDER(variance), IN_UNDER(t), IN_UNDER(tmean), IN_UNDER(tvariance)) {
    const double eps = call->scalar[0];
    ELEMENTS(i) {
        const real mean_ = mean[i];
        const real variance_ = variance[i];
        const real t_ = t[i];
        const real tmean_ = tmean[i];
        const real tvariance_ = tvariance[i];
        of_mean[i] = gaussian_curve_forward_of(mean_, variance_, t_, tmean_, tvariance_, eps);
        of_variance[i] = gaussian_curve_forward_of_variance_of(mean_, variance_, t_, tmean_, tvariance_, eps);
    }
}
