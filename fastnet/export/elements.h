/* Written by csrc/generate.py from csrc/lib: change those. Functions of elements, with the
 * bits of the C backend; `real` is the dtype, `bits` the unsigned integer of its size. */

enum { MANTISSA = REAL(23, 52), BIAS = REAL(127, 1023) };

static const real LOG2_E = REAL(1.44269504089f, 1.4426950408889634074);
/* ln 2 in two parts. The first has so few bits that its product with an exponent is exact, even without FMA. */
static const real LN2_HIGH = REAL(0.693359375f, 6.93145751953125e-1);
static const real LN2_LOW = REAL(-2.12194440e-4f, 1.42860682030941723212e-6);
/* Adding it to x rounds x to an integer, which is then in the lowest bits of the sum. */
static const real ROUNDER = REAL(12582912.0f, 6755399441055744.0);

static inline bits bits_of(real x) {
    bits b;
    memcpy(&b, &x, sizeof b);
    return b;
}

ELEMENT real_of(bits b) {
    real x;
    memcpy(&x, &b, sizeof x);
    return x;
}

/* 2ⁿ for a normal result; n is a two's complement number. */
ELEMENT two_to(bits n) { return real_of((n + BIAS) << MANTISSA); }

/* Range reduction: x = n·ln 2 + r with |r| ≤ ln 2 / 2; returns r. */
ELEMENT reduced(real x, bits *n) {
    real shifted = madd(x, LOG2_E, ROUNDER), whole = shifted - ROUNDER;
    *n = bits_of(shifted) - bits_of(ROUNDER);
    return madd(whole, -LN2_LOW, madd(whole, -LN2_HIGH, x));
}

/* e^r − 1 for |r| ≤ ln 2 / 2, by the Taylor series. The first term left out is below a tenth of an ulp. */
ELEMENT exp_minus_1_near_0(real r) {
#if REAL_IS_DOUBLE
    real q = 1.0 / 6227020800;
    q = madd(q, r, 1.0 / 479001600);
    q = madd(q, r, 1.0 / 39916800);
    q = madd(q, r, 1.0 / 3628800);
    q = madd(q, r, 1.0 / 362880);
    q = madd(q, r, 1.0 / 40320);
    q = madd(q, r, 1.0 / 5040);
#else
    real q = 1.0f / 5040;
#endif
    q = madd(q, r, (real)1 / 720);
    q = madd(q, r, (real)1 / 120);
    q = madd(q, r, (real)1 / 24);
    q = madd(q, r, (real)1 / 6);
    q = madd(q, r, (real)1 / 2);
    return madd(q, r * r, r);
}

/* e^x for x ≤ 0. */
ELEMENT real_exp_below_0(real x) {
    enum { DEEP = MANTISSA + 1 };
    /* The result for `low` is 0 already. NaN passes through. */
    const real low = REAL(-104.0f, -745.2);
    x = x < low ? low : x;
    bits n;
    real e = 1 + exp_minus_1_near_0(reduced(x, &n));
    return e * two_to(n + DEEP) * two_to((bits)-DEEP); /* in two factors, as 2ⁿ alone may be denormal */
}

/* e^x − 1 = 2ⁿ(e^r − 1) + (2ⁿ − 1), which loses nothing by cancellation. Computed with 2ⁿ⁻¹ and doubled, as 2ⁿ may
 * overflow. */
ELEMENT real_expm1(real x) {
    const real high = REAL(89.0f, 710.0), low = REAL(-20.0f, -40.0);
    real a = x > high ? high : x;
    a = a < low ? low : a;
    bits n;
    const real e = exp_minus_1_near_0(reduced(a, &n)), half = two_to(n - 1);
    return 2 * madd(half, e, half - (real)0.5);
}

/* e^x. 2ⁿ is applied in two factors, so that the result overflows and becomes denormal where it must. */
ELEMENT real_exp(real x) {
    const real high = REAL(89.0f, 710.0), low = REAL(-104.0f, -745.2);
    real a = x > high ? high : x;
    a = a < low ? low : a;
    bits n;
    const real e = 1 + exp_minus_1_near_0(reduced(a, &n));
    const bits half = (bits)((signed_bits)n >> 1);
    return e * two_to(half) * two_to(n - half);
}

/* tanh a = (e^2a − 1)/((e^2a − 1) + 2) for a = |x|, with e^2a − 1 as in real_expm1; the sign is x's. */
ELEMENT real_tanh(real x) {
    const real saturated = REAL(10.0f, 22.0);
    real a = REAL_FN(fabs)(x);
    a = a > saturated ? saturated : a;
    bits n;
    real e = exp_minus_1_near_0(reduced(2 * a, &n)), scale = two_to(n);
    e = madd(scale, e, scale - 1);
    return REAL_FN(copysign)(e / (e + 2), x);
}

