/* The kernels of kernels.c for one REAL type; included once per type. */

typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL))));
typedef INTEGER NAME(ivec) __attribute__((vector_size(VECTOR_BYTES)));
#define VEC NAME(vec)
#define IVEC NAME(ivec)
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define LOAD(p) (*(const VEC *)(p))
#define STORE(p, v) (*(VEC *)(p) = (v))

/* The element-wise functions. */

INLINE VEC NAME(choose)(IVEC mask, VEC yes, VEC no) { return (VEC)((mask & (IVEC)yes) | (~mask & (IVEC)no)); }

/* x within low..high; a NaN stays one. */
INLINE VEC NAME(clamp)(VEC x, REAL low, REAL high) {
    const VEC least = (VEC){0} + low, most = (VEC){0} + high;
    x = NAME(choose)(x > most, most, x);
    return NAME(choose)(x < least, least, x);
}

/* exp(x) = scale (p + 1), for -LARGEST_EXPONENT < x <= OVERFLOWING: scale a power of two, p = exp(r) - 1 by its
 * Taylor series. */
typedef struct {
    VEC scale, p;
} NAME(exponential);

INLINE NAME(exponential) NAME(exp)(VEC x) {
    const VEC shift = (VEC){0} + (REAL)((int64_t)3 << (MANTISSA_BITS - 1)); /* adding it rounds to an integer */
    const VEC n = (x * (REAL)1.4426950408889634 + shift) - shift;
    const VEC r = (x - n * LN2_HIGH) - n * LN2_LOW;
    VEC p = {0};
    REAL factorial[TAYLOR_TERMS + 1];
    factorial[0] = 1;
    for (int i = 1; i <= TAYLOR_TERMS; i++) factorial[i] = factorial[i - 1] * i;
    for (int i = TAYLOR_TERMS; i >= 2; i--) p = (p + 1 / factorial[i]) * r;
    return (NAME(exponential)){(VEC)((__builtin_convertvector(n, IVEC) + EXPONENT_BIAS) << MANTISSA_BITS), p * r + r};
}

/* Exactly 0 where exp(-x) overflows: a closed gate lets nothing of an infinity through but a NaN, as torch's. */
INLINE VEC NAME(sigmoid)(VEC x) {
    const NAME(exponential) e = NAME(exp)(NAME(clamp)(-x, -LARGEST_EXPONENT, OVERFLOWING));
    return 1 / (1 + e.scale * (e.p + 1));
}

INLINE VEC NAME(tanh)(VEC x) {
    const NAME(exponential) e = NAME(exp)(NAME(clamp)(2 * x, -LARGEST_EXPONENT / 2, LARGEST_EXPONENT / 2));
    const VEC less_1 = e.scale * e.p + (e.scale - 1);
    return less_1 / (less_1 + 2);
}

INLINE int64_t NAME(least)(int64_t a, int64_t b) { return a < b ? a : b; }

/* The columns of so many sequences: whole vectors. */
INLINE int64_t NAME(padded)(int64_t sequences) { return (sequences + LANES - 1) / LANES * LANES; }

/* [batch][size], `stride` from one sequence to the next, to [size][columns]; and back. In squares, which stay in
 * cache. */

static void NAME(fill_columns)(int64_t batch, int64_t size, int64_t columns, const REAL *restrict natural,
                               int64_t stride, REAL *restrict out) {
    for (int64_t from = 0; from < batch; from += LANES)
        for (int64_t unit = 0; unit < size; unit += LANES)
            for (int64_t u = unit; u < NAME(least)(unit + LANES, size); u++)
                for (int64_t b = from; b < NAME(least)(from + LANES, batch); b++)
                    out[u * columns + b] = natural[b * stride + u];
}

/* The same, with zeros in the columns beyond the batch. */
static void NAME(to_columns)(int64_t batch, int64_t size, int64_t columns, const REAL *restrict natural,
                             int64_t stride, REAL *restrict out) {
    NAME(fill_columns)(batch, size, columns, natural, stride, out);
    for (int64_t u = 0; u < size; u++)
        for (int64_t b = batch; b < columns; b++) out[u * columns + b] = 0;
}

static void NAME(from_columns)(int64_t batch, int64_t size, int64_t columns, const REAL *restrict in,
                               REAL *restrict natural, int64_t stride) {
    for (int64_t from = 0; from < batch; from += LANES)
        for (int64_t unit = 0; unit < size; unit += LANES)
            for (int64_t b = from; b < NAME(least)(from + LANES, batch); b++)
                for (int64_t u = unit; u < NAME(least)(unit + LANES, size); u++)
                    natural[b * stride + u] = in[u * columns + b];
}

#include "forward.h"

#include "gradients.h"

#include "backward.h"

#undef VEC
#undef IVEC
#undef LANES
#undef LOAD
#undef STORE
#undef PANEL
#undef INPUTS_PANEL
