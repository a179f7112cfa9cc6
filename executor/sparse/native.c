/* The element-wise part of an LSTM's gate gradient in one pass over memory, instead of a dozen.

   The same operations in the same order as torch's cell under autograd, so that the results are equal bit
   for bit: 1 - x * x in one rounding, as torch's kernels are compiled, and nothing else contracted. Row-major [batch][units] and [batch][4 units]; see lstm.py. */

#include <stdint.h>

#define fma_float __builtin_fmaf
#define fma_double __builtin_fma
/* gcc heeds the attribute and clang the pragma. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#define EXACT
#else
#define EXACT __attribute__((optimize("fp-contract=off")))
#endif

#define FILL(REAL)                                                                                          \
    EXACT void lstm_fill_##REAL(int64_t batch, int64_t units, const REAL *restrict gates,                   \
                                const REAL *restrict before, const REAL *restrict squashed,                 \
                                const REAL *restrict grad_h, REAL *restrict grad_c, REAL *restrict grad) {  \
        for (int64_t b = 0; b < batch; b++) {                                                               \
            const REAL *net = gates + 4 * b * units;                                                        \
            REAL *out = grad + 4 * b * units;                                                               \
            for (int64_t u = 0; u < units; u++) {                                                           \
                const int64_t at = b * units + u;                                                           \
                const REAL i = net[u], f = net[units + u], g = net[2 * units + u], o = net[3 * units + u];  \
                const REAL s = squashed[at], dh = grad_h[at];                                               \
                const REAL dc = grad_c[at] + (dh * o) * fma_##REAL(-s, s, 1);                               \
                out[u] = (dc * g) * (1 - i) * i;                                                            \
                out[units + u] = (dc * before[at]) * (1 - f) * f;                                           \
                out[2 * units + u] = (dc * i) * fma_##REAL(-g, g, 1);                                       \
                out[3 * units + u] = (dh * s) * (1 - o) * o;                                                \
                grad_c[at] = dc * f;                                                                        \
            }                                                                                               \
        }                                                                                                   \
    }

FILL(float)
FILL(double)

#if defined(__clang__)
#pragma STDC FP_CONTRACT DEFAULT
#endif

/* A step forward: activations and states in one pass, for segments, whose sums are rounded otherwise than a
   single step's anyway. Single precision; exp(x) - 1 = 2^n (p + 1) - 1 with p = exp(r) - 1 by its Taylor
   series, so that small results keep their digits. */

static inline float clamped(float x, float bound) { return x > bound ? bound : x < -bound ? -bound : x; }

static inline float expm1_of(float x) {
    const float shift = 12582912.0f; /* adding it rounds to an integer */
    const float n = (x * 1.44269504f + shift) - shift;
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r;
    union {
        int32_t bits;
        float value;
    } scale = {((int32_t)n + 127) << 23};
    return scale.value * p + (scale.value - 1);
}

static inline float sigmoid_of(float x) { return 1 / (2 + expm1_of(clamped(-x, 80))); }

static inline float tanh_of(float x) {
    const float e = expm1_of(clamped(2 * x, 40));
    return e / (e + 2);
}

void lstm_advance_float(int64_t batch, int64_t units, const float *restrict recurrent, const float *restrict before,
                        float *restrict gates, float *restrict after, float *restrict squashed,
                        float *restrict hidden) {
    for (int64_t b = 0; b < batch; b++) {
        const float *from_h = recurrent + 4 * b * units;
        float *net = gates + 4 * b * units;
        for (int64_t u = 0; u < units; u++) {
            const int64_t at = b * units + u;
            const float i = sigmoid_of(net[u] + from_h[u]), f = sigmoid_of(net[units + u] + from_h[units + u]);
            const float g = tanh_of(net[2 * units + u] + from_h[2 * units + u]);
            const float o = sigmoid_of(net[3 * units + u] + from_h[3 * units + u]);
            const float c = f * before[at] + i * g, s = tanh_of(c);
            net[u] = i, net[units + u] = f, net[2 * units + u] = g, net[3 * units + u] = o;
            after[at] = c, squashed[at] = s, hidden[at] = o * s;
        }
    }
}
