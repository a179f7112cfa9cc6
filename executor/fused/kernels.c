/* k steps of one layer of an LSTM or GRU, forward and backward, in float32 and float64.
 *
 * Inside, every quantity of a step is [rows][columns]: one row per unit or gate, one column per sequence of
 * the batch, columns padded with zeros to whole vectors. A vector then holds the same unit of several
 * sequences, the weights are read as they lie (nothing is packed), and the element-wise part of a unit
 * follows its dot products while they are still in registers. Outside, tensors are torch's [.., batch, size].
 *
 * A sum over inputs and hidden units always runs in the same order, so a step gives the same bits whatever
 * segment it is in, and however many threads share its units. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(x) JOIN(x, SUFFIX)

#include "vectors.h"

#include "team.h"

#define SUFFIX float32
#define REAL float
#define INTEGER int32_t
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define LARGEST_EXPONENT 87.0f
#define OVERFLOWING 89.0f /* its exponential is infinite */
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define TAYLOR_TERMS 8 /* |r| <= ln(2)/2: the first term left out is below 1e-9 of the sum */
#include "kernels.h"
#undef SUFFIX
#undef REAL
#undef INTEGER
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef LARGEST_EXPONENT
#undef OVERFLOWING
#undef LN2_HIGH
#undef LN2_LOW
#undef TAYLOR_TERMS

#define SUFFIX float64
#define REAL double
#define INTEGER int64_t
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define LARGEST_EXPONENT 708.0
#define OVERFLOWING 710.0
#define LN2_HIGH 6.93145751953125e-1
#define LN2_LOW 1.42860682030941723212e-6
#define TAYLOR_TERMS 14
#include "kernels.h"
