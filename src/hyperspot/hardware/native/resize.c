/* Antialiased bilinear resizing of 8-bit RGB images, bit-identical to Pillow.
 *
 * First along the rows, then along the columns, with weights of 22 bits and rounding to 8 bits after each. A weight is
 * taken apart into high and low halves of 11 bits, which fit the CPU's products of 16-bit pairs; no bit is lost.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

/* How one axis is scaled: where each output begins to read, and its weights, `taps` of them, the last ones zero. */
struct axis {
    int64_t from, to, taps;
    const int64_t *starts;
    const int32_t *weights;
};

#ifdef X86_KERNELS
#define TARGET __attribute__((target("avx2")))
enum { BITS = 22, HALF = 11, ROWS = 4, GROUP = 4, PADDING = 64 };

static int32_t pair(int32_t first, int32_t second)
{
    return (int32_t)((uint32_t)(first & 0xffff) | (uint32_t)second << 16);
}

static int32_t high(int32_t weight) { return weight >> HALF; }
static int32_t low(int32_t weight) { return weight & ((1 << HALF) - 1); }

TARGET static __m128i rounded(__m128i high, __m128i low)
{
    __m128i sum = _mm_add_epi32(_mm_add_epi32(_mm_slli_epi32(high, HALF), low), _mm_set1_epi32(1 << (BITS - 1)));
    return _mm_srli_epi32(sum, BITS);
}

/* Weights of four pixels side by side, as each of their colors meets them: high halves, then low halves. */
TARGET static void spread_weights(const struct axis *axis, __m256i *spread)
{
    for (int64_t group = 0; group < axis->to * axis->taps / GROUP; ++group) {
        const int32_t *w = axis->weights + group * GROUP;
        spread[2 * group] = _mm256_set_m128i(
            _mm_set1_epi32(pair(high(w[2]), high(w[3]))), _mm_set1_epi32(pair(high(w[0]), high(w[1]))));
        spread[2 * group + 1] = _mm256_set_m128i(
            _mm_set1_epi32(pair(low(w[2]), low(w[3]))), _mm_set1_epi32(pair(low(w[0]), low(w[1]))));
    }
}

/* Four rows at a time share the weights that were read. Reads as far beyond a row's end as the weights reach and four
 * bytes more, and writes one byte beyond that of the result. */
