/* random.c - see random.h. A linear congruential generator with Knuth's multiplier. */
#include "random.h"

static uint64_t state;

void random_seed(uint64_t from)
{
    state = from;
}

uint64_t random_state(void)
{
    return state;
}

uint64_t random_bits64(void)
{
    return state = state * 6364136223846793005u + 1442695040888963407u;
}

uint32_t random_bits(void)
{
    return (uint32_t)(random_bits64() >> 33);
}

float random_float(void)
{
    return (float)random_bits() / (float)(1u << 30) - 1;
}

int random_between(int low, int high)
{
    return low + (int)(random_bits() % (uint32_t)(high - low + 1));
}
