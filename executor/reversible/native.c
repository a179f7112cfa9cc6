/* The element-wise integer work of one update in one pass; see kernels.py for what each function means.
 *
 * All numbers are integers carried in doubles, below 2^51, so that every operation is exact and contraction to
 * fused multiply-adds changes nothing. Only `value` is rounded. Built without errno and trapping maths, which
 * lets the compiler vectorise floor and rint. */
#include <math.h>
#include <stdint.h>

#define ONE 8388608.0          /* 2^23 */
#define FACTOR_ONE 1024.0      /* 2^10 */
#define WORD_ONE 65536.0       /* 2^16 */
#define WORD_OFFSET 32768.0    /* words are stored as int16, less this */

#define DEFINE_KERNELS(T, NAME)                                                                               \
    void advance_##NAME(int64_t n, double *restrict fixed, double *restrict buffer, const T *restrict factor,  \
                        const T *restrict addend, T *restrict value) {                                        \
        for (int64_t i = 0; i < n; i++) {                                                                      \
            const double z = factor[i], h = fixed[i];                                                         \
            const double coarse = floor(h * (1 / FACTOR_ONE));                                                \
            const double pool = (h - coarse * FACTOR_ONE) + buffer[i] * FACTOR_ONE;                           \
            const double rest = floor(pool / z);                                                              \
            const double after = (pool - rest * z) + coarse * z + rint((double)addend[i] * ONE);              \
            buffer[i] = rest;                                                                                  \
            fixed[i] = after;                                                                                  \
            value[i] = (T)(after * (1 / ONE));                                                                \
        }                                                                                                      \
    }                                                                                                          \
    void reverse_##NAME(int64_t n, double *restrict fixed, double *restrict buffer, const T *restrict factor,  \
                        const T *restrict addend, T *restrict value) {                                        \
        for (int64_t i = 0; i < n; i++) {                                                                      \
            const double z = factor[i], h = fixed[i] - rint((double)addend[i] * ONE);                         \
            const double coarse = floor(h / z);                                                               \
            const double pool = (h - coarse * z) + buffer[i] * z;                                             \
            const double rest = floor(pool * (1 / FACTOR_ONE));                                               \
            const double before = (pool - rest * FACTOR_ONE) + coarse * FACTOR_ONE;                           \
            buffer[i] = rest;                                                                                  \
            fixed[i] = before;                                                                                 \
            value[i] = (T)(before * (1 / ONE));                                                               \
        }                                                                                                      \
    }                                                                                                          \
    int64_t move_full_##NAME(int64_t n, double *restrict buffer, const T *restrict factor, double gate,        \
                             int16_t *restrict words) {                                                       \
        int64_t count = 0;                                                                                     \
        for (int64_t i = 0; i < n; i++) {                                                                      \
            if (buffer[i] >= (double)factor[i] * gate) {                                                      \
                const double rest = floor(buffer[i] * (1 / WORD_ONE));                                        \
                words[count++] = (int16_t)(buffer[i] - rest * WORD_ONE - WORD_OFFSET);                        \
                buffer[i] = rest;                                                                              \
            }                                                                                                  \
        }                                                                                                      \
        return count;                                                                                          \
    }

DEFINE_KERNELS(float, float32)
DEFINE_KERNELS(double, float64)

int64_t count_below(int64_t n, const double *restrict buffer, double floor_value) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += buffer[i] < floor_value;
    return count;
}

void refill(int64_t n, double *restrict buffer, double floor_value, const int16_t *restrict words) {
    int64_t next = 0;
    for (int64_t i = 0; i < n; i++) {
        if (buffer[i] < floor_value) buffer[i] = buffer[i] * WORD_ONE + ((double)words[next++] + WORD_OFFSET);
    }
}
