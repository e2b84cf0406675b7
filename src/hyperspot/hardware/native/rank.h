/* Ranks all memory vectors for a few queries at a time and keeps, per lane, the DEPTH nearest. kernels.c includes it once
 * per instruction set and defines
 *
 *   NAME(x)        the name of a function for this set         TARGET    its function attribute
 *   V, LANES       a vector of floats and its length           ROWS      queries in registers at a time
 *   STEP(a,w,q)    a + w * q for one step of packed weights    DEPTH     candidates kept per lane, at least 3
 *   WIDE           vectors of memory in registers at a time
 *
 * A tile is WIDE * LANES memory vectors. Packed weights: tile by tile, step by step, WIDE vectors of LANES columns.
 */

/* Lanes see every LANES-th memory vector. Whatever is among the DEPTH smallest of all is among the DEPTH smallest of
 * its lane, so that the search keeps few per lane and never branches on the data. The number of the vector of columns
 * is put into the low bits of the value: one register holds both. */
TARGET static void NAME(rank)(const char *restrict queries, int64_t count, int64_t steps, const char *restrict packed,
                              const float *restrict squares, int64_t first_vector,
                              int64_t tiles, uint32_t low, float *restrict best)
{
    const int64_t step_bytes = 4, row_bytes = steps * step_bytes, tile_bytes = steps * WIDE * (int64_t)sizeof(V);
    for (int64_t row = 0; row < count; row += ROWS) {
        const char *q = queries + row * row_bytes;
        float *kept = best + row * DEPTH * LANES;
        for (int64_t tile = 0; tile < tiles; tile++) {
            const char *w = packed + tile * tile_bytes;
            const float *own = squares + tile * WIDE * LANES;
            V sum[ROWS][WIDE];
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
                for (int c = 0; c < WIDE; c++)
                    sum[r][c] = LOAD(own + c * LANES);
            for (int64_t s = 0; s < steps; s++) {
                V column[WIDE];
#pragma GCC unroll 8
                for (int c = 0; c < WIDE; c++)
                    column[c] = LOAD((const float *)(w + (s * WIDE + c) * (int64_t)sizeof(V)));
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; r++) {
                    V value = SPREAD(q + r * row_bytes + s * step_bytes);
#pragma GCC unroll 8
                    for (int c = 0; c < WIDE; c++)
                        sum[r][c] = STEP(sum[r][c], column[c], value);
                }
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                float *lane = kept + r * DEPTH * LANES;
                V held[DEPTH];
#pragma GCC unroll 8
                for (int place = 0; place < DEPTH; place++)
                    held[place] = LOAD(lane + place * LANES);
#pragma GCC unroll 8
                for (int c = 0; c < WIDE; c++) {
                    V value = MARK(sum[r][c], low, (uint32_t)(first_vector + tile * WIDE + c));
#pragma GCC unroll 8
                    for (int place = 0; place < DEPTH; place++) {
                        V farther = MAX(held[place], value);
                        held[place] = MIN(held[place], value);
                        value = farther;
                    }
                }
#pragma GCC unroll 8
                for (int place = 0; place < DEPTH; place++)
                    STORE(lane + place * LANES, held[place]);
            }
        }
    }
}

/* Takes the smallest value out of what the lanes keep: returns it and sets the lane that it was in. Where nothing is
 * left, or what is left is no number (of a query or a bank that is none), it returns FLT_MAX and sets nothing. */
TARGET static float NAME(take)(float *restrict kept, int64_t *lane)
{
    V nearest = LOAD(kept);
    float smallest = LEAST(nearest);
    if (!(smallest < FLT_MAX))
        return FLT_MAX;
    int64_t place = FIRST_EQUAL(nearest, smallest);
    for (int next = 1; next < DEPTH; next++)
        kept[(next - 1) * LANES + place] = kept[next * LANES + place];
    kept[(DEPTH - 1) * LANES + place] = FLT_MAX;
    *lane = place;
    return smallest;
}

/* Adds the bilinear interpolation of four vectors of a coarser level to `query`; `down` and `across` are the weights of
 * the lower and the right ones. */
TARGET static void NAME(add_between)(float *restrict query, const float *restrict upper_left,
                                     const float *restrict upper_right, const float *restrict lower_left,
                                     const float *restrict lower_right, float down, float across, int64_t channels)
{
    float a = (1 - down) * (1 - across), b = (1 - down) * across, c = down * (1 - across), d = down * across;
    for (int64_t i = 0; i < channels; i++)
        query[i] += a * upper_left[i] + b * upper_right[i] + c * lower_left[i] + d * lower_right[i];
}

/* Writes `tokens` plus an affine function of the place: base + row * per_row + column * per_column. */
TARGET static void NAME(start)(float *restrict query, const float *restrict tokens, const float *restrict affine,
                               float row, float column, int64_t channels)
{
    const float *per_row = affine + channels, *per_column = affine + 2 * channels;
    for (int64_t i = 0; i < channels; i++)
        query[i] = tokens[i] + affine[i] + row * per_row[i] + column * per_column[i];
}

/* The squared distance from the difference: exact even if a query nearly equals a memory vector. */
TARGET static float NAME(distance)(const float *restrict a, const float *restrict b, int64_t channels)
{
    V sum = ZERO(), other = ZERO();
    int64_t i = 0;
    for (; i + 2 * LANES <= channels; i += 2 * LANES) {
        V x = SUB(LOAD(a + i), LOAD(b + i)), y = SUB(LOAD(a + i + LANES), LOAD(b + i + LANES));
        sum = FMA(x, x, sum);
        other = FMA(y, y, other);
    }
    float total = TOTAL(ADD(sum, other));
    for (; i < channels; i++)
        total += (a[i] - b[i]) * (a[i] - b[i]);
    return total;
}

#undef NAME
#undef TARGET
#undef V
#undef LANES
#undef ROWS
#undef WIDE
#undef DEPTH
#undef LOAD
#undef STORE
#undef SPREAD
#undef STEP
#undef MARK
#undef MIN
#undef MAX
#undef ZERO
#undef ADD
#undef SUB
#undef FMA
#undef TOTAL
#undef LEAST
#undef FIRST_EQUAL
