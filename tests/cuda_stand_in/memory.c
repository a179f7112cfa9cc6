/* Memory of the device and pinned memory of the host: pages that cost nothing until they are touched. */
#define _GNU_SOURCE
#include "stand_in.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LONG_BYTES 65536 /* with STAND_IN_LAZY set, longer pieces are neither copied nor filled */
#define MOST_RANGES (1 << 16)

typedef enum { UNKNOWN, HOST, DEVICE } Kind;

typedef struct {
  char *begin;
  size_t bytes;
  Kind kind;
} Range;

static Range ranges[MOST_RANGES];
static int range_count;
static size_t used_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread cudaError_t last_error;

static size_t rounded(size_t bytes) {
  size_t least = bytes ? bytes : 1;
  return (least + GRANULE_BYTES - 1) / GRANULE_BYTES * GRANULE_BYTES;
}

/* Aligned pages; `bytes` is a multiple of the granule. */
static char *new_pages(size_t bytes, int protection) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  char *mapped = mmap(NULL, bytes + GRANULE_BYTES, protection, flags, -1, 0);
  if (mapped == MAP_FAILED) return NULL;
  char *begin = (char *)rounded((size_t)mapped);
  size_t before = begin - mapped, after = GRANULE_BYTES - before;
  if (before) munmap(mapped, before);
  if (after) munmap(begin + bytes, after);
  return begin;
}

static void note(void *begin, size_t bytes, Kind kind) {
  pthread_mutex_lock(&lock);
  if (range_count == MOST_RANGES) abort();
  ranges[range_count++] = (Range){begin, bytes, kind};
  pthread_mutex_unlock(&lock);
}

/* Forget the ranges that begin in [begin, begin + bytes); returns what they held. */
static Range forget(char *begin, size_t bytes) {
  Range found = {begin, 0, UNKNOWN};
  pthread_mutex_lock(&lock);
  for (int i = 0; i < range_count;) {
    if (ranges[i].begin < begin || ranges[i].begin >= begin + bytes) {
      i++;
      continue;
    }
    found = (Range){begin, found.bytes + ranges[i].bytes, ranges[i].kind};
    ranges[i] = ranges[--range_count];
  }
  pthread_mutex_unlock(&lock);
  return found;
}

static Kind kind_of(const void *pointer) {
  const char *at = pointer;
  Kind kind = UNKNOWN;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < range_count && kind == UNKNOWN; i++)
    if (at >= ranges[i].begin && at < ranges[i].begin + ranges[i].bytes) kind = ranges[i].kind;
  pthread_mutex_unlock(&lock);
  return kind;
}

static int take(size_t bytes) {
  pthread_mutex_lock(&lock);
  int fits = used_bytes + bytes <= DEVICE_BYTES;
  if (fits) used_bytes += bytes;
  pthread_mutex_unlock(&lock);
  return fits;
}

static void give_back(size_t bytes) {
  pthread_mutex_lock(&lock);
  used_bytes -= bytes;
  pthread_mutex_unlock(&lock);
}

/* The runtime's allocations */

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
  size_t whole = rounded(bytes);
  *pointer = take(whole) ? new_pages(whole, PROT_READ | PROT_WRITE) : NULL;
  if (!*pointer) return last_error = cudaErrorMemoryAllocation;
  note(*pointer, whole, DEVICE);
  return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
  if (!pointer) return cudaSuccess;
  Range range = forget(pointer, 1);
  if (range.kind == DEVICE) give_back(range.bytes);
  if (range.bytes) munmap(range.begin, range.bytes);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
  *pointer = new_pages(rounded(bytes), PROT_READ | PROT_WRITE);
  note(*pointer, rounded(bytes), HOST);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void *pointer) { return cudaFree(pointer); }

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
  *total_bytes = DEVICE_BYTES;
  *free_bytes = DEVICE_BYTES - used_bytes;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *pointer) {
  static const enum cudaMemoryType types[] = {cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice};
  Kind kind = kind_of(pointer);
  *found = (struct cudaPointerAttributes){.type = types[kind], .device = 0};
  found->devicePointer = kind == UNKNOWN ? NULL : (void *)pointer;
  found->hostPointer = kind == DEVICE ? NULL : (void *)pointer;
  return cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError(void) { return last_error; }

const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error of the stand-in";
}

/* Copies: done at once, whatever the stream */

static int is_left_out(size_t bytes) { return bytes > LONG_BYTES && getenv("STAND_IN_LAZY"); }

static cudaError_t copy(void *to, const void *from, size_t bytes) {
  int is_inside = is_left_out(bytes) && kind_of(to) == DEVICE && kind_of(from) == DEVICE;
  if (!is_inside) memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  return copy(to, from, bytes);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  return copy(to, from, bytes);
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
  if (!is_left_out(bytes)) memset(to, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  return cudaMemset(to, value, bytes);
}

/* The driver's virtual memory, of which expandable segments are made: a handle is its number of bytes */

static CUresult reserve(CUdeviceptr *begin, size_t bytes, size_t alignment, CUdeviceptr wanted, unsigned long long flags) {
  *begin = (CUdeviceptr)new_pages(rounded(bytes), PROT_NONE);
  return *begin ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult free_reserved(CUdeviceptr begin, size_t bytes) {
  munmap((void *)begin, rounded(bytes));
  return CUDA_SUCCESS;
}

static CUresult create(CUmemGenericAllocationHandle *handle, size_t bytes, const void *properties, unsigned long long flags) {
  *handle = bytes;
  return take(bytes) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult release(CUmemGenericAllocationHandle handle) {
  give_back(handle);
  return CUDA_SUCCESS;
}

static CUresult map(CUdeviceptr begin, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags) {
  mprotect((void *)begin, bytes, PROT_READ | PROT_WRITE);
  note((void *)begin, bytes, DEVICE);
  return CUDA_SUCCESS;
}

static CUresult unmap(CUdeviceptr begin, size_t bytes) {
  forget((char *)begin, bytes);
  madvise((void *)begin, bytes, MADV_DONTNEED);
  mprotect((void *)begin, bytes, PROT_NONE);
  return CUDA_SUCCESS;
}

static CUresult granularity(size_t *bytes, const void *properties, unsigned flags) {
  *bytes = GRANULE_BYTES;
  return CUDA_SUCCESS;
}

void *memory_function(const char *name) {
  static const struct {
    const char *name;
    void *function;
  } known[] = {
      {"cuMemAddressReserve", reserve}, {"cuMemAddressFree", free_reserved}, {"cuMemCreate", create},
      {"cuMemRelease", release},        {"cuMemMap", map},                   {"cuMemUnmap", unmap},
      {"cuMemGetAllocationGranularity", granularity},
  };
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(known[i].name, name)) return known[i].function;
  return NULL;
}
