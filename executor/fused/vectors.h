/* The vectors of the processor that is compiled for, and the tiles that fit its registers. Part of kernels.c.
 *
 * A tile is added to for as long as its products last, in registers: sums that do not fit are written and read at
 * every product, and wider vectors than the processor's are worked on number by number. Either takes ten times as
 * long and more. */

#if defined(__AVX512F__) /* 32 registers */
enum { VECTOR_BYTES = 64, REGISTERS = 32 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, REGISTERS = 16 };
#elif defined(__aarch64__)
enum { VECTOR_BYTES = 16, REGISTERS = 32 };
#else
enum { VECTOR_BYTES = 16, REGISTERS = 16 };
#endif

enum {
    MANY = REGISTERS == 32,
    UNITS = MANY ? 2 : 3, VECTORS = MANY ? 2 : 1, /* of the forward pass: units, with all their gates, times sequences */
    STEP_UNITS = 8,                               /* of one thread: a multiple of so many units */
    GATE_ROWS = MANY ? 16 : 8,                    /* of the gradient of h: units */
    ROWS_AHEAD = 32,                              /* of its weights: fetched before they are needed */
    TILE_ROWS = MANY ? 8 : 6, PANEL_VECTORS = 2,  /* of the gradient of a weight matrix */
    BLOCK_SEQUENCES = 256                         /* of its values: as many as stay in cache */
};

/* Before a loop over a tile: what is not unrolled is not in registers. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

int64_t vector_bytes(void) { return VECTOR_BYTES; }
