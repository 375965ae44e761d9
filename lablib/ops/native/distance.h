// What the distance kernels share: vectors, sums over lanes, packed blocks of rows, sub-batches.
//
// Layout: everything runs along the inputs. Rows of x and of the weight are copied into panels whose rows are padded
// with zeros to whole vectors and whose row count is padded to fours; a padded input adds |0 - 0|.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>

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

#define UNROLL _Pragma("GCC unroll 16")
#define INLINE inline __attribute__((always_inline))

template <class F> struct Bits;
template <> struct Bits<float> {
    typedef int32_t Int;
    static constexpr Int SIZE = 0x7fffffff, INF = 0x7f800000;
    static constexpr double SUM_LEAST = -80, POWER_LEAST = -120, SUM_MOST = 108, SLOPE_LEAST = -60;
    static constexpr double NEAR_LEAST = -36;  // base-2 logarithms
};
template <> struct Bits<double> {
    typedef int64_t Int;
    static constexpr Int SIZE = 0x7fffffffffffffff, INF = 0x7ff0000000000000;
    static constexpr double SUM_LEAST = -800, POWER_LEAST = -1000, SUM_MOST = 1000, SLOPE_LEAST = -480;
    static constexpr double NEAR_LEAST = -100;
};

template <class F> struct Kind {
    typedef typename Bits<F>::Int Int;
    typedef F Vec __attribute__((vector_size(VECTOR_BYTES)));
    typedef Int Key __attribute__((vector_size(VECTOR_BYTES)));
    static constexpr int LANES = VECTOR_BYTES / sizeof(F);
};

// A tile: this many rows by this many neurons, so that all sums stay in registers.
constexpr int TILE_X = VECTOR_BYTES == 64 ? 4 : 2, TILE_W = 4, TILE = TILE_X * TILE_W;
constexpr int BLOCK = 64;  // neurons of one panel

template <class F> INLINE typename Kind<F>::Vec load(const F* from) {
    typename Kind<F>::Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class F> INLINE void store(F* to, typename Kind<F>::Vec v) { std::memcpy(to, &v, sizeof v); }

template <class F> INLINE typename Kind<F>::Vec all(F value) { return value - typename Kind<F>::Vec{}; }

template <class Vec> INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }

template <class F> INLINE typename Kind<F>::Vec size_of(typename Kind<F>::Vec v) {
    return (typename Kind<F>::Vec)((typename Kind<F>::Key)v & Bits<F>::SIZE);
}

// max(a, |b|) for a >= 0
template <class F> INLINE typename Kind<F>::Vec max_size(typename Kind<F>::Vec a, typename Kind<F>::Vec b) {
#if defined(__AVX512DQ__)
    if constexpr (sizeof(F) == 4)
        return (typename Kind<F>::Vec)_mm512_range_ps((__m512)a, (__m512)b, 0x0b);  // the larger size, sign cleared
    else
        return (typename Kind<F>::Vec)_mm512_range_pd((__m512d)a, (__m512d)b, 0x0b);
#else
    return larger(a, size_of<F>(b));
#endif
}

// Lanes that are set, as the bits of a number.
template <class F> INLINE uint32_t lanes(typename Kind<F>::Key mask) {
#if defined(__AVX512F__)
    if constexpr (sizeof(F) == 4) return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
    else return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask);
#elif defined(__AVX2__)
    if constexpr (sizeof(F) == 4) return _mm256_movemask_ps((__m256)mask);
    else return _mm256_movemask_pd((__m256d)mask);
#else
    uint32_t bits = 0;
    UNROLL for (int l = 0; l < Kind<F>::LANES; l++) bits |= uint32_t(mask[l] & 1) << l;
    return bits;
#endif
}

struct Sum { template <class V> static INLINE V join(V a, V b) { return a + b; } };
struct Max { template <class V> static INLINE V join(V a, V b) { return larger(a, b); } };

