#ifndef FORGE_EXP_H
#define FORGE_EXP_H

#include <stdint.h>

/* exp(x) of `n` floats; the caller has set the floating-point environment. */
void exp_floats(const float *x, float *dst, int64_t n);

#endif