/* 1/(1 + e^−x), by e^−|x|, which cannot overflow. */
ELEMENT real_sigmoid(real x) {
    real e = real_exp_below_0(-REAL_FN(fabs)(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}

/* c[0] + c[1]·x + … */
ELEMENT polynomial(const real *c, int count, real x) {
    real sum = c[count - 1];
#pragma GCC unroll 20
    for (int k = count - 2; k >= 0; k--)
        sum = madd(sum, x, c[k]);
    return sum;
}

/* 2 artanh s = 2s + s³·(the polynomial in s² with these coefficients). */
static const real ARTANH[] = {(real)2 / 3,  (real)2 / 5,  (real)2 / 7,  (real)2 / 9,  (real)2 / 11,
                              (real)2 / 13, (real)2 / 15, (real)2 / 17, (real)2 / 19, (real)2 / 21,
                              (real)2 / 23, (real)2 / 25, (real)2 / 27, (real)2 / 29, (real)2 / 31};

/* x = m·2ᵉ with √½ ≤ m < √2, f = m − 1, s = f/(2 + f): ln m = f − f²/2 + s(f²/2 + R) with
 * R = 2s²/3 + 2s⁴/5 + …, the series of 2 artanh s − 2s over s, s² < 0.03. */
ELEMENT real_log(real x) {
    const real root_half = REAL(0.70710678f, 0.70710678118654752440);
    const real smallest_normal = REAL(0x1p-126f, 0x1p-1022);
    const int denormal = x < smallest_normal;
    const bits b = bits_of(x * (denormal ? two_to(MANTISSA + 1) : 1)) - bits_of(root_half);
    const signed_bits e = ((signed_bits)b >> MANTISSA) - (denormal ? MANTISSA + 1 : 0);
    const bits fraction = b & (((bits)1 << MANTISSA) - 1);
    const real f = real_of(fraction + bits_of(root_half)) - 1, s = f / (2 + f), z = s * s;
    const real r = polynomial(ARTANH, REAL(5, 11), z);
    const real half_square = (real)0.5 * f * f, n = (real)e;
    const real small = madd(s, madd(r, z, half_square), n * LN2_LOW);
    const real result = madd(n, LN2_HIGH, f - (half_square - small));
    const real special = x == 0 ? -REAL_FN(inf)() : x > 0 ? x : REAL_FN(nan)("");
    return x > 0 && x < REAL_FN(inf)() ? result : special;
}

/* ln(1 + e^x) for x ≤ 0: 2 artanh s of s = e/(2 + e) ≤ 1/3. */
ELEMENT real_log1p_exp(real x) {
    const real e = real_exp_below_0(x), s = e / (2 + e), z = s * s;
    return madd(s * z, polynomial(ARTANH, REAL(6, 15), z), 2 * s);
}

/* ln(1 + x): of u = 1 + x rounded, plus what rounding lost, over u. */
ELEMENT real_log1p(real x) {
    const real u = 1 + x, lost = x - (u - 1), correction = lost / u;
    return real_log(u) + (((u > 0) & (u < REAL_FN(inf)())) ? correction : 0);
}

/* float32: 1 − erf(|x|) = (1 − p/8)⁸, with a polynomial p of |x| that has no constant term and whose first coefficient
 * is split in two. Little cancels, and few roundings matter near 0 and near 1. The coefficients minimise the greatest
 * error of erf in ulp (minimax); a search among their neighbours rounded them.
 *
 * float64: erf(x)/x is a polynomial of x² for |x| < 1. Beyond, erf = 1 − e^−x²·q/(1 + 2|x|) with q a polynomial of
 * (|x| − 2)/(|x| + 2). The coefficients interpolate at Chebyshev points. */
ELEMENT real_erf(real x) {
    const real one = REAL(3.93f, 6.0), a = REAL_FN(fabs)(x); /* from `one` on, erf rounds to 1 */
#if REAL_IS_DOUBLE
    static const real near[] = {
        1.1283791670955125738,      -0.37612638903183748056,    0.11283791670954878666,
        -0.026866170645076793248,   0.0052239776248180144673,   -0.00085483269808337899052,
        0.00012055331111642710923,  -0.000014925595266831181565, 1.6461000484121368033e-6,
        -1.6350312701054695011e-7,  1.4659775274047435814e-8,   -1.137284885679167367e-9,
        5.9571761477489114044e-11};
    static const real far[] = {
        1.2769783815525287212,      -0.092763826585745974566,   -0.16603039761529119611,
        0.16405128003343078877,     -0.054220000991740027815,   -0.008034015081439547607,
        0.0087226538567504472261,   0.0012713389344749737232,   -0.0014568133389069366081,
        -0.00045434052737427712832, 0.00020635643377054064868,  0.00015104323296688812221,
        -1.4032896296295188993e-6,  -0.000036538027494362448063, -0.000014033004419668610599,
        4.6395474024346053805e-6,   6.211065075417665369e-6,    -1.2194400343890490579e-6};
    const real small = a * polynomial(near, sizeof near / sizeof *near, a * a);
    const real q = polynomial(far, sizeof far / sizeof *far, (a - 2) / (a + 2));
    const real large = 1 - real_exp_below_0(-a * a) * q / (1 + 2 * a);
    const real result = a < 1 ? small : large;
#else
    static const real rest[] = {5.94212963e-08f, 0.557042956f, 0.0167108737f, -0.0527085811f,
                                -0.00149804156f, 0.00410592416f, -0.000712063513f, 3.85647181e-05f};
    const real p = madd(a, 1.12837911f, a * polynomial(rest, sizeof rest / sizeof *rest, a));
    const real q = madd(p * -0.0625f, p, p), r = madd(q * -0.125f, q, q);
    const real result = madd(r * -0.25f, r, r);
#endif
    return REAL_FN(copysign)(a >= one ? 1 : result, x);
}

/* x = n·π/2 + r with |r| ≤ π/4, computed in float64; returns r, and n modulo 4. π/2 is the sum of numbers of so few bits
 * that the products of the first ones with n are exact as long as n < 2²⁰, even without FMA. */
ELEMENT reduced_angle(real x, bits *n) {
    static const double rounder = 6755399441055744.0, most = 0x1p50;
    double wide = x;
    wide = wide > most ? most : wide;
    wide = wide < -most ? -most : wide;
    const double shifted = wide * 0.63661977236758134308 + rounder, whole = shifted - rounder;
    uint64_t low;
    memcpy(&low, &shifted, sizeof low);
    *n = (bits)low & 3;
#if REAL_IS_DOUBLE
    double r = madd(whole, -0x1.921fb544p+0, wide);
    r = madd(whole, -0x1.0b4611a6p-34, r);
    return madd(whole, -0x1.3198a2e037073p-69, r);
#else
    return (real)((wide - whole * 0x1.921fb544p+0) - whole * 0x1.0b4611a626331p-34);
#endif
}

/* sin r for an even n, cos r for an odd one, by their Taylor series; the sign changes where n has its second bit. The
 * first terms left out are below a tenth of an ulp. */
ELEMENT sine_of_quadrant(real r, bits n) {
    const real z = r * r;
#if REAL_IS_DOUBLE
    real s = 1.0 / 355687428096000, c = 1.0 / 20922789888000;
    s = madd(s, z, -1.0 / 1307674368000);
    c = madd(c, z, -1.0 / 87178291200);
    s = madd(s, z, 1.0 / 6227020800);
    c = madd(c, z, 1.0 / 479001600);
    s = madd(s, z, -1.0 / 39916800);
    c = madd(c, z, -1.0 / 3628800);
    s = madd(s, z, 1.0 / 362880);
    c = madd(c, z, 1.0 / 40320);
#else
    real s = 1.0f / 362880, c = -1.0f / 3628800;
    c = madd(c, z, 1.0f / 40320);
#endif
    s = madd(s, z, (real)-1 / 5040);
    c = madd(c, z, (real)-1 / 720);
    s = madd(s, z, (real)1 / 120);
    c = madd(c, z, (real)1 / 24);
    s = madd(s, z, (real)-1 / 6);
    const real odd = madd(c, z * z, madd(z, (real)-0.5, 1)), even = madd(s, r * z, r);
    const bits sign = (n & 2) << (8 * sizeof(bits) - 2);
    return real_of(bits_of(n & 1 ? odd : even) ^ sign);
}

/* Beyond |x| = 10⁶ there is an absolute error of |x|·2⁻⁵² besides, as of another x nearby; beyond 2⁵⁰ the result is that
 * of 2⁵⁰. NaN of infinity. */
ELEMENT real_sin(real x) {
    bits n;
    const real r = reduced_angle(x, &n), result = sine_of_quadrant(r, n);
    return x - x == 0 ? (x == 0 ? x : result) : x - x;
}

ELEMENT real_cos(real x) {
    bits n;
    const real r = reduced_angle(x, &n), result = sine_of_quadrant(r, n + 1);
    return x - x == 0 ? result : x - x;
}

ELEMENT where(int condition, real a, real b) { return condition ? a : b; }

ELEMENT real_abs(real x) { return REAL_FN(fabs)(x); }

ELEMENT real_sqrt(real x) { return REAL_FN(sqrt)(x); }

ELEMENT real_sign(real x) { return x > 0 ? 1 : x < 0 ? -1 : x; }

ELEMENT real_maximum(real a, real bound) { return bound > a ? bound : a; }

ELEMENT real_minimum(real a, real bound) { return bound < a ? bound : a; }

static inline int is_tiny(real x) { return REAL_FN(fabs)(x) < REAL(0x1p-126f, 0x1p-1022); }
