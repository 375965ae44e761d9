// The K largest of |x + b| per row and output, in descending order, and their weighted sum.
//
// A tile of rows x outputs has as many (row, output) pairs as a vector has lanes. Per tile:
//   1. The maximum of each of 16 groups of inputs, per pair: three instructions per vector of inputs. The
//      K-th largest of those 16 is a lower bound t of the K-th largest of all inputs.
//   2. The inputs above t, about 15 of hundreds for K = 10, are compressed into a short list per pair.
//   3. The lists are sorted by insertion, all pairs of the tile side by side, one per lane.
// Nothing depends on how the tiles are shared among threads.
//
// Sizes are compared as integers: nonnegative floats order like their bits, and a NaN is larger than all
// numbers, so it arrives in the result whatever the compiler assumes about floats.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <type_traits>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

namespace {

constexpr int GROUPS = 16;     // at least the largest K
constexpr int ROW_BLOCK = 32;  // one task: these rows by
constexpr int OUT_BLOCK = 64;  // these outputs

template <class F>
struct Kind {
    using Int = std::conditional_t<sizeof(F) == 4, int32_t, int64_t>;
    typedef F Vec __attribute__((vector_size(VECTOR_BYTES)));
    typedef Int Key __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr int LANES = VECTOR_BYTES / sizeof(F);
    static constexpr int ACCS = GROUPS / LANES;  // vectors of group maxima per pair
    static constexpr int OUTS = LANES >= 16 ? 4 : LANES >= 4 ? 2 : 1;
    static constexpr int ROWS = LANES / OUTS;  // ROWS * OUTS = LANES pairs
    static constexpr Int SIZE_BITS = ~(Int(1) << (8 * sizeof(F) - 1));
};

template <class Key>
inline Key larger(Key a, Key b) { return a > b ? a : b; }

template <class Key>
inline Key smaller(Key a, Key b) { return a > b ? b : a; }

template <class Vec, class F>
inline Vec load(const F* from) {
    Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class Vec, class F>
inline void store(F* to, Vec v) { std::memcpy(to, &v, sizeof v); }

// What is sorted, as integer bits of a number >= 0.
enum Form { ABS, LOW, HIGH };  // |x + b|; its smallest and its largest value for x in a box

template <class F, Form FORM>
inline typename Kind<F>::Key key_of(const F* x, const F* u, const F* b) {
    using Vec = typename Kind<F>::Vec;
    using Key = typename Kind<F>::Key;
    const Vec center = load<Vec>(b), first = load<Vec>(x) + center;
    const Key bits = (Key)first;
    if (FORM == ABS) return bits & Kind<F>::SIZE_BITS;
    const Vec second = load<Vec>(u) + center;
    if (FORM == HIGH) return larger<Key>(bits & Kind<F>::SIZE_BITS, (Key)second & Kind<F>::SIZE_BITS);
    return larger<Key>(larger<Key>(bits, (Key)(-second)), Key{});
}

template <class F, Form FORM>
inline typename Kind<F>::Int key_of_one(const F* x, const F* u, const F* b) {
    using Int = typename Kind<F>::Int;
    const auto bits = [](F value) {
        Int made;
        std::memcpy(&made, &value, sizeof made);
        return made;
    };
    const Int first = bits(*x + *b);
    if (FORM == ABS) return first & Kind<F>::SIZE_BITS;
    const F second = *u + *b;
    if (FORM == HIGH) return std::max<Int>(first & Kind<F>::SIZE_BITS, bits(second) & Kind<F>::SIZE_BITS);
    return std::max<Int>({first, bits(-second), 0});
}

// The last inputs, fewer than LANES: the missing lanes are smaller than everything.
template <class F, Form FORM>
inline typename Kind<F>::Key tail_key(const F* x, const F* u, const F* b, int64_t count) {
    typename Kind<F>::Key key = typename Kind<F>::Key{} - 1;
    for (int64_t l = 0; l < count; l++) key[l] = key_of_one<F, FORM>(x + l, u + l, b + l);
    return key;
}

// Swap the off-diagonal blocks of size S, then of S/2, ...: v[i][j] and v[j][i] change places.
template <class Key, int LANES, int S>
inline void transpose(Key (&v)[LANES]) {
    Key upper, lower;
    for (int l = 0; l < LANES; l++) {
        upper[l] = l & S ? LANES + l - S : l;
        lower[l] = l & S ? LANES + l : l + S;
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        if (!(i & S)) {
            const Key a = v[i], b = v[i + S];
            v[i] = __builtin_shuffle(a, b, upper);
            v[i + S] = __builtin_shuffle(a, b, lower);
        }
    if constexpr (S > 1) transpose<Key, LANES, S / 2>(v);
}

// Insert a candidate per lane into lists of TOP in descending order, behind those that equal it.
template <class Key, int TOP>
inline void insert(Key (&list)[TOP], Key candidate) {
#pragma GCC unroll 16
    for (int j = TOP - 1; j > 0; j--) list[j] = larger(list[j], smaller(list[j - 1], candidate));
    list[0] = larger(list[0], candidate);
}

template <class Key, int TOP>
inline void insert(Key (&list)[TOP], Key (&place)[TOP], Key candidate, Key index) {
#pragma GCC unroll 16
    for (int j = TOP - 1; j >= 0; j--) {
        const auto ahead = candidate > list[j];
        list[j] = ahead ? candidate : list[j], place[j] = ahead ? index : place[j];
        if (j == 0) break;
        const auto moved = candidate > list[j - 1];
        list[j] = moved ? list[j - 1] : list[j], place[j] = moved ? place[j - 1] : place[j];
    }
}

// Step 1, second half: the K-th largest of the group maxima of each pair; -1 where there are fewer inputs.
template <class F, int TOP>
typename Kind<F>::Key threshold(const typename Kind<F>::Key* maxima, int top) {
    using Key = typename Kind<F>::Key;
    constexpr int LANES = Kind<F>::LANES, ACCS = Kind<F>::ACCS;
    Key list[TOP];
    for (Key& entry : list) entry = Key{} - 1;
    for (int a = 0; a < ACCS; a++) {
        Key groups[LANES];
        for (int p = 0; p < LANES; p++) groups[p] = maxima[p * ACCS + a];
        transpose<Key, LANES, LANES / 2>(groups);
        for (const Key& group : groups) insert<Key, TOP>(list, group);
    }
    return list[top - 1];
}

// One bit per lane.
template <class Key>
inline uint64_t above(Key key, Key bar) {
#if defined(__AVX512F__)
    if constexpr (sizeof(key[0]) == 8) return _mm512_cmpgt_epi64_mask((__m512i)key, (__m512i)bar);
    else return _mm512_cmpgt_epi32_mask((__m512i)key, (__m512i)bar);
#elif defined(__AVX2__)
    if constexpr (sizeof(key[0]) == 8) return _mm256_movemask_pd((__m256d)(key > bar));
    else return _mm256_movemask_ps((__m256)(key > bar));
#else
    uint64_t bits = 0;
    const auto larger = key > bar;
    for (size_t l = 0; l < sizeof(Key) / sizeof(key[0]); l++) bits |= uint64_t(larger[l] & 1) << l;
    return bits;
#endif
}

// Step 2: list the inputs with a key above ``bar`` in ``places``; returns how many.
template <class F, Form FORM>
inline int64_t collect(const F* x, const F* u, const F* b, int64_t inputs, typename Kind<F>::Int bar,
                       typename Kind<F>::Int* places) {
    using Key = typename Kind<F>::Key;
    using Int = typename Kind<F>::Int;
    constexpr int LANES = Kind<F>::LANES;
    const Key bars = Key{} + bar;
    int64_t n = 0;
    for (int64_t i = 0; i < inputs; i += 64) {
        uint64_t word = 0;
        if (i + 64 <= inputs) {
#pragma GCC unroll 64
            for (int l = 0; l < 64; l += LANES)
                word |= above(key_of<F, FORM>(x + i + l, u + i + l, b + i + l), bars) << l;
        } else {
            int64_t l = 0;
            for (; i + l + LANES <= inputs; l += LANES)
                word |= above(key_of<F, FORM>(x + i + l, u + i + l, b + i + l), bars) << l;
            for (; i + l < inputs; l++)
                word |= uint64_t(key_of_one<F, FORM>(x + i + l, u + i + l, b + i + l) > bar) << l;
        }
        const int found = __builtin_popcountll(word);
        // As a rule one or two: four are written without asking, those beyond the count are overwritten.
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            places[n + k] = (Int)(i + __builtin_ctzll(word | 1ull << 63));
            word &= word - 1;
        }
        for (int k = 4; k < found; k++) {
            places[n + k] = (Int)(i + __builtin_ctzll(word));
            word &= word - 1;
        }
        n += found;
    }
    return n;
}

// Scratch memory of one thread.
template <class F>
struct Lists {
    using Int = typename Kind<F>::Int;
    int64_t stride;  // an odd number of vectors: the pairs' lists start in different cache sets
    std::vector<Int> values, places;
    int64_t count[Kind<F>::LANES];

    explicit Lists(int64_t inputs) {
        stride = ((inputs + 4) / Kind<F>::LANES + 1) | 1;
        stride *= Kind<F>::LANES;
        values.resize(stride * Kind<F>::LANES);
        places.resize(stride * Kind<F>::LANES);
    }
};

// Step 3: merge the lists into the K largest per lane, started from t: at least K inputs are >= t.
template <class F, int TOP, bool PLACES>
void merge(const Lists<F>& lists, typename Kind<F>::Key t, typename Kind<F>::Key* sorted,
           typename Kind<F>::Key* places) {
    using Key = typename Kind<F>::Key;
    constexpr int LANES = Kind<F>::LANES;
    Key list[TOP], place[TOP], lane;
    for (int l = 0; l < LANES; l++) lane[l] = l;
    for (int j = 0; j < TOP; j++) list[j] = t, place[j] = Key{} - 1;  // -1: some input equal to t
    int64_t longest = 0;
    for (int64_t count : lists.count) longest = count > longest ? count : longest;
    for (int64_t start = 0; start < longest; start += LANES) {
        Key values[LANES], indices[LANES];
        for (int p = 0; p < LANES; p++) {
            const Key within = lane + (typename Kind<F>::Int)start < (typename Kind<F>::Int)lists.count[p];
            values[p] = within ? load<Key>(lists.values.data() + p * lists.stride + start) : Key{} - 1;
            if (PLACES) indices[p] = load<Key>(lists.places.data() + p * lists.stride + start);
        }
        transpose<Key, LANES, LANES / 2>(values);
        if (PLACES) transpose<Key, LANES, LANES / 2>(indices);
        const int64_t count = longest - start < LANES ? longest - start : LANES;
        for (int64_t s = 0; s < count; s++)
            if (PLACES) insert<Key, TOP>(list, place, values[s], indices[s]);
            else insert<Key, TOP>(list, values[s]);
    }
    for (int j = 0; j < TOP; j++) {
        sorted[j] = list[j];
        if (PLACES) places[j] = place[j];
    }
}

template <class F>
struct Problem {
    const F *x, *u, *center, *weight;  // (B, I), (B, I) (x where there is no box), (O, I), (O, K)
    int64_t weight_stride;             // 0: one row of weights for all outputs
    int64_t rows, inputs, outs, top;
    F* y;             // (B, O)
    int32_t* places;  // (B, O, K) or null
};

// Give the places left open (-1) to the first inputs whose size equals t that are not listed: those > t are.
template <class F, Form FORM>
void fill_ties(const Problem<F>& q, int64_t row, int64_t out, typename Kind<F>::Int t, int32_t* places) {
    const F *x = q.x + row * q.inputs, *u = q.u + row * q.inputs, *b = q.center + out * q.inputs;
    int64_t j = 0;
    while (j < q.top && places[j] >= 0) j++;
    for (int64_t i = 0; i < q.inputs && j < q.top; i++)
        if (key_of_one<F, FORM>(x + i, u + i, b + i) == t) places[j++] = (int32_t)i;
}

template <class F, Form FORM, int TOP, bool PLACES>
void tile(const Problem<F>& q, int64_t row0, int64_t out0, Lists<F>& lists) {
    using K = Kind<F>;
    using Key = typename K::Key;
    using Int = typename K::Int;
    constexpr int LANES = K::LANES;
    const int64_t whole = q.inputs / LANES * LANES, rest = q.inputs - whole;
    const F *x[K::ROWS], *u[K::ROWS], *b[K::OUTS];  // beyond the edge: the last one again, not written
    for (int r = 0; r < K::ROWS; r++) {
        const int64_t row = row0 + r < q.rows ? row0 + r : q.rows - 1;
        x[r] = q.x + row * q.inputs;
        u[r] = q.u + row * q.inputs;
    }
    for (int o = 0; o < K::OUTS; o++)
        b[o] = q.center + (out0 + o < q.outs ? out0 + o : q.outs - 1) * q.inputs;

    Key maxima[LANES * K::ACCS];
    for (Key& m : maxima) m = Key{} - 1;
    auto widen = [&](int64_t i, int a, auto key) {
#pragma GCC unroll 16
        for (int r = 0; r < K::ROWS; r++)
#pragma GCC unroll 16
            for (int o = 0; o < K::OUTS; o++) {
                Key& m = maxima[(r * K::OUTS + o) * K::ACCS + a];
                m = larger<Key>(m, key(x[r] + i, u[r] + i, b[o] + i));
            }
    };
    const auto full = [](const F* x, const F* u, const F* b) { return key_of<F, FORM>(x, u, b); };
    int64_t i = 0;
    for (; i + GROUPS <= whole; i += GROUPS)
#pragma GCC unroll 16
        for (int a = 0; a < K::ACCS; a++) widen(i + a * LANES, a, full);
    for (int a = 0; i < whole; i += LANES, a++) widen(i, a, full);
    if (rest)
        widen(i, i % GROUPS / LANES,
              [rest](const F* x, const F* u, const F* b) { return tail_key<F, FORM>(x, u, b, rest); });
    const Key t = threshold<F, TOP>(maxima, (int)q.top);

    for (int p = 0; p < LANES; p++) {
        const F *xp = x[p / K::OUTS], *up = u[p / K::OUTS], *bp = b[p % K::OUTS];
        Int *values = lists.values.data() + p * lists.stride, *places = lists.places.data() + p * lists.stride;
        const int64_t n = collect<F, FORM>(xp, up, bp, q.inputs, t[p], places);
        for (int64_t s = 0; s < n; s++)
            values[s] = key_of_one<F, FORM>(xp + places[s], up + places[s], bp + places[s]);
        lists.count[p] = n;
    }
    Key sorted[TOP], places[TOP];
    merge<F, TOP, PLACES>(lists, t, sorted, places);

    // Products of two floats are exact in float64, so the sum does not depend on fused multiply-adds.
    double sum[LANES] = {};
    for (int64_t j = 0; j < q.top; j++) {
        const typename K::Vec size = (typename K::Vec)sorted[j];
        for (int p = 0; p < LANES; p++) {
            const int64_t out = out0 + p % K::OUTS < q.outs ? out0 + p % K::OUTS : q.outs - 1;
            sum[p] += (double)q.weight[out * q.weight_stride + j] * (double)size[p];
        }
    }
    for (int p = 0; p < LANES; p++) {
        const int64_t row = row0 + p / K::OUTS, out = out0 + p % K::OUTS;
        if (row >= q.rows || out >= q.outs) continue;
        q.y[row * q.outs + out] = (F)sum[p];
        if (!PLACES) continue;
        int32_t* to = q.places + (row * q.outs + out) * q.top;
        for (int64_t j = 0; j < q.top; j++) to[j] = (int32_t)places[j][p];
        if (to[q.top - 1] < 0) fill_ties<F, FORM>(q, row, out, t[p], to);
    }
}

// Returns whether there was memory enough.
template <class F, Form FORM, int TOP, bool PLACES>
bool search(const Problem<F>& q, int threads) {
    const int64_t row_blocks = (q.rows + ROW_BLOCK - 1) / ROW_BLOCK;
    const int64_t out_blocks = (q.outs + OUT_BLOCK - 1) / OUT_BLOCK;
    std::atomic<bool> enough(true);
#pragma omp parallel num_threads(threads)
    {
        std::optional<Lists<F>> lists;
        try {
            lists.emplace(q.inputs);
        } catch (const std::bad_alloc&) {  // out of here it would end the process
            enough = false;
        }
#pragma omp barrier
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < (enough ? row_blocks * out_blocks : 0); task++) {
            const int64_t row0 = task / out_blocks * ROW_BLOCK, out0 = task % out_blocks * OUT_BLOCK;
            for (int64_t row = row0; row < q.rows && row < row0 + ROW_BLOCK; row += Kind<F>::ROWS)
                for (int64_t out = out0; out < q.outs && out < out0 + OUT_BLOCK; out += Kind<F>::OUTS)
                    tile<F, FORM, TOP, PLACES>(q, row, out, *lists);
        }
    }
    return enough;
}

template <class F, Form FORM>
bool search_any(const Problem<F>& q, int threads) {
    if (q.top <= 10)
        return q.places ? search<F, FORM, 10, true>(q, threads) : search<F, FORM, 10, false>(q, threads);
    return q.places ? search<F, FORM, 16, true>(q, threads) : search<F, FORM, 16, false>(q, threads);
}

}  // namespace

#define EXPORTED(NAME, F)                                                                                        \
    extern "C" int NAME(int form, const F* x, const F* u, const F* center, const F* weight,                     \
                         int64_t weight_stride, int64_t rows, int64_t inputs, int64_t outs, int64_t top, F* y,   \
                         int32_t* places, int threads) {                                                         \
        const Problem<F> q{x, u, center, weight, weight_stride, rows, inputs, outs, top, y, places};             \
        if (form == ABS) return !search_any<F, ABS>(q, threads);                                                 \
        if (form == LOW) return !search_any<F, LOW>(q, threads);                                                 \
        if (form == HIGH) return !search_any<F, HIGH>(q, threads);                                               \
        return 0;                                                                                                \
    }

EXPORTED(sortnet_forward_f32, float)
EXPORTED(sortnet_forward_f64, double)
