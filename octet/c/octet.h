/* octet in C: load a network, run it, quantize it, load plug-ins. The ABI is plain C and is kept
 * within a minor version.
 *
 *   octet_model* model = NULL;
 *   if (octet_load("net.octet", NULL, &model) != OCTET_OK) {
 *     puts(octet_error_text());
 *     return 1;
 *   }
 *   float x[784] = {0}, y[10];
 *   int64_t x_dims[] = {1, 1, 28, 28}, y_dims[] = {1, 10};
 *   octet_array in = {OCTET_FLOAT32, 4, x_dims, x, sizeof x};
 *   octet_array out = {OCTET_FLOAT32, 2, y_dims, y, sizeof y};
 *   if (octet_run(model, &in, 1, &out, 1) != OCTET_OK) puts(octet_error_text());
 *   octet_free(model);
 *
 * A function that can fail returns a status; what went wrong is in octet_error_text() of the same
 * thread until its next call of octet. A model may be run from several threads at once. Strings
 * are UTF-8. */
#ifndef OCTET_C_OCTET_H
#define OCTET_C_OCTET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum octet_status {
  OCTET_OK = 0,
  OCTET_INVALID_ARGUMENT = 1, /* a value, shape or dtype that the caller passed is wrong */
  OCTET_NOT_FOUND = 2,        /* a file, name or input that does not exist */
  OCTET_IO = 3,               /* the operating system refused a read or a write */
  OCTET_CORRUPT = 4,          /* a file is damaged or not of the format it claims */
  OCTET_UNSUPPORTED = 5,      /* valid, but octet cannot do it */
  OCTET_NOT_CALIBRATED = 6,   /* qparams were asked of an observer that saw no data */
  OCTET_INTERNAL = 7,         /* a bug in octet */
  OCTET_OUT_OF_MEMORY = 8
} octet_status;

/* Types of elements. Arrays of codes (OCTET_QUINT8 ...) are inputs or results of networks that
 * take or give codes. */
typedef enum octet_dtype {
  OCTET_FLOAT32 = 0,
  OCTET_FLOAT64 = 1,
  OCTET_FLOAT16 = 2,
  OCTET_BFLOAT16 = 3,
  OCTET_INT64 = 4,
  OCTET_INT32 = 5,
  OCTET_INT16 = 6,
  OCTET_INT8 = 7,
  OCTET_UINT8 = 8,
  OCTET_BOOL = 9,
  OCTET_QUINT8 = 10,
  OCTET_QINT8 = 11,
  OCTET_QINT32 = 12,
  OCTET_QUINT16 = 13,
  OCTET_QINT16 = 14,
  OCTET_UINT16 = 15
} octet_dtype;

/* A row-major array of the caller's: `bytes` is the size of what `data` points to. */
typedef struct octet_array {
  octet_dtype dtype;
  size_t rank;
  const int64_t* dims; /* `rank` of them */
  void* data;
  size_t bytes;
} octet_array;

typedef struct octet_model octet_model;

/* "0.2.0" of the library that runs. */
const char* octet_version(void);
/* What the last failed call of this thread was about, in one line; "" if none failed. */
const char* octet_error_text(void);

/* -- running -------------------------------------------------------------------------------------
 * ------------------------- */

/* Loads and compiles a file .octet or .onnx. `engine`: "native", "reference", ...; NULL is the
 * process's choice. */
octet_status octet_load(const char* path, const char* engine, octet_model** model);
void octet_free(octet_model* model); /* NULL does nothing */

/* What a network takes and gives. `name` and `dims` belong to the model; a dimension of -1 is
 * open. `scale` and `zero_point` are those of codes per tensor, else 0. */
typedef struct octet_value_info {
  const char* name;
  octet_dtype dtype;
  size_t rank;
  const int64_t* dims;
  double scale;
  int64_t zero_point;
} octet_value_info;
size_t octet_input_count(const octet_model* model);
size_t octet_output_count(const octet_model* model);
octet_status octet_input_info(const octet_model* model, size_t index, octet_value_info* info);
octet_status octet_output_info(const octet_model* model, size_t index, octet_value_info* info);

/* The dims of every result for inputs of these shapes: `dims` holds 8 numbers for each output,
 * `ranks` one. Runs the network. */
octet_status octet_output_dims(const octet_model* model, const octet_array* inputs,
                               size_t input_count, int64_t (*dims)[8], size_t* ranks,
                               size_t output_count);

/* Runs once. Inputs are in the model's order and are copied; each result is written to its array,
 * whose dtype and dims must be the result's (octet_output_info; octet_output_dims where sizes are
 * open). */
octet_status octet_run(const octet_model* model, const octet_array* inputs, size_t input_count,
                       octet_array* outputs, size_t output_count);

/* -- quantizing ----------------------------------------------------------------------------------
 * ------------------------- */

typedef enum octet_mode { OCTET_STATIC = 0, OCTET_DYNAMIC = 1, OCTET_WEIGHT_ONLY = 2 } octet_mode;

/* Zero is the default of every field. */
typedef struct octet_quantize_options {
  octet_mode mode;
  const char* calibration; /* static: samples, as `octet quantize --calibrate` takes them */
  int64_t samples;         /* the first so many; 0: all */
  const char* qconfig;     /* "native" (NULL), "fbgemm", "qnnpack", ... */
  const char* mapping;     /* a QConfigMapping as JSON, or NULL */
} octet_quantize_options;

/* Quantizes the network in `model_path` (.onnx or .octet) and writes it to `output_path` (.octet,
 * or .onnx with QDQ), whole or not at all; biases stay as they are, as with `octet quantize
 * --bias-samples 0`. The error names all that is wrong with the network and the samples. */
octet_status octet_quantize(const char* model_path, const char* output_path,
                            const octet_quantize_options* options);
/* What the last octet_quantize of this thread warns of: too few samples, a sample that sets ranges
 * alone, values that codes cannot tell apart. One line each; "" if there is nothing. */
const char* octet_warning_text(void);

/* -- the process ---------------------------------------------------------------------------------
 * ------------------------- */

octet_status octet_set_threads(int threads); /* of later runs, 1 or more */

/* Loads a plug-in: a shared library, compiled with octet's C++ headers of the same version, whose
 * static objects register operators, engines and tensor types, and which has
 *   extern "C" int octet_plugin(int major, int minor);
 * That is called once, with the version of the library that runs; a result other than 0 is an
 * error. What a plug-in registered stays for the life of the process. */
octet_status octet_load_plugin(const char* path);

#ifdef __cplusplus
}
#endif

#endif