// out[n] = all lanes of acc[n] joined, n < TILE.
template <class F, class Join> INLINE void join_lanes(typename Kind<F>::Vec* acc, F* out) {
    typedef Kind<F> K;
    typename K::Key even, odd;
    UNROLL for (int l = 0; l < K::LANES; l++) even[l] = 2 * l, odd[l] = 2 * l + 1;
    int count = TILE;
    UNROLL for (int width = K::LANES; width > 1; width /= 2) {
        count /= 2;
        UNROLL for (int n = 0; n < count; n++)
            acc[n] = Join::join(__builtin_shuffle(acc[2 * n], acc[2 * n + 1], even),
                                __builtin_shuffle(acc[2 * n], acc[2 * n + 1], odd));
    }
    UNROLL for (int n = 0; n < TILE / K::LANES; n++) store(out + n * K::LANES, acc[n]);
}

// log2 of positive normal numbers: relative error about 1e-7 also near 1 (polynomial of the Cephes library).
INLINE Kind<float>::Vec log2_of(Kind<float>::Vec x) {
    typedef Kind<float>::Key Key;
    Key bits = (Key)x, e = (bits - 0x3f3504f3) >> 23;
    Kind<float>::Vec f = (Kind<float>::Vec)(bits - (e << 23)) - 1.0f, z = f * f;
    Kind<float>::Vec q = 7.0376836292e-2f * f - 1.1514610310e-1f;
    q = q * f + 1.1676998740e-1f;
    q = q * f - 1.2420140846e-1f;
    q = q * f + 1.4249322787e-1f;
    q = q * f - 1.6668057665e-1f;
    q = q * f + 2.0000714765e-1f;
    q = q * f - 2.4999993993e-1f;
    q = q * f + 3.3333331174e-1f;
    q = f + (q * f * z - 0.5f * z);
    return q * 1.44269504f + __builtin_convertvector(e, Kind<float>::Vec);
}

// 2^t for -126 <= t <= 127.
INLINE Kind<float>::Vec exp2_of(Kind<float>::Vec t) {
    typedef Kind<float>::Key Key;
    const Kind<float>::Vec whole = t + 12582912.0f;  // 1.5 * 2^23: the last bits are the nearest integer
    Kind<float>::Vec f = t - (whole - 12582912.0f);
    Kind<float>::Vec q = 1.535336188319500e-4f * f + 1.339887440266574e-3f;
    q = q * f + 9.618437357674640e-3f;
    q = q * f + 5.550332471162809e-2f;
    q = q * f + 2.402264791363012e-1f;
    q = q * f + 6.931472028550421e-1f;
    return (Kind<float>::Vec)((Key)(q * f + 1.0f) + ((Key)whole << 23));
}

INLINE Kind<double>::Vec log2_of(Kind<double>::Vec x) {
    for (int l = 0; l < Kind<double>::LANES; l++) x[l] = std::log2(x[l]);
    return x;
}

INLINE Kind<double>::Vec exp2_of(Kind<double>::Vec t) {
    for (int l = 0; l < Kind<double>::LANES; l++) t[l] = std::exp2(t[l]);
    return t;
}

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Memory of one thread, aligned to vectors; null where there is none (an exception would end the process).
template <class F> struct Buffer {
    F* at;
    explicit Buffer(int64_t count)
        : at((F*)::operator new[](std::max<int64_t>(count, 1) * sizeof(F), std::align_val_t(64), std::nothrow)) {}
    ~Buffer() { ::operator delete[](at, std::align_val_t(64)); }
    Buffer(const Buffer&) = delete;
};

// Where a call's sub-batches lie. A null mask keeps all; then sub-batches are only a way to cut the work.
struct Masks {
    const int64_t *inputs, *outputs;
    int64_t rows, subs;  // rows of a sub-batch, number of sub-batches
    int64_t batch, kept, chosen, all_inputs, all_outputs;

    Masks(const int64_t* in, const int64_t* out, int64_t rows_, int64_t batch_, int64_t kept_, int64_t chosen_,
          int64_t all_inputs_, int64_t all_outputs_)
        : inputs(in), outputs(out), rows(in || out ? std::clamp<int64_t>(rows_, 1, std::max<int64_t>(1, batch_)) : 2 * BLOCK),
          subs((batch_ + rows - 1) / rows),
          batch(batch_), kept(kept_), chosen(chosen_), all_inputs(all_inputs_), all_outputs(all_outputs_) {}