TARGET static void along_rows(
    const uint8_t *const rows[ROWS], uint8_t *const out[ROWS], const struct axis *axis, const __m256i *spread)
{
    const __m256i colors = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const __m128i bytes = _mm_setr_epi8(0, 4, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    int64_t groups = axis->taps / GROUP;
    for (int64_t x = 0; x < axis->to; ++x) {
        int64_t start = 3 * axis->starts[x];
        __m256i highs[ROWS], lows[ROWS];
        for (int r = 0; r < ROWS; ++r)
            highs[r] = lows[r] = _mm256_setzero_si256();
        for (int64_t group = 0; group < groups; ++group, spread += 2)
            for (int r = 0; r < ROWS; ++r) {
                const void *pixels = rows[r] + start + 3 * GROUP * group;
                __m256i four = _mm256_broadcastsi128_si256(_mm_loadu_si128(pixels));
                four = _mm256_shuffle_epi8(four, colors);
                highs[r] = _mm256_add_epi32(highs[r], _mm256_madd_epi16(four, spread[0]));
                lows[r] = _mm256_add_epi32(lows[r], _mm256_madd_epi16(four, spread[1]));
            }
        for (int r = 0; r < ROWS; ++r) {
            __m128i sum = rounded(
                _mm_add_epi32(_mm256_castsi256_si128(highs[r]), _mm256_extracti128_si256(highs[r], 1)),
                _mm_add_epi32(_mm256_castsi256_si128(lows[r]), _mm256_extracti128_si256(lows[r], 1)));
            int32_t color = _mm_cvtsi128_si32(_mm_shuffle_epi8(sum, bytes));
            memcpy(out[r] + 3 * x, &color, 4);
        }
    }
}

/* One row of the result out of `count` rows of `stride` bytes each, of which the last 16 may be padding. */
TARGET static void along_columns(
    const uint8_t *rows, int64_t stride, const int32_t *weights, int64_t count, uint8_t *out, int64_t length)
{
    for (int64_t column = 0; column < length; column += 16) {
        __m256i sums[4];
        for (int part = 0; part < 4; ++part)
            sums[part] = _mm256_setzero_si256();
        for (int64_t row = 0; row < count; row += 2) {
            const uint8_t *above = rows + row * stride + column;
            int32_t second = row + 1 < count ? weights[row + 1] : 0;
            const uint8_t *below = row + 1 < count ? above + stride : above;
            __m256i a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)above));
            __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)below));
            __m256i near = _mm256_unpacklo_epi16(a, b), far = _mm256_unpackhi_epi16(a, b);
            __m256i upper = _mm256_set1_epi32(pair(high(weights[row]), high(second)));
            __m256i lower = _mm256_set1_epi32(pair(low(weights[row]), low(second)));
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(near, upper));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(near, lower));
            sums[2] = _mm256_add_epi32(sums[2], _mm256_madd_epi16(far, upper));
            sums[3] = _mm256_add_epi32(sums[3], _mm256_madd_epi16(far, lower));
        }
        __m256i half = _mm256_set1_epi32(1 << (BITS - 1));
        for (int part = 0; part < 4; part += 2) {
            __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(sums[part], HALF), sums[part + 1]);
            sums[part] = _mm256_srli_epi32(_mm256_add_epi32(sum, half), BITS);
        }
        __m256i words = _mm256_packus_epi32(sums[0], sums[2]);
        __m128i sixteen = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        if (column + 16 <= length) {
            _mm_storeu_si128((void *)(out + column), sixteen);
        } else {
            uint8_t last[16];
            _mm_storeu_si128((void *)last, sixteen);
            memcpy(out + column, last, (size_t)(length - column));
        }
    }
}

/* Resizes an RGB image whose rows are longer than the filter. Returns 0, or 1 if memory is short. */
EXPORT int hs_resize(const uint8_t *image, const struct axis *columns, const struct axis *rows, uint8_t *out)
{
    int64_t wide = 3 * columns->from, narrow = 3 * columns->to;
    int64_t stride = narrow + PADDING, groups = columns->to * columns->taps / GROUP;
    uint8_t *between = malloc((size_t)((rows->from + ROWS) * stride));
    uint8_t *last = calloc(1, (size_t)(wide + 3 * columns->taps + PADDING));
    __m256i *spread = _mm_malloc((size_t)(2 * groups) * sizeof *spread, 32);
    int failed = !between || !last || !spread;
    if (!failed) {
        spread_weights(columns, spread);
        /* Reads beyond the last row must stay inside our memory. */
        memcpy(last, image + (rows->from - 1) * wide, (size_t)wide);
        for (int64_t row = 0; row < rows->from; row += ROWS) {
            const uint8_t *in[ROWS];
            uint8_t *made[ROWS];
            for (int64_t r = 0; r < ROWS; ++r) {
                in[r] = row + r < rows->from - 1 ? image + (row + r) * wide : last;
                made[r] = between + (row + r) * stride;
            }
            along_rows(in, made, columns, spread);
        }
        for (int64_t row = 0; row < rows->to; ++row)
            along_columns(
                between + rows->starts[row] * stride, stride, rows->weights + row * rows->taps,
                rows->taps < rows->from - rows->starts[row] ? rows->taps : rows->from - rows->starts[row],
                out + row * narrow, narrow);
    }
    _mm_free(spread);
    free(last);
    free(between);
    return failed;
}

#endif

/* Whether this CPU has AVX2; hs_resize exists only where it can. */
EXPORT int hs_resizes(void)
{
    return cpu_level() >= AVX2;
}
