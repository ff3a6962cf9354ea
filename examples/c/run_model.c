/* octet from C: runs a network on zeros and prints what it gives.
 *
 *   run_model MODEL [ENGINE]
 */
#include <octet/c/octet.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char* what) {
  fprintf(stderr, "run_model: %s: %s\n", what, octet_error_text());
  return 1;
}

/* The number of elements; open sizes count as 1. */
static size_t elements(int64_t* dims, size_t rank) {
  size_t n = 1, i;
  for (i = 0; i < rank; ++i) {
    if (dims[i] < 0) dims[i] = 1;
    n *= (size_t)dims[i];
  }
  return n;
}

int main(int argc, char** argv) {
  octet_model* model = NULL;
  octet_value_info info;
  octet_array in, out;
  int64_t in_dims[8], out_dims[1][8];
  size_t i, n, rank;

  if (argc < 2) {
    fprintf(stderr, "usage: run_model MODEL [ENGINE]\n");
    return 2;
  }
  printf("octet %s\n", octet_version());
  if (octet_load(argv[1], argc > 2 ? argv[2] : NULL, &model) != OCTET_OK) return failed(argv[1]);
  if (octet_input_count(model) != 1 || octet_output_count(model) != 1 ||
      octet_input_info(model, 0, &info) != OCTET_OK || info.dtype != OCTET_FLOAT32 ||
      info.rank > 8) {
    fprintf(stderr, "run_model: takes models with one float32 input and one output\n");
    return 1;
  }
  for (i = 0; i < info.rank; ++i) in_dims[i] = info.dims[i];
  n = elements(in_dims, info.rank);
  in.dtype = OCTET_FLOAT32;
  in.rank = info.rank;
  in.dims = in_dims;
  in.bytes = n * sizeof(float);
  in.data = calloc(n, sizeof(float));

  if (octet_output_dims(model, &in, 1, out_dims, &rank, 1) != OCTET_OK) return failed("run");
  if (octet_output_info(model, 0, &info) != OCTET_OK) return failed("output");
  out.dtype = info.dtype;
  out.rank = rank;
  out.dims = out_dims[0];
  n = elements(out_dims[0], rank);
  out.bytes = n * sizeof(float);
  out.data = calloc(n, sizeof(float));
  if (octet_run(model, &in, 1, &out, 1) != OCTET_OK) return failed("run");
  for (i = 0; i < n && i < 10; ++i) printf("%s[%zu] = %g\n", info.name, i, ((float*)out.data)[i]);
  free(in.data);
  free(out.data);
  octet_free(model);
  return 0;
}
