/* What the sets of 512 bits have in common, for rank.h, which takes all of it back. */
#define V __m512
#define LANES 16
#define ROWS 6
#define WIDE 4
#define DEPTH 4
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define MARK(v, low, number)                                                                             \
    _mm512_castsi512_ps(_mm512_or_si512(                                                                 \
        _mm512_andnot_si512(_mm512_set1_epi32((int)(low)), _mm512_castps_si512(v)),                      \
        _mm512_set1_epi32((int)(number))))
#define MIN(a, b) _mm512_min_ps(a, b)
#define MAX(a, b) _mm512_max_ps(a, b)
#define ZERO() _mm512_setzero_ps()
#define ADD(a, b) _mm512_add_ps(a, b)
#define SUB(a, b) _mm512_sub_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define TOTAL(v) _mm512_reduce_add_ps(v)
#define LEAST(v) _mm512_reduce_min_ps(v)
#define FIRST_EQUAL(v, x) __builtin_ctz(_mm512_cmp_ps_mask(v, _mm512_set1_ps(x), _CMP_EQ_OQ))
