// The l_p distance, forward: (sum_i |x_i - w_ki|^p)^(1/p), with the sub-batch masks.
//
// p = 2^k and 3 2^k: repeated squaring. Up to p = 64 a bound of all differences of a block scales them, so that one
// pass is enough; where a sum comes out too small to be trusted, and for larger p, the largest difference of each pair
// is found first and scales its sum. Ratios are held above 2^(-120/p): no power becomes subnormal (they are slow).
#include <atomic>

#include "power.h"

namespace {

constexpr int ONCE_POWER = 64, ONCE_SQUARES = 6;

template <class F> struct Forward {
    typedef Kind<F> K;
    typedef typename K::Vec Vec;

    const Power& power;
    F floor;  // of the ratio, or of its square
    F near;   // ratios below add nothing that shows

    explicit Forward(const Power& p)
        : power(p), floor(F(std::exp2((p.way == Power::SQUARES ? 2 : 1) * Bits<F>::POWER_LEAST / p.p))),
          near(F(std::exp2(Bits<F>::NEAR_LEAST / p.p))) {}

    // total += |u|^p
    template <int SQUARES> INLINE void add_powers(Vec* u, Vec* total) const {
        const Vec least = all(floor);
        if (SQUARES >= 0) {
            UNROLL for (int c = 0; c < TILE_W; c++) u[c] *= u[c];
            if (SQUARES > 2) UNROLL for (int c = 0; c < TILE_W; c++) u[c] = larger(u[c], least);
            if (power.three) UNROLL for (int c = 0; c < TILE_W; c++) u[c] *= u[c] * u[c];
            UNROLL for (int j = 1; j < SQUARES; j++) UNROLL for (int c = 0; c < TILE_W; c++) u[c] *= u[c];
            UNROLL for (int c = 0; c < TILE_W; c++) total[c] += SQUARES ? u[c] * u[c] : u[c];
        } else if (power.way == Power::ONE) {
            UNROLL for (int c = 0; c < TILE_W; c++) total[c] += size_of<F>(u[c]);
        } else if (power.way == Power::CUBE) {
            UNROLL for (int c = 0; c < TILE_W; c++) {
                const Vec size = larger(size_of<F>(u[c]), least);
                total[c] += size * size * size;
            }
        } else {
            UNROLL for (int c = 0; c < TILE_W; c++)
                total[c] += exp2_of(F(power.p) * log2_of(larger(size_of<F>(u[c]), least)));
        }
    }

    // s[n] = sum_i |(x - w) scale[n]|^p, or without the factor; NEAR: only where some ratio is not far below 1.
    template <bool SCALED, bool NEAR, int SQUARES>
    INLINE void tile_sum(const F* x, const F* w, int64_t width, const F* scale, F* s) const {
        Vec acc[TILE], b[TILE_W], u[TILE_W];
        UNROLL for (int n = 0; n < TILE; n++) acc[n] = Vec{};
        for (int64_t i = 0; i < width; i += K::LANES) {
            UNROLL for (int c = 0; c < TILE_W; c++) b[c] = load(w + c * width + i);
            UNROLL for (int r = 0; r < TILE_X; r++) {
                Vec a = load(x + r * width + i), most = {};
                UNROLL for (int c = 0; c < TILE_W; c++) {
                    u[c] = a - b[c];
                    if (SCALED) u[c] *= scale[r * TILE_W + c];
                    if (NEAR) most = max_size<F>(most, u[c]);
                }
                if (NEAR && !lanes<F>(most >= all(near))) continue;
                add_powers<SQUARES>(u, acc + r * TILE_W);
            }
        }
        join_lanes<F, Sum>(acc, s);
    }

    // y = (sum)^(1/p), many at once.
    void roots(F* s, int64_t count) const {
        if (power.way == Power::CUBE || (power.way == Power::SQUARES && power.k <= 5)) {
            if (power.way == Power::CUBE || power.three)
                for (int64_t n = 0; n < count; n++) s[n] = std::cbrt(s[n]);
            for (int j = 0; j < power.k; j++)
                for (int64_t n = 0; n < count; n++) s[n] = std::sqrt(s[n]);
        } else if (power.way != Power::ONE) {
            for (int64_t n = 0; n < count; n += K::LANES) store(s + n, exp2_of(log2_of(load(s + n)) / F(power.p)));
        }
    }

    // One pass with a common scale 1 / bound. Returns whether all sums can be trusted.
    template <int SQUARES> bool once(F* x, F* w, int64_t xs, int64_t ws, int64_t width, F bound, F* y) const {
        const F scale = power.way == Power::ONE ? F(1) : F(1) / bound;
        if (scale != 1) {
            for (int64_t n = 0; n < xs * width; n++) x[n] *= scale;
            for (int64_t n = 0; n < ws * width; n++) w[n] *= scale;
        }
        const int64_t tx = round_up(xs, TILE_X), tw = round_up(ws, TILE_W);
        alignas(64) F s[TILE];
        for (int64_t c = 0; c < tw; c += TILE_W)
            for (int64_t r = 0; r < tx; r += TILE_X) {
                tile_sum<false, false, SQUARES>(x + r * width, w + c * width, width, nullptr, s);
                for (int n = 0; n < TILE; n++) y[(r + n / TILE_W) * BLOCK + c + n % TILE_W] = s[n];
            }
        if (power.way == Power::ONE) return true;
        const F least = F(std::exp2(Bits<F>::SUM_LEAST));
        for (int64_t r = 0; r < xs; r++) {
            F low = y[r * BLOCK];
            for (int64_t c = 0; c < ws; c++) low = std::min(low, y[r * BLOCK + c]);
            if (low < least) return false;
        }
        for (int64_t r = 0; r < xs; r++) {
            F* row = y + r * BLOCK;
            roots(row, round_up(ws, K::LANES));
            for (int64_t c = 0; c < ws; c++) row[c] *= bound;
        }
        return true;
    }

    template <int SQUARES, bool NEAR> void twice(const F* x, const F* w, int64_t xs, int64_t ws, int64_t width, F* y) const {
        const int64_t tx = round_up(xs, TILE_X), tw = round_up(ws, TILE_W);
        alignas(64) F s[TILE], m[TILE], scale[TILE];
        const F normal = sizeof(F) == 4 ? F(1.2e-38) : F(2.3e-308);
        for (int64_t c = 0; c < tw; c += TILE_W)
            for (int64_t r = 0; r < tx; r += TILE_X) {
                tile_max<F>(x + r * width, w + c * width, width, m);
                for (int n = 0; n < TILE; n++) scale[n] = m[n] < normal ? F(0) : F(1) / m[n];
                tile_sum<true, NEAR, SQUARES>(x + r * width, w + c * width, width, scale, s);
                roots(s, TILE);
                for (int n = 0; n < TILE; n++)
                    y[(r + n / TILE_W) * BLOCK + c + n % TILE_W] = m[n] < normal ? m[n] : m[n] * s[n];
            }
    }

    template <int SQUARES> void run(F* x, F* w, const F* x_whole, const F* weight, const Masks& m, int64_t sub,
                                    int64_t first, int64_t ws, int64_t width, F bound, F* y) const {
        const int64_t xs = m.count(sub);
        if constexpr (SQUARES < ONCE_SQUARES)
            if (power.p <= ONCE_POWER && bound > 0) {
                if (once<SQUARES>(x, w, xs, ws, width, bound, y)) return;
                pack_x(x, x_whole, m, m.first(sub), xs, width);
                pack_weight(w, weight, m, sub, first, ws, width);
            }
        if constexpr (sizeof(F) == 4 && CAN_LOOK && (SQUARES < 0 || SQUARES > 6))  // no need to compile the others
            if (near_only(power, NEAR_FORWARD)) return twice<SQUARES, true>(x, w, xs, ws, width, y);
        if constexpr (!CAN_LOOK || SQUARES < 8) twice<SQUARES, false>(x, w, xs, ws, width, y);
    }
};

template <class F>
int forward(const F* x, const F* weight, F* y, const Masks& m, double p, int threads) {
    typedef typename Bits<F>::Int Int;
    if (!m.valid()) return BAD_MASK;
    const Power power(p, sizeof(F) == 4);
    const Forward<F> kernel(power);
    const int64_t width = round_up(m.kept, Kind<F>::LANES), blocks = (m.chosen + BLOCK - 1) / BLOCK;
    const int64_t most_rows = round_up(std::min(m.rows, m.batch), 4);
    std::atomic<bool> finite(true), enough(true);
#pragma omp parallel num_threads(threads)
    {
        Buffer<F> xs(most_rows * width), ws(BLOCK * width), ys(most_rows * BLOCK);
        if (!xs.at || !ws.at || !ys.at) enough = false;
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < (enough ? m.subs * blocks : 0); task++) {
            const int64_t sub = task / blocks, first = task % blocks * BLOCK;
            const int64_t rows = m.count(sub), count = std::min<int64_t>(BLOCK, m.chosen - first);
            pack_x(xs.at, x, m, m.first(sub), rows, width);
            pack_weight(ws.at, weight, m, sub, first, count, width);
            const Int a = largest_bits(xs.at, rows * width), b = largest_bits(ws.at, count * width);
            if (std::max(a, b) >= Bits<F>::INF) {
                finite.store(false, std::memory_order_relaxed);
                continue;
            }
            F bound = 0, other = 0;
            std::memcpy(&bound, &a, sizeof a);
            std::memcpy(&other, &b, sizeof b);
            bound = common_scale(bound, other, power.p);
            dispatch_squares<F>(power, [&](auto squares) {
                kernel.template run<decltype(squares)::value>(xs.at, ws.at, x, weight, m, sub, first, count, width, bound, ys.at);
            });
            for (int64_t r = 0; r < rows; r++)
                std::memcpy(y + (m.first(sub) + r) * m.chosen + first, ys.at + r * BLOCK, count * sizeof(F));
        }
    }
    return !enough ? NO_MEMORY : finite ? DONE : NOT_FINITE;
}

}  // namespace

#define EXPORT(F, SUFFIX)                                                                                             \
    extern "C" int lp_forward_##SUFFIX(const F* x, const F* weight, const int64_t* inputs, const int64_t* outputs,    \
                                       int64_t rows, int64_t batch, int64_t kept, int64_t chosen, int64_t all_inputs, \
                                       int64_t all_outputs, double p, int threads, F* y) {                            \
        return forward<F>(x, weight, y, Masks(inputs, outputs, rows, batch, kept, chosen, all_inputs, all_outputs),   \
                          p, threads);                                                                                \
    }
EXPORT(float, f32)
EXPORT(double, f64)