    static bool rising(const int64_t* mask, int64_t count, int64_t width, int64_t limit) {
        for (int64_t s = 0; mask && s < count; s++)
            for (int64_t j = 0; j < width; j++) {
                int64_t here = mask[s * width + j], before = j ? mask[s * width + j - 1] : -1;
                if (here <= before || here >= limit) return false;
            }
        return true;
    }
    bool valid() const { return rising(inputs, subs, kept, all_inputs) && rising(outputs, subs, chosen, all_outputs); }
    int64_t first(int64_t sub) const { return sub * rows; }
    int64_t count(int64_t sub) const { return std::min(rows, batch - first(sub)); }
    const int64_t* ins(int64_t sub) const { return inputs ? inputs + sub * kept : nullptr; }
    int64_t neuron(int64_t sub, int64_t column) const { return outputs ? outputs[sub * chosen + column] : column; }
    // The first column of a sub-batch whose neuron is not below ``neuron``.
    int64_t column_from(int64_t sub, int64_t from) const {
        if (!outputs) return std::min(from, chosen);
        const int64_t* begin = outputs + sub * chosen;
        return std::lower_bound(begin, begin + chosen, from) - begin;
    }
};

template <class F> void pack_row(F* to, const F* from, const int64_t* ins, int64_t count, int64_t width) {
    if (ins)
        for (int64_t j = 0; j < count; j++) to[j] = from[ins[j]];
    else
        std::memcpy(to, from, count * sizeof(F));
    std::fill(to + count, to + width, F(0));
}

// Rows first .. first + count of x, behind them zero rows up to a multiple of 4.
template <class F>
void pack_x(F* to, const F* x, const Masks& m, int64_t first, int64_t count, int64_t width) {
    for (int64_t b = 0; b < count; b++) pack_row(to + b * width, x + (first + b) * m.kept, nullptr, m.kept, width);
    std::fill(to + count * width, to + round_up(count, 4) * width, F(0));
}

// The kept inputs of the neurons of columns first .. first + count of a sub-batch.
template <class F>
void pack_weight(F* to, const F* weight, const Masks& m, int64_t sub, int64_t first, int64_t count, int64_t width) {
    for (int64_t c = 0; c < count; c++)
        pack_row(to + c * width, weight + m.neuron(sub, first + c) * m.all_inputs, m.ins(sub), m.kept, width);
    std::fill(to + count * width, to + round_up(count, 4) * width, F(0));
}

// The largest size among ``count`` numbers, by its bits: NaN and infinity are larger than all numbers.
template <class F> typename Bits<F>::Int largest_bits(const F* from, int64_t count) {
    typename Bits<F>::Int most = 0;
    for (int64_t n = 0; n < count; n++) {
        typename Bits<F>::Int bits;
        std::memcpy(&bits, from + n, sizeof bits);
        most = std::max(most, typename Bits<F>::Int(bits & Bits<F>::SIZE));
    }
    return most;
}

// m[n] = max_i |x - w| for the pairs of a tile; rows are ``width`` apart, n = row * TILE_W + neuron.
template <class F> INLINE void tile_max(const F* x, const F* w, int64_t width, F* m) {
    typedef Kind<F> K;
    typename K::Vec acc[TILE], b[TILE_W];
    UNROLL for (int n = 0; n < TILE; n++) acc[n] = typename K::Vec{};
    for (int64_t i = 0; i < width; i += K::LANES) {
        UNROLL for (int c = 0; c < TILE_W; c++) b[c] = load(w + c * width + i);
        UNROLL for (int r = 0; r < TILE_X; r++) {
            typename K::Vec a = load(x + r * width + i);
            UNROLL for (int c = 0; c < TILE_W; c++)
                acc[r * TILE_W + c] = max_size<F>(acc[r * TILE_W + c], a - b[c]);
        }
    }
    join_lanes<F, Max>(acc, m);
}

}  // namespace
