/*
 * tune_choice.h - which strengths are safe, and which of them is best. Functions of measured
 * figures alone.
 */
#ifndef STEER_TUNE_CHOICE_H
#define STEER_TUNE_CHOICE_H

#include "steer/tune.h"

/* Writes into the point why it is not safe; it and `base`, no steering, must have answered. */
void tune_judge(const struct tune_point *base, struct tune_point *point);

/* Sets best and best_point, or fails: "no safe strength", with what came closest. */
int tune_choose(struct tuning *t, struct gyaru_error *err);

/* The chosen strength did damage on unseen messages (controls[CONTROL_STEERED] says which): notes
 * it as not safe and chooses the candidate's next lower one that is, or fails. */
int tune_step_down(struct tuning *t, struct gyaru_error *err);

/* Is the marker rate of control a above that of b by more than two standard errors? */
bool tune_beats(const struct tuning *t, enum tune_control a, enum tune_control b);

#endif
