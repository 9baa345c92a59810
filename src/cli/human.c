/* human.c - see human.h. */
#include "cli/human.h"

#include <stdio.h>

static struct human scaled(double value, double step, const char *const units[4])
{
    struct human h;
    int unit = 0;
    while (value >= step && unit < 3) {
        value /= step;
        unit++;
    }
    int digits = !unit || value >= 100 ? 0 : value >= 10 ? 1 : 2;
    snprintf(h.text, sizeof h.text, "%.*f%s", digits, value, units[unit]);
    return h;
}

struct human human_bytes(uint64_t bytes)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB"};
    return scaled((double)bytes, 1024, units);
}

struct human human_count(uint64_t n)
{
    static const char *const units[] = {"", " K", " M", " B"};
    return scaled((double)n, 1000, units);
}

const char *human_text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "unknown";
}

long long human_int_at(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

double human_real_at(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

struct human human_bytes_at(const json_t *object, const char *key)
{
    return human_bytes((uint64_t)human_int_at(object, key));
}
