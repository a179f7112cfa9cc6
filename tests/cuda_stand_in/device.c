/* What torch asks of the device, and launches, streams and events: everything is done at once, and known to be over
   once somebody has waited for it. */
#define _GNU_SOURCE
#include "stand_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS_PER_BLOCK 1024
#define SHARED_BYTES (48 << 10)
#define SHARED_BYTES_OPTIN (227 << 10)
#define PROCESSORS 132

void *new_handle(void) {
  static size_t last = 0x100000;
  return (void *)__sync_add_and_fetch(&last, 64);
}

cudaError_t cudaGetDeviceCount(int *count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) { return cudaRuntimeGetVersion(version); }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
  *found = (struct cudaDeviceProp){
      .name = "a stand-in without kernels",
      .totalGlobalMem = DEVICE_BYTES,
      .major = 9,
      .warpSize = 32,
      .multiProcessorCount = PROCESSORS,
      .maxThreadsPerBlock = THREADS_PER_BLOCK,
      .maxThreadsPerMultiProcessor = 2048,
      .maxBlocksPerMultiProcessor = 32,
      .maxThreadsDim = {1024, 1024, 64},
      .maxGridSize = {2147483647, 65535, 65535},
      .regsPerBlock = 65536,
      .regsPerMultiprocessor = 65536,
      .sharedMemPerBlock = SHARED_BYTES,
      .sharedMemPerBlockOptin = SHARED_BYTES_OPTIN,
      .sharedMemPerMultiprocessor = SHARED_BYTES_OPTIN + 1024,
      .l2CacheSize = 50 << 20,
      .textureAlignment = 512,
      .unifiedAddressing = 1,
      .canMapHostMemory = 1,
      .concurrentKernels = 1,
      .asyncEngineCount = 3,
      .streamPrioritiesSupported = 1,
  };
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = PROCESSORS; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = THREADS_PER_BLOCK; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = SHARED_BYTES; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = SHARED_BYTES_OPTIN; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxGridDimY: *value = 65535; break;
    default: *value = 1;
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int bytes, int device) {
  snprintf(id, bytes, "0000:01:00.0");
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  *can = 0;
  return cudaSuccess;
}

/* The driver */

static CUresult attribute_of_device(int *value, int attribute, CUdevice device) {
  return cudaDeviceGetAttribute(value, attribute, device) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static CUresult error_string(CUresult error, const char **text) {
  *text = "an error of the stand-in's driver";
  return CUDA_SUCCESS;
}

static long nothing(void) { return 0; }

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *found) {
  *function = memory_function(name);
  if (!*function && !strcmp(name, "cuDeviceGetAttribute")) *function = attribute_of_device;
  if (!*function && !strcmp(name, "cuGetErrorString")) *function = error_string;
  if (!*function) *function = nothing;
  if (found) *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

/* Streams and events: the clock is the host's */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
  *stream = new_handle();
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) {
  *priority = 0;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes,
                                     const cudaGraphEdgeData **edges, size_t *count) {
  if (id) *id = 0;
  if (count) *count = 0;
  return cudaStreamIsCapturing(stream, status);
}

typedef struct {
  struct timespec at;
  size_t number;
} Event;

static size_t recorded, waited_for; /* the numbers of the last event, and of the last that is known to be over */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  *event = calloc(1, sizeof(Event));
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  free(event);
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  clock_gettime(CLOCK_MONOTONIC, &((Event *)event)->at);
  ((Event *)event)->number = __sync_add_and_fetch(&recorded, 1);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return cudaEventRecordWithFlags(event, stream, 0); }

/* A device may be as far behind as this. */
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return ((Event *)event)->number <= waited_for ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void) {
  waited_for = recorded;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return cudaDeviceSynchronize(); }

cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaDeviceSynchronize(); }

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t first, cudaEvent_t second) {
  struct timespec *begin = &((Event *)first)->at, *end = &((Event *)second)->at;
  *milliseconds = (end->tv_sec - begin->tv_sec) * 1e3f + (end->tv_nsec - begin->tv_nsec) / 1e6f;
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
  function(data);
  return cudaSuccess;
}

cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void *data, unsigned flags) {
  function(stream, cudaSuccess, data);
  return cudaSuccess;
}

/* Kernels: known by name, never run */

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *function) {
  *found = (struct cudaFuncAttributes){
      .maxThreadsPerBlock = THREADS_PER_BLOCK, .numRegs = 32, .binaryVersion = 90, .ptxVersion = 90};
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads,
                                                                   size_t shared, unsigned flags) {
  *blocks = 2;
  return cudaSuccess;
}

cudaError_t cudaGetSymbolAddress(void **address, const void *symbol) {
  static char somewhere[1 << 20];
  *address = somewhere;
  return cudaSuccess;
}

void **__cudaRegisterFatBinary(void *binary) {
  static void *handle[1];
  return handle;
}

char __cudaInitModule(void **handle) { return 1; }

cudaError_t __cudaGetKernel(void **kernel, const void *function) {
  *kernel = (void *)function;
  return cudaSuccess;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  *grid = *block = (dim3){1, 1, 1};
  *shared = 0;
  *(void **)stream = NULL;
  return cudaSuccess;
}
