/* A CUDA device without kernels: its memory is this process's, its launches do nothing. */
#ifndef STAND_IN_H
#define STAND_IN_H

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stddef.h>

#define DEVICE_BYTES (141UL << 30)
#define GRANULE_BYTES (2UL << 20) /* of the driver's allocations */

/* Something to point at that is not NULL and different each time: streams, libraries' handles. */
void *new_handle(void);

/* The driver's functions, which torch asks for by name; one that does nothing where there is none of ours. */
void *memory_function(const char *name);

#endif
