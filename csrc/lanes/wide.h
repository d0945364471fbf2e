/* Wide vectors: LANES = VECS * H_LANES lanes, the width of a tile.
 *
 * The searches are chains of dependent additions, so two independent hardware vectors go side by side and
 * hide each other's latency. Every v_ operation is its h_ operation on each of them. */
#define LANES (H_LANES * VECS)

#if VECS == 1
typedef hf vf;
typedef hi vi;
typedef hm vm;
#define LIFT(type, expression_a, expression_b) expression_a
#define PART_A(x)                              (x)
#define PART_B(x)                              (x)
#else
typedef struct {
    hf a, b;
} vf;
typedef struct {
    hi a, b;
} vi;
typedef struct {
    hm a, b;
} vm;
#define LIFT(type, expression_a, expression_b) ((type){expression_a, expression_b})
#define PART_A(x)                              (x).a
#define PART_B(x)                              (x).b
#endif
#define LIFT1(R, name, A)                                                                                    \
    INLINE R v##name(A x) { return LIFT(R, h##name(PART_A(x)), h##name(PART_B(x))); }
#define LIFT2(R, name, A, B)                                                                                 \
    INLINE R v##name(A x, B y)                                                                               \
    {                                                                                                        \
        return LIFT(R, h##name(PART_A(x), PART_A(y)), h##name(PART_B(x), PART_B(y)));                        \
    }

LIFT2(vf, _add, vf, vf)
LIFT2(vf, _sub, vf, vf)
LIFT2(vf, _mul, vf, vf)
LIFT2(vf, _div, vf, vf)
LIFT2(vf, _min, vf, vf)
LIFT2(vf, _max, vf, vf)
LIFT1(vf, _sqrt, vf)
LIFT1(vf, _abs, vf)
LIFT1(vf, _neg, vf)
LIFT1(vf, _round, vf)
LIFT2(vm, _lt, vf, vf)
LIFT2(vm, _eq, vf, vf)
LIFT2(vm, m_and, vm, vm)
LIFT2(vm, m_or, vm, vm)
LIFT1(vm, m_not, vm)
LIFT2(vi, i_sub, vi, vi)
LIFT2(vi, i_and, vi, vi)
LIFT2(vi, i_min, vi, vi)
LIFT2(vi, i_max, vi, vi)
LIFT2(vi, i_min_unsigned, vi, vi)
LIFT2(vm, i_lt_unsigned, vi, vi)
LIFT1(vi, _bits, vf)
LIFT1(vf, i_as_float, vi)
LIFT1(vi, _trunc, vf)
LIFT1(vf, i_float, vi)

INLINE vf v_set(float x) { return LIFT(vf, h_set(x), h_set(x)); }
INLINE vi vi_set(int32_t x) { return LIFT(vi, hi_set(x), hi_set(x)); }
INLINE vf v_load(const float *p) { return LIFT(vf, h_load(p), h_load(p + H_LANES)); }
INLINE vf v_select(vm m, vf yes, vf no)
{
    return LIFT(vf, h_select(PART_A(m), PART_A(yes), PART_A(no)),
                h_select(PART_B(m), PART_B(yes), PART_B(no)));
}
INLINE bool vm_any(vm m) { return hm_any(PART_A(m)) || hm_any(PART_B(m)); }
INLINE uint32_t vm_bits(vm m)
{
    return VECS == 1 ? hm_bits(PART_A(m)) : hm_bits(PART_A(m)) | hm_bits(PART_B(m)) << (LANES / 2);
}
INLINE bool vm_all(vm m) { return !vm_any(vm_not(m)); }

INLINE void v_store(float *p, vf x)
{
    h_store(p, PART_A(x));
    if (VECS == 2)
        h_store(p + H_LANES, PART_B(x));
}

LIFT2(vi, i_or, vi, vi)
INLINE vi vi_shr(vi x, int n) { return LIFT(vi, hi_shr(PART_A(x), n), hi_shr(PART_B(x), n)); }
INLINE vi vi_load(const int32_t *p) { return LIFT(vi, hi_load(p), hi_load(p + H_LANES)); }
INLINE vf v_lookup4(const float *table, vi code)
{
    return LIFT(vf, h_lookup4(table, PART_A(code)), h_lookup4(table, PART_B(code)));
}
INLINE vf v_lookup8(const float *table, vi code)
{
    return LIFT(vf, h_lookup8(table, PART_A(code)), h_lookup8(table, PART_B(code)));
}
INLINE vi vi_select(vm m, vi yes, vi no) { return v_bits(v_select(m, vi_as_float(yes), vi_as_float(no))); }

INLINE void vi_store(int32_t *p, vi x)
{
    hi_store(p, PART_A(x));
    if (VECS == 2)
        hi_store(p + H_LANES, PART_B(x));
}
