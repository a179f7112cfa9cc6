/* cuBLAS as far as it hands something out, and cuDNN's recurrent layers: sizes and places, no numbers.

The sizes of cuDNN's workspaces are made up (four or three gates of every step, and two more tensors in the
space that is kept for the way back): those of a device differ. */
#define _GNU_SOURCE
#include "stand_in.h"

#include <cudnn.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define DESCRIPTOR_BYTES 512
#define HEURISTIC_BYTES 96 /* cublasLtMatmulHeuristicResult_t: one result */
#define DROPOUT_STATE_BYTES 4325376

/* cuBLAS; its headers need others that torch's wheels lack, so types are plain here, and 0 is success */

int cublasCreate_v2(void **handle) {
  *handle = new_handle();
  return 0;
}

int cublasGetMathMode(void *handle, int *mode) {
  *mode = 0;
  return 0;
}

int cublasGetPointerMode_v2(void *handle, int *mode) {
  *mode = 0; /* host */
  return 0;
}

static int new_descriptor(void **made) {
  *made = calloc(1, DESCRIPTOR_BYTES);
  return 0;
}

static int free_descriptor(void *made) {
  free(made);
  return 0;
}

int cublasLtMatmulDescCreate(void **made) { return new_descriptor(made); }
int cublasLtMatmulDescDestroy(void *made) { return free_descriptor(made); }
int cublasLtMatrixLayoutCreate(void **made) { return new_descriptor(made); }
int cublasLtMatrixLayoutDestroy(void *made) { return free_descriptor(made); }
int cublasLtMatmulPreferenceCreate(void **made) { return new_descriptor(made); }
int cublasLtMatmulPreferenceDestroy(void *made) { return free_descriptor(made); }

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *product, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, void *results, int *found) {
  memset(results, 0, HEURISTIC_BYTES);
  *found = 1;
  return 0;
}

/* cuDNN; its descriptors of layers and data have room for what is kept of them here */

typedef struct {
  cudnnRNNMode_t mode;
  cudnnDataType_t type;
  size_t input, hidden, layers, directions, element_bytes;
  int has_bias;
} Rnn;

typedef struct {
  size_t steps, batch;
} Data;

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
  *handle = new_handle();
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) { return CUDNN_STATUS_SUCCESS; }

