/* tests.h - the tests of test_cuda.c's table, by the file that has them. */
#ifndef TESTS_CUDA_TESTS_H
#define TESTS_CUDA_TESTS_H

/* operations.c */
void every_type_agrees(void **state);
void mixed_types_agree(void **state);
void odd_shapes_agree(void **state);
void large_chunks_agree(void **state);
void shares_agree(void **state);
void long_contexts_agree(void **state);
void large_activations_agree(void **state);
void plans_are_what_is_taken(void **state);

/* steps.c */
void rows_do_not_depend_on_neighbours(void **state);
void tiles_do_not_depend_on_neighbours(void **state);
void whole_steps_agree(void **state);
void fused_chunks_agree(void **state);
void graphs_take_new_values(void **state);

/* group.c */
void each_takes_its_part(void **state);
void tied_heads_agree(void **state);
void the_same_step_gives_the_same_bits(void **state);
void three_share(void **state);

#endif
