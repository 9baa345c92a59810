/* migrate_table.c - see migrate_table.h. */
#include "cli/migrate_table.h"

#include "cli/human.h"

#include <string.h>

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "unknown";
}

static long long int_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static double real_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void print_pair(FILE *out, const char *name, const json_t *from, const json_t *to,
                       const char *key)
{
    fprintf(out, "  %-18s %24lld %24lld\n", name, int_of(from, key), int_of(to, key));
}

static void print_bytes(FILE *out, const char *name, const json_t *from, const json_t *to,
                        const char *key)
{
    fprintf(out, "  %-18s %24s %24s\n", name, human_bytes((uint64_t)int_of(from, key)).text,
            human_bytes((uint64_t)int_of(to, key)).text);
}

static void print_range(FILE *out, const json_t *from, const json_t *to)
{
    char a[32], b[32];
    snprintf(a, sizeof a, "%lld-%lld", int_of(from, "layer_first"), int_of(from, "layer_last"));
    snprintf(b, sizeof b, "%lld-%lld", int_of(to, "layer_first"), int_of(to, "layer_last"));
    fprintf(out, "  %-18s %24s %24s\n", "layers, 30-80%", a, b);
}

static void print_vector(FILE *out, const json_t *vector)
{
    const json_t *check = json_object_get(vector, "with_new");
    if (!json_is_object(vector)) {
        fprintf(out, "\n  the old model has no vector\n");
        return;
    }
    fprintf(out, "\n  old vector         %s\n", text_of(vector, "path"));
    if (json_is_true(json_object_get(check, "fits")))
        fprintf(out, "  on the new model   fits%s%s\n",
                json_is_string(json_object_get(check, "warning")) ? ", as far as is known: " : "",
                json_is_string(json_object_get(check, "warning")) ? text_of(check, "warning") : "");
    else
        fprintf(out, "  on the new model   DOES NOT FIT: %s\n", text_of(check, "reason"));
}

void migrate_plan_print(FILE *out, const json_t *plan)
{
    const json_t *from = json_object_get(plan, "from"), *to = json_object_get(plan, "to");
    const json_t *memory = json_object_get(plan, "memory");
    fprintf(out, "  %-18s %24s %24s\n", "", "old", "new");
    fprintf(out, "  %-18s %24s %24s\n", "model", text_of(from, "path"), text_of(to, "path"));
    fprintf(out, "  %-18s %24.12s %24.12s\n", "fingerprint", text_of(from, "fingerprint"),
            text_of(to, "fingerprint"));
    fprintf(out, "  %-18s %24s %24s\n", "parameters",
            human_count((uint64_t)int_of(from, "parameters")).text,
            human_count((uint64_t)int_of(to, "parameters")).text);
    print_pair(out, "blocks", from, to, "n_layers");
    print_pair(out, "hidden size", from, to, "hidden_size");
    fprintf(out, "  %-18s %24.2f %24.2f\n", "bits per weight", real_of(from, "bits_per_weight"),
            real_of(to, "bits_per_weight"));
    print_range(out, from, to);
    print_pair(out, "meter layer, 73%", from, to, "visualise_layer");
    if (json_is_object(memory)) {
        const json_t *a = json_object_get(memory, "from"), *b = json_object_get(memory, "to");
        fprintf(out, "\n  on %s\n", text_of(b, "description"));
        print_bytes(out, "weights", a, b, "weight_bytes");
        print_bytes(out, "KV cache", a, b, "kv_bytes");
        print_bytes(out, "workspace", a, b, "workspace_bytes");
        print_bytes(out, "together", a, b, "total_bytes");
        fprintf(out, "  %-18s %49.0f%%\n", "saved", 100 * real_of(memory, "saved"));
    }
    print_vector(out, json_object_get(plan, "old_vector"));
    if (json_is_true(json_object_get(plan, "same_model")))
        fprintf(out, "\n  both directories hold the same model\n");
}
