/* migrate_table.c - see migrate_table.h. */
#include "cli/migrate_table.h"

#include "cli/human.h"

#include <string.h>

static void print_pair(FILE *out, const char *name, const json_t *from, const json_t *to,
                       const char *key)
{
    fprintf(out, "  %-18s %24lld %24lld\n", name, human_int_at(from, key), human_int_at(to, key));
}

static void print_bytes(FILE *out, const char *name, const json_t *from, const json_t *to,
                        const char *key)
{
    fprintf(out, "  %-18s %24s %24s\n", name, human_bytes_at(from, key).text,
            human_bytes_at(to, key).text);
}

static void print_range(FILE *out, const json_t *from, const json_t *to)
{
    char a[32], b[32];
    snprintf(a, sizeof a, "%lld-%lld", human_int_at(from, "layer_first"),
             human_int_at(from, "layer_last"));
    snprintf(b, sizeof b, "%lld-%lld", human_int_at(to, "layer_first"),
             human_int_at(to, "layer_last"));
    fprintf(out, "  %-18s %24s %24s\n", "layers, 30-80%", a, b);
}

static void print_vector(FILE *out, const json_t *vector)
{
    const json_t *check = json_object_get(vector, "with_new");
    if (!json_is_object(vector)) {
        fprintf(out, "\n  the old model has no vector\n");
        return;
    }
    fprintf(out, "\n  old vector         %s\n", human_text_at(vector, "path"));
    if (json_is_true(json_object_get(check, "fits")))
        fprintf(out, "  on the new model   fits%s%s\n",
                json_is_string(json_object_get(check, "warning")) ? ", as far as is known: " : "",
                json_is_string(json_object_get(check, "warning")) ? human_text_at(check, "warning")
                                                                  : "");
    else
        fprintf(out, "  on the new model   DOES NOT FIT: %s\n", human_text_at(check, "reason"));
}

void migrate_plan_print(FILE *out, const json_t *plan)
{
    const json_t *from = json_object_get(plan, "from"), *to = json_object_get(plan, "to");
    const json_t *memory = json_object_get(plan, "memory");
    fprintf(out, "  %-18s %24s %24s\n", "", "old", "new");
    fprintf(out, "  %-18s %24s %24s\n", "model", human_text_at(from, "path"),
            human_text_at(to, "path"));
    fprintf(out, "  %-18s %24.12s %24.12s\n", "fingerprint", human_text_at(from, "fingerprint"),
            human_text_at(to, "fingerprint"));
    fprintf(out, "  %-18s %24s %24s\n", "parameters",
            human_count((uint64_t)human_int_at(from, "parameters")).text,
            human_count((uint64_t)human_int_at(to, "parameters")).text);
    print_pair(out, "blocks", from, to, "n_layers");
    print_pair(out, "hidden size", from, to, "hidden_size");
    fprintf(out, "  %-18s %24.2f %24.2f\n", "bits per weight",
            human_real_at(from, "bits_per_weight"), human_real_at(to, "bits_per_weight"));
    print_range(out, from, to);
    print_pair(out, "meter layer, 73%", from, to, "visualise_layer");
    if (json_is_object(memory)) {
        const json_t *a = json_object_get(memory, "from"), *b = json_object_get(memory, "to");
        fprintf(out, "\n  on %s\n", human_text_at(b, "description"));
        print_bytes(out, "weights", a, b, "weight_bytes");
        print_bytes(out, "KV cache", a, b, "kv_bytes");
        print_bytes(out, "workspace", a, b, "workspace_bytes");
        print_bytes(out, "together", a, b, "total_bytes");
        fprintf(out, "  %-18s %49.0f%%\n", "saved", 100 * human_real_at(memory, "saved"));
    }
    print_vector(out, json_object_get(plan, "old_vector"));
    if (json_is_true(json_object_get(plan, "same_model")))
        fprintf(out, "\n  both directories hold the same model\n");
}
