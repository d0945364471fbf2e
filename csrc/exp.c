/* The exponential function, with the bits of torch's `exp` on x86-64 CPUs with AVX-512.
 *
 * torch hands float32 arrays to the vector library of Intel's MKL (vsExp, high accuracy), whose results are
 * not always the nearest float. The reference's converter computes Mamba's decay with it, -exp(A_log), so its
 * files have those bits. With x = k/32 * ln 2 + r, k rounded down: exp(x) = 2^(k/32) * (1 + r + r^2 * (C2 +
 * C3 * r)). A power 2^(j/32) is a float, HIGH[j], and its relative error, LOW[j]. Every multiply-add is
 * fused.
 */
#include <math.h>
#include <string.h>

#include "exp.h"

#include "base.h"

/* 2^(j/32), rounded to a float. */
static const uint32_t HIGH[32] = {
    0x3f800000, 0x3f82cd87, 0x3f85aac3, 0x3f88980f, 0x3f8b95c2, 0x3f8ea43a, 0x3f91c3d3, 0x3f94f4f0,
    0x3f9837f0, 0x3f9b8d3a, 0x3f9ef532, 0x3fa27043, 0x3fa5fed7, 0x3fa9a15b, 0x3fad583f, 0x3fb123f6,
    0x3fb504f3, 0x3fb8fbaf, 0x3fbd08a4, 0x3fc12c4d, 0x3fc5672a, 0x3fc9b9be, 0x3fce248c, 0x3fd2a81e,
    0x3fd744fd, 0x3fdbfbb8, 0x3fe0ccdf, 0x3fe5b907, 0x3feac0c7, 0x3fefe4ba, 0x3ff5257d, 0x3ffa83b3,
};
/* (2^(j/32) - HIGH[j]) / HIGH[j], rounded to a float. */
static const uint32_t LOW[32] = {
    0x00000000, 0xb34a3a0a, 0x3346cb6a, 0xb36ed17e, 0xb24e0611, 0xb3517dd9, 0x334b2482, 0xb31586de,
    0x33092801, 0xb2e6f467, 0x331b85f2, 0x3099b6f1, 0xb3051aa8, 0xb2e2a0da, 0xb2006c56, 0xb3365942,
    0x329302ae, 0x32c595dc, 0xb302e5a2, 0xb28e10a1, 0x31b3d0e5, 0xb31a472b, 0x31d1daf2, 0xb305bf64,
    0xb27ce182, 0xb2f26443, 0xb1b4b0da, 0xb1da8a8f, 0xb1d290be, 0xb2d5b899, 0x31b0a147, 0xb2156afc,
};
static const float LOG2_E = 0x1.715476p+0f, LN2_HIGH = 0x1.62e430p-1f, LN2_LOW = -0x1.05c610p-29f;
static const float C2 = 0x1.0001ecp-1f, C3 = 0x1.5557e6p-3f;
/* Beyond this the result is infinite, or loses bits as a denormal number. */
static const float LARGEST = 0x1.5d589ep+6f;

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float exp_of(float x)
{
    if (!(fabsf(x) < LARGEST)) {
        return (float)exp((double)x);
    }
    double k = floor((double)x * (double)LOG2_E * 32.0);
    float whole = (float)(k / 32.0);
    float r = fmaf(whole, -LN2_LOW, fmaf(whole, -LN2_HIGH, x));
    int j = (int)((int64_t)k & 31);
    float relative = fmaf(fmaf(r, C3, C2), r * r, float_of(LOW[j]) + r);
    float power = ldexpf(float_of(HIGH[j]), (int)floor(k / 32.0));
    return fmaf(relative, power, power);
}

void exp_floats(const float *x, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        dst[i] = exp_of(x[i]);
    }
}
