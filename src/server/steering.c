/* steering.c - see steering.h; what clients send is read in steering_json.c. */
#include "server/steering.h"

#include <string.h>

/* ---- mixes ---------------------------------------------------------------------------------- */

void mix_copy(struct steer_mix *to, const struct steer_mix *from)
{
    *to = *from;
    for (int i = 0; i < to->n; i++)
        shelf_ref(to->parts[i].vector);
}

void mix_release(struct steer_mix *mix)
{
    for (int i = 0; i < mix->n; i++)
        shelf_unref(mix->parts[i].vector);
    mix->n = 0;
}

int mix_add(struct steer_mix *mix, struct steer_part part, struct gyaru_error *err)
{
    if (mix->n == GYARU_MAX_VECTORS) {
        shelf_unref(part.vector);
        return error_reason(err, GYARU_USAGE, REASON_MANY_VECTORS,
                            "at most %d vectors can be mixed", GYARU_MAX_VECTORS);
    }
    mix->parts[mix->n++] = part;
    return 0;
}

struct steer_part *mix_find(struct steer_mix *mix, const char *name)
{
    for (int i = 0; i < mix->n; i++) {
        if (!strcmp(mix->parts[i].vector->name, name))
            return &mix->parts[i];
    }
    return NULL;
}

/* ---- the live one --------------------------------------------------------------------------- */

void steering_init(struct steering *steering)
{
    pthread_mutex_init(&steering->lock, NULL);
    steering->mix.n = 0;
    steering->alone = 0;
    steering->version = 0;
}

void steering_release(struct steering *steering)
{
    mix_release(&steering->mix);
    pthread_mutex_destroy(&steering->lock);
}

/* With the lock held. */
static struct steering_value value_of(const struct steering *steering)
{
    float strength = steering->mix.n ? steering->mix.parts[0].strength : steering->alone;
    return (struct steering_value){strength, steering->version};
}

struct steering_value steering_set(struct steering *steering, float strength)
{
    pthread_mutex_lock(&steering->lock);
    if (steering->mix.n)
        steering->mix.parts[0].strength = strength;
    else
        steering->alone = strength;
    steering->version++;
    struct steering_value value = value_of(steering);
    pthread_mutex_unlock(&steering->lock);
    return value;
}

void steering_set_mix(struct steering *steering, struct steer_mix *mix)
{
    pthread_mutex_lock(&steering->lock);
    struct steer_mix old = steering->mix;
    steering->mix = *mix;
    steering->version++;
    pthread_mutex_unlock(&steering->lock);
    mix->n = 0;
    mix_release(&old);
}

struct steering_value steering_get(struct steering *steering)
{
    pthread_mutex_lock(&steering->lock);
    struct steering_value value = value_of(steering);
    pthread_mutex_unlock(&steering->lock);
    return value;
}

uint64_t steering_copy(struct steering *steering, struct steer_mix *mix)
{
    pthread_mutex_lock(&steering->lock);
    mix_copy(mix, &steering->mix);
    uint64_t version = steering->version;
    pthread_mutex_unlock(&steering->lock);
    return version;
}

void steering_renew(struct steering *steering, const struct shelf *shelf)
{
    struct steer_mix old, mix = {0};
    steering_copy(steering, &old);
    for (int i = 0; i < old.n; i++) {
        struct steer_part part = old.parts[i];
        struct shelf_vector *now = shelf_find(shelf, part.vector->name);
        if (!now || !shelf_usable(now)) {
            log_event(shelf->sources.log, LOG_LEVEL_WARN, "vector_lost",
                      json_pack("{s:s,s:s}", "vector", part.vector->name, "reason",
                                now && now->reason ? now->reason : "its file is gone"));
            continue;
        }
        part.vector = shelf_ref(now);
        mix.parts[mix.n++] = part;
    }
    mix_release(&old);
    steering_set_mix(steering, &mix);
}