cudnnStatus_t cudnnDropoutGetStatesSize(cudnnHandle_t handle, size_t *bytes) {
  *bytes = DROPOUT_STATE_BYTES;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetDropoutDescriptor(cudnnDropoutDescriptor_t made, cudnnHandle_t handle, float probability,
                                        void *states, size_t bytes, unsigned long long seed) {
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRestoreDropoutDescriptor(cudnnDropoutDescriptor_t made, cudnnHandle_t handle, float probability,
                                            void *states, size_t bytes, unsigned long long seed) {
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateRNNDescriptor(cudnnRNNDescriptor_t *made) { return new_descriptor((void **)made); }
cudnnStatus_t cudnnDestroyRNNDescriptor(cudnnRNNDescriptor_t made) { return free_descriptor(made); }
cudnnStatus_t cudnnCreateRNNDataDescriptor(cudnnRNNDataDescriptor_t *made) { return new_descriptor((void **)made); }
cudnnStatus_t cudnnDestroyRNNDataDescriptor(cudnnRNNDataDescriptor_t made) { return free_descriptor(made); }

cudnnStatus_t cudnnSetRNNDescriptor_v8(cudnnRNNDescriptor_t made, cudnnRNNAlgo_t algorithm, cudnnRNNMode_t mode,
                                       cudnnRNNBiasMode_t bias, cudnnDirectionMode_t direction,
                                       cudnnRNNInputMode_t input_mode, cudnnDataType_t type,
                                       cudnnDataType_t precision, cudnnMathType_t math, int32_t input, int32_t hidden,
                                       int32_t projection, int32_t layers, cudnnDropoutDescriptor_t dropout,
                                       uint32_t flags) {
  if (projection != hidden) return CUDNN_STATUS_NOT_SUPPORTED;
  *(Rnn *)made = (Rnn){
      .mode = mode,
      .type = type,
      .input = input,
      .hidden = hidden,
      .layers = layers,
      .directions = direction == CUDNN_BIDIRECTIONAL ? 2 : 1,
      .element_bytes = type == CUDNN_DATA_DOUBLE ? 8 : type == CUDNN_DATA_FLOAT ? 4 : 2,
      .has_bias = bias != CUDNN_RNN_NO_BIAS,
  };
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetRNNDataDescriptor(cudnnRNNDataDescriptor_t made, cudnnDataType_t type,
                                        cudnnRNNDataLayout_t layout, int steps, int batch, int size,
                                        const int lengths[], void *filling) {
  *(Data *)made = (Data){steps, batch};
  return CUDNN_STATUS_SUCCESS;
}

static size_t gates_of(const Rnn *rnn) { return rnn->mode == CUDNN_LSTM ? 4 : rnn->mode == CUDNN_GRU ? 3 : 1; }

static size_t inputs_of(const Rnn *rnn, size_t layer) {
  return layer < rnn->directions ? rnn->input : rnn->hidden * rnn->directions;
}

static size_t matrices_of(const Rnn *rnn, size_t layer) {
  return gates_of(rnn) * rnn->hidden * (inputs_of(rnn, layer) + rnn->hidden);
}

cudnnStatus_t cudnnGetRNNWeightSpaceSize(cudnnHandle_t handle, cudnnRNNDescriptor_t made, size_t *bytes) {
  Rnn *rnn = (Rnn *)made;
  size_t numbers = 0;
  for (size_t layer = 0; layer < rnn->layers * rnn->directions; layer++)
    numbers += matrices_of(rnn, layer) + (rnn->has_bias ? 2 * gates_of(rnn) * rnn->hidden : 0);
  *bytes = numbers * rnn->element_bytes;
  return CUDNN_STATUS_SUCCESS;
}

/* cuDNN's own function for descriptors, which needs no device; it is loaded already. */
static void describe(cudnnTensorDescriptor_t made, const Rnn *rnn, int rows, int columns) {
  static cudnnStatus_t (*set)(cudnnTensorDescriptor_t, cudnnDataType_t, int, const int *, const int *);
  if (!set) set = dlsym(dlopen("libcudnn.so.9", RTLD_NOLOAD | RTLD_NOW), "cudnnSetTensorNdDescriptor");
  int sizes[] = {1, rows, columns}, strides[] = {rows * columns, columns, 1};
  if (made) set(made, rnn->type, 3, sizes, strides);
}

/* Layer by layer the matrices of x, then those of h; the biases of all layers behind them. */
cudnnStatus_t cudnnGetRNNWeightParams(cudnnHandle_t handle, cudnnRNNDescriptor_t made, int32_t layer, size_t bytes,
                                      const void *space, int32_t matrix, cudnnTensorDescriptor_t weights,
                                      void **weight_address, cudnnTensorDescriptor_t biases, void **bias_address) {
  Rnn *rnn = (Rnn *)made;
  size_t gates = gates_of(rnn), hidden = rnn->hidden, input = inputs_of(rnn, layer), begin = 0, all = 0;
  int is_there = (size_t)matrix < 2 * gates, is_of_input = (size_t)matrix < gates;
  for (int each = 0; each < (int)(rnn->layers * rnn->directions); each++) {
    if (each < layer) begin += matrices_of(rnn, each);
    all += matrices_of(rnn, each);
  }
  begin += is_of_input ? matrix * hidden * input : gates * hidden * input + (matrix - gates) * hidden * hidden;
  size_t bias_begin = all + (layer * 2 * gates + matrix) * hidden;
  describe(weights, rnn, hidden, is_of_input ? input : hidden);
  describe(biases, rnn, hidden, 1);
  if (weight_address) *weight_address = is_there ? (char *)space + begin * rnn->element_bytes : NULL;
  if (bias_address) *bias_address = is_there && rnn->has_bias ? (char *)space + bias_begin * rnn->element_bytes : NULL;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNTempSpaceSizes(cudnnHandle_t handle, cudnnRNNDescriptor_t made, cudnnForwardMode_t mode,
                                        cudnnRNNDataDescriptor_t x, size_t *workspace, size_t *reserve) {
  Rnn *rnn = (Rnn *)made;
  Data *data = (Data *)x;
  size_t tensor = data->steps * data->batch * rnn->hidden * rnn->directions * rnn->element_bytes;
  *workspace = tensor * gates_of(rnn);
  if (reserve) *reserve = mode == CUDNN_FWD_MODE_TRAINING ? tensor * rnn->layers * (gates_of(rnn) + 2) : 0;
  return CUDNN_STATUS_SUCCESS;
}
