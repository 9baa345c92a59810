/* source.c - see source.h. */
#include "model/source.h"

#include "base/json.h"
#include "base/size.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NF4_STATE ".quant_state.bitsandbytes__nf4"
#define FP4_STATE ".quant_state.bitsandbytes__fp4"

/* The tensor `name` + `suffix`, NULL if there is none. */
static const struct tensor *part(const struct checkpoint *c, const char *name, const char *suffix)
{
    struct str s = STR_INIT;
    str_printf(&s, "%s%s", name, suffix);
    const struct tensor *t = s.failed ? NULL : checkpoint_find(c, s.data);
    str_release(&s);
    return t;
}

bool source_is_fp4(const struct checkpoint *checkpoint, const char *name)
{
    return part(checkpoint, name, FP4_STATE) != NULL;
}

static int fail(struct gyaru_error *err, const char *name, const char *what)
{
    return error_set(err, GYARU_FAILED, "%s: %s", name, what);
}

static bool all_finite(const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, data + 4 * i, sizeof bits);
        if ((bits & 0x7f800000) == 0x7f800000)
            return false;
    }
    return true;
}

/* A float32 part of exactly n finite values. */
static int float_part(const struct checkpoint *c, const char *name, const char *suffix, size_t n,
                      const uint8_t **out, struct gyaru_error *err)
{
    const struct tensor *t = part(c, name, suffix);
    if (!t || t->dtype != DTYPE_F32 || t->size / 4 != n)
        return error_set(err, GYARU_FAILED, "%s%s: %s: expected float32 [%zu]", name, suffix,
                         t ? "wrong type or size" : "missing", n);
    if (!all_finite(t->data, n))
        return error_set(err, GYARU_FAILED, "%s%s: holds NaN or Inf", name, suffix);
    *out = t->data;
    return 0;
}

struct quant_state {
    size_t block_size, nested_block_size;
    float nested_offset;
    bool nested;
};

static bool positive(const json_t *value, size_t *out)
{
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 1 || n > 1 << 20)
        return false;
    *out = (size_t)n;
    return true;
}

/* {"quant_type","blocksize","dtype","shape":[N,K],"nested_blocksize","nested_offset"}, NUL-padded
 */
static int read_state(const struct tensor *t, size_t rows, size_t cols, struct quant_state *out,
                      struct gyaru_error *err)
{
    size_t len = t->size;
    while (len && t->data[len - 1] == '\0')
        len--;
    if (t->dtype != DTYPE_U8 || len > 1 << 16)
        return fail(err, t->name, "not a bitsandbytes quant_state");
    json_t *json = json_parse((const char *)t->data, len, t->name, err);
    if (!json)
        return -1;
    const json_t *shape = json_object_get(json, "shape");
    const json_t *offset = json_object_get(json, "nested_offset");
    struct quant_state s = {.nested = json_object_get(json, "nested_blocksize") != NULL};
    int rc = 0;
    if (json_integer_value(json_array_get(shape, 0)) != (json_int_t)rows ||
        json_integer_value(json_array_get(shape, 1)) != (json_int_t)cols)
        rc = error_set(err, GYARU_FAILED, "%s: shape is not [%zu, %zu] as config.json implies",
                       t->name, rows, cols);
    else if (!positive(json_object_get(json, "blocksize"), &s.block_size) || s.block_size % 8)
        rc = fail(err, t->name, "blocksize: expected a positive multiple of 8");
    else if (s.nested && !positive(json_object_get(json, "nested_blocksize"), &s.nested_block_size))
        rc = fail(err, t->name, "nested_blocksize: expected a positive integer");
    else if (s.nested && (!json_is_number(offset) || !isfinite(json_number_value(offset))))
        rc = fail(err, t->name, "nested_offset: expected a number");
    s.nested_offset = (float)json_number_value(offset);
    json_decref(json);
    *out = s;
    return rc;
}

