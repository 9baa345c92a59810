/* steering.c - see steering.h. */
#include "server/steering.h"

void steering_init(struct steering *steering)
{
    pthread_mutex_init(&steering->lock, NULL);
    steering->strength = 0;
    steering->version = 0;
}

void steering_release(struct steering *steering)
{
    pthread_mutex_destroy(&steering->lock);
}

struct steering_value steering_set(struct steering *steering, float strength)
{
    pthread_mutex_lock(&steering->lock);
    steering->strength = strength;
    struct steering_value value = {strength, ++steering->version};
    pthread_mutex_unlock(&steering->lock);
    return value;
}

struct steering_value steering_get(struct steering *steering)
{
    pthread_mutex_lock(&steering->lock);
    struct steering_value value = {steering->strength, steering->version};
    pthread_mutex_unlock(&steering->lock);
    return value;
}

int steering_parse(const json_t *value, float *strength, struct gyaru_error *err)
{
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= (double)GYARU_STRENGTH_MIN) ||
        !(number <= (double)GYARU_STRENGTH_MAX))
        return error_set(err, GYARU_FAILED, "the strength must be a number from %g to %g",
                         (double)GYARU_STRENGTH_MIN, (double)GYARU_STRENGTH_MAX);
    *strength = (float)number;
    return 0;
}
