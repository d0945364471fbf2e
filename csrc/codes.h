#ifndef FORGE_CODES_H
#define FORGE_CODES_H

#include "forge.h"

/* Unpack codes, and give codes their values; the caller has set the floating-point environment. */
void unpack_codes(const forge_codes *request, uint8_t *dst);
void scale_codes(const forge_scaled *request, float *dst);

#endif