static int read_4bit(const struct checkpoint *c, const char *name, const struct tensor *weight,
                     const struct tensor *state_tensor, struct quant_source *s,
                     struct gyaru_error *err)
{
    struct quant_state state = {0};
    if (read_state(state_tensor, s->rows, s->cols, &state, err))
        return -1;
    size_t n = s->rows * s->cols; /* checked by the caller */
    if (weight->size != n / 2 || n % 2)
        return error_set(err, GYARU_FAILED, "%s: %zu bytes of 4-bit codes: expected %zu", name,
                         weight->size, n / 2);
    size_t blocks = n / state.block_size + (n % state.block_size != 0);
    const uint8_t *map, *nested_map;
    s->type = QUANT_4BIT;
    s->data = weight->data;
    s->block_size = state.block_size;
    if (float_part(c, name, ".quant_map", 16, &map, err))
        return -1;
    memcpy(s->map, map, sizeof s->map);
    if (!state.nested)
        return float_part(c, name, ".absmax", blocks, &s->absmax, err);
    const struct tensor *absmax = part(c, name, ".absmax");
    if (!absmax || absmax->dtype != DTYPE_U8 || absmax->size != blocks)
        return error_set(err, GYARU_FAILED, "%s.absmax: expected uint8 [%zu]", name, blocks);
    s->absmax = absmax->data;
    s->nested_block_size = state.nested_block_size;
    s->nested_offset = state.nested_offset;
    size_t groups = blocks / s->nested_block_size + (blocks % s->nested_block_size != 0);
    if (float_part(c, name, ".nested_absmax", groups, &s->nested_absmax, err) ||
        float_part(c, name, ".nested_quant_map", 256, &nested_map, err))
        return -1;
    memcpy(s->nested_map, nested_map, sizeof s->nested_map);
    return 0;
}

static bool plain_type(enum dtype dtype, enum quant_type *out)
{
    switch (dtype) {
    case DTYPE_F32:
        *out = QUANT_F32;
        return true;
    case DTYPE_F16:
        *out = QUANT_F16;
        return true;
    case DTYPE_BF16:
        *out = QUANT_BF16;
        return true;
    default:
        return false;
    }
}

static int read_plain(const char *name, const struct tensor *weight, struct quant_source *s,
                      struct gyaru_error *err)
{
    if (!plain_type(weight->dtype, &s->type))
        return error_set(err, GYARU_FAILED,
                         "%s: dtype %s without a 4-bit quant_state: only bitsandbytes 4-bit, bf16, "
                         "fp16 and fp32 weights can be loaded",
                         name, dtype_name(weight->dtype));
    if (weight->n_dims != 2 || weight->dims[0] != s->rows || weight->dims[1] != s->cols)
        return error_set(err, GYARU_FAILED, "%s: expected shape [%zu, %zu] by config.json", name,
                         s->rows, s->cols);
    s->data = weight->data;
    return 0;
}

int source_matrix(const struct checkpoint *checkpoint, const char *name, size_t rows, size_t cols,
                  struct quant_source *out, struct gyaru_error *err)
{
    struct quant_source s = {.rows = rows, .cols = cols};
    size_t n;
    if (!size_mul(rows, cols, &n) || n > SIZE_MAX / 16)
        return fail(err, name, "too large");
    const struct tensor *weight = checkpoint_find(checkpoint, name);
    if (!weight)
        return fail(err, name, "missing from the checkpoint");
    if (part(checkpoint, name, ".SCB") || weight->dtype == DTYPE_I8)
        return fail(err, name, "int8 weights are not supported: use a 4-bit (NF4) checkpoint");
    const struct tensor *state = part(checkpoint, name, NF4_STATE);
    if (!state)
        state = part(checkpoint, name, FP4_STATE);
    int rc = state ? read_4bit(checkpoint, name, weight, state, &s, err)
                   : read_plain(name, weight, &s, err);
    if (!rc)
        *out = s;
    return rc;
}

int source_vector(const struct checkpoint *checkpoint, const char *name, size_t n, float **out,
                  struct gyaru_error *err)
{
    const struct tensor *t = checkpoint_find(checkpoint, name);
    struct quant_source s = {.rows = 1, .cols = n};
    if (!t)
        return fail(err, name, "missing from the checkpoint");
    if (!plain_type(t->dtype, &s.type) || tensor_count(t) != n)
        return error_set(err, GYARU_FAILED, "%s: expected %zu values of bf16, fp16 or fp32", name,
                         n);
    s.data = t->data;
    float *values = malloc(n * sizeof *values);
    if (!values)
        return error_memory(err, n * sizeof *values, name);
    quant_row(&s, 0, values);
    if (!all_finite((const uint8_t *)values, n)) {
        free(values);
        return fail(err, name, "holds NaN or Inf");
    }
    *out = values;
    return 0;
}
