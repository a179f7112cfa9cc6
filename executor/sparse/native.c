/* The element-wise part of an LSTM's gate gradient in one pass over memory, instead of a dozen.

   The same operations in the same order as torch's cell under autograd, so that the results are equal bit
   for bit: 1 - x * x in one rounding, as torch's kernels are compiled, and nothing else contracted. Row-major [batch][units] and [batch][4 units]; see lstm.py. */

#include <stdint.h>

#define fma_float __builtin_fmaf
#define fma_double __builtin_fma
#define EXACT __attribute__((optimize("fp-contract=off")))

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
