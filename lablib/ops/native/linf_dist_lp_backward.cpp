// The l_p distance, backward: dy/dx_i = sign(d) (|d| / y)^(p-1), d = x_i - w_ki, and its negative for w_ki.
//
// One sweep makes both gradients. The odd power 2^k - 1 keeps the sign by itself; it is built from squarings by
// a_{m+n} = a_m^(2^n) a_n, a_n = r^(2^n - 1); and r^(3 2^k - 1) = (a_k r)^2 a_k. Powers and slopes below 2^-60 (of the
// largest slope) count as 0: no product becomes subnormal (they are slow).
//
// Threads own neurons, so the weight's gradient is summed in the order of the sub-batches; x's is summed over blocks of
// neurons whose number depends on the shapes only. Results do not depend on the number of threads.
#include <atomic>
#include <vector>

#include "power.h"

namespace {

constexpr int BACK_X = 4, BACK_W = 4, BACK = BACK_X * BACK_W;
constexpr int PARTS = 16;                       // at most so many blocks of neurons
constexpr int64_t PART_NUMBERS = int64_t(1) << 24;  // and so many numbers of x's gradient, all blocks together

template <class F> struct Backward {
    typedef Kind<F> K;
    typedef typename K::Vec Vec;
    typedef typename K::Key Key;

    const Power& power;
    F floor;  // ratios below count as 0
    F near;   // where all ratios are below, nothing is done

    explicit Backward(const Power& p)
        : power(p), floor(p.p > 1 ? F(std::exp2(Bits<F>::SLOPE_LEAST / (p.p - 1))) : F(0)),
          near(p.p > 1 ? F(std::exp2(Bits<F>::NEAR_LEAST / (p.p - 1))) : F(0)) {}

    static INLINE Vec where(Key mask, Vec v) { return (Vec)((Key)v & mask); }

    // sign(r) |r|^(p-1)
    template <int SQUARES> INLINE Vec slope(Vec r) const {
        constexpr int k = SQUARES + 1;
        if (SQUARES < 0) {
            const Vec size = size_of<F>(r);
            const Key sign = (Key)r & ~Key{} << (8 * sizeof(F) - 1);
            if (power.way == Power::ONE) return where(size > 0, (Vec)((Key)all(F(1)) | sign));
            if (power.way == Power::CUBE) return where(size >= all(floor), r * size);
            const Vec made = exp2_of(F(power.p - 1) * log2_of(larger(size, all(floor))));
            return where(size >= all(floor), (Vec)((Key)made | sign));
        }
        if (k == 1 && !power.three) return r;
        const Vec square = r * r;
        const Key large = square >= all(F(floor * floor));
        Vec a = where(large, r);
        int n = 1;
        if (k > 1) {
            constexpr int top = 31 - __builtin_clz(k | 1);
            a = where(large, square * r), n = 2;
            if (k >> (top > 0 ? top - 1 : 0) & 1) a = a * a * r, n = 3;
            UNROLL for (int bit = top - 2; bit >= 0; bit--) {
                Vec s = a;
                UNROLL for (int j = 0; j < n; j++) s *= s;
                a *= s, n *= 2;
                if (k >> bit & 1) a = a * a * r, n++;
            }
        }
        if (power.three) {
            const Vec s = a * r;
            a *= s * s;
        }
        return a;
    }

    template <int SQUARES, bool TO_X>
    void panel(const F* x, const F* w, F* to_x, F* to_w, const F* scale, const F* grad, int64_t xs, int64_t ws,
               int64_t width) const {
        for (int64_t c = 0; c < ws; c += BACK_W)
            for (int64_t b = 0; b < xs; b += BACK_X) {
                alignas(64) F s[BACK], g[BACK];
                for (int n = 0; n < BACK; n++) {
                    const int64_t at = (b + n / BACK_W) * BLOCK + c + n % BACK_W;
                    s[n] = scale[at], g[n] = grad[at];
                }
                for (int64_t i = 0; i < width; i += K::LANES) {
                    Vec a[BACK_X], gx[BACK_X];
                    UNROLL for (int r = 0; r < BACK_X; r++) {
                        a[r] = load(x + (b + r) * width + i);
                        gx[r] = TO_X ? load(to_x + (b + r) * width + i) : Vec{};
                    }
                    UNROLL for (int n = 0; n < BACK_W; n++) {
                        const Vec center = load(w + (c + n) * width + i);
                        Vec gw = load(to_w + (c + n) * width + i);
                        UNROLL for (int r = 0; r < BACK_X; r++) {
                            const Vec t = slope<SQUARES>((a[r] - center) * s[r * BACK_W + n]) * g[r * BACK_W + n];
                            if (TO_X) gx[r] += t;
                            gw -= t;
                        }
                        store(to_w + (c + n) * width + i, gw);
                    }
                    if (TO_X) UNROLL for (int r = 0; r < BACK_X; r++) store(to_x + (b + r) * width + i, gx[r]);
                }
            }
    }

    // The same where few ratios are near 1.
    template <int SQUARES, bool TO_X>
    void near_panel(const F* x, const F* w, F* to_x, F* to_w, const F* scale, const F* grad, int64_t xs, int64_t ws,
                    int64_t width) const {
        for (int64_t c = 0; c < ws; c += BACK_W)
            for (int64_t b = 0; b < xs; b++) {
                const F *s = scale + b * BLOCK + c, *g = grad + b * BLOCK + c;
                for (int64_t i = 0; i < width; i += K::LANES) {
                    const Vec a = load(x + b * width + i);
                    Vec u[BACK_W], most = {}, gx = {};
                    UNROLL for (int n = 0; n < BACK_W; n++) {
                        u[n] = (a - load(w + (c + n) * width + i)) * s[n];
                        most = max_size<F>(most, u[n]);
                    }
                    if (!lanes<F>(most >= all(near))) continue;
                    UNROLL for (int n = 0; n < BACK_W; n++) {
                        const Vec t = slope<SQUARES>(u[n]) * g[n];
                        gx += t;
                        store(to_w + (c + n) * width + i, load(to_w + (c + n) * width + i) - t);
                    }
                    if (TO_X) store(to_x + b * width + i, load(to_x + b * width + i) + gx);
                }
            }
    }

    template <int SQUARES, bool TO_X>
    void sweep(const F* x, const F* w, F* to_x, F* to_w, const F* scale, const F* grad, int64_t xs, int64_t ws,
               int64_t width) const {
        if constexpr (sizeof(F) == 4 && CAN_LOOK && (SQUARES < 0 || SQUARES > 5))  // no need to compile the others
            if (near_only(power, NEAR_BACKWARD))
                return near_panel<SQUARES, TO_X>(x, w, to_x, to_w, scale, grad, xs, ws, width);
        if constexpr (!CAN_LOOK || SQUARES < 7) panel<SQUARES, TO_X>(x, w, to_x, to_w, scale, grad, xs, ws, width);
    }
};

template <class F> struct Sweep {
    const F *x, *weight, *y, *grad;
    F *to_x, *to_w;
    const Masks& m;
    const Backward<F>& kernel;
    F most;         // the largest size of grad
    int64_t width;  // of a packed row

    // 1 / y and grad / most of some pairs, 0 where they do not count; returns whether any does.
    bool pairs(int64_t sub, int64_t first, int64_t count, F* scale, F* slope) const {
        const F normal = sizeof(F) == 4 ? F(1.2e-38) : F(2.3e-308), least = F(std::exp2(Bits<F>::SLOPE_LEAST)) * most;
        std::fill(scale, scale + round_up(m.count(sub), BACK_X) * BLOCK, F(0));
        std::fill(slope, slope + round_up(m.count(sub), BACK_X) * BLOCK, F(0));
        bool any = false;
        for (int64_t b = 0; b < m.count(sub); b++)
            for (int64_t c = 0; c < count; c++) {
                const int64_t at = (m.first(sub) + b) * m.chosen + first + c;
                scale[b * BLOCK + c] = y[at] < normal ? F(0) : F(1) / y[at];
                const bool counts = std::abs(grad[at]) > least && y[at] >= normal;
                slope[b * BLOCK + c] = counts ? grad[at] / most : F(0);
                any |= counts;
            }
        return any;
    }

    // Sub-batches low .. high: neurons from .. to, added to the weight's gradient and to part (rows, width) of x's.
    template <int SQUARES> void block(int64_t low, int64_t high, int64_t from, int64_t to, F* part, F* memory) const {
        const int64_t tall = round_up(std::min(m.rows, m.batch), BACK_X);
        F *xs = memory, *ws = xs + tall * width, *gw = ws + BLOCK * width, *scale = gw + BLOCK * width;
        F *slope = scale + tall * BLOCK, *gx = slope + tall * BLOCK;
        for (int64_t sub = low; sub < high; sub++) {
            const int64_t rows = m.count(sub), last = m.column_from(sub, to);
            std::fill(gx, gx + tall * width, F(0));
            bool packed = false;
            for (int64_t c = m.column_from(sub, from); c < last; c += BLOCK) {
                const int64_t count = std::min<int64_t>(BLOCK, last - c);
                if (!pairs(sub, c, count, scale, slope)) continue;
                if (!packed) pack_x(xs, x, m, m.first(sub), rows, width);
                packed = true;
                pack_weight(ws, weight, m, sub, c, count, width);
                std::fill(gw, gw + round_up(count, BACK_W) * width, F(0));
                const int64_t tx = round_up(rows, BACK_X), tw = round_up(count, BACK_W);
                if (to_x) kernel.template sweep<SQUARES, true>(xs, ws, gx, gw, scale, slope, tx, tw, width);
                else kernel.template sweep<SQUARES, false>(xs, ws, gx, gw, scale, slope, tx, tw, width);
                if (to_w) add_weight(gw, sub, c, count);
            }
            if (to_x) std::memcpy(part + (m.first(sub) - m.first(low)) * width, gx, rows * width * sizeof(F));
        }
    }

    void add_weight(const F* gw, int64_t sub, int64_t first, int64_t count) const {
        const int64_t* ins = m.ins(sub);
        for (int64_t c = 0; c < count; c++) {
            F* row = to_w + m.neuron(sub, first + c) * m.all_inputs;
            const F* from = gw + c * width;
            if (ins)
                for (int64_t j = 0; j < m.kept; j++) row[ins[j]] += from[j] * most;
            else
                for (int64_t j = 0; j < m.kept; j++) row[j] += from[j] * most;
        }
    }

    // Returns whether there was memory enough.
    bool run(int threads) const {
        const int64_t each = round_up(std::max<int64_t>(BLOCK, (m.all_outputs + PARTS - 1) / PARTS), BACK_W);
        const int64_t parts = (m.all_outputs + each - 1) / each;
        const int64_t share = to_x ? std::max<int64_t>(1, PART_NUMBERS / (parts * m.rows * width)) : m.subs;
        const int64_t tall = round_up(std::min(m.rows, m.batch), BACK_X);
        Buffer<F> sums(to_x ? parts * std::min(share * m.rows, round_up(m.batch, m.rows)) * width : 0);
        std::atomic<bool> enough(sums.at != nullptr);
        for (int64_t low = 0; low < m.subs && enough; low += share) {
            const int64_t high = std::min(m.subs, low + share), first = m.first(low);
            const int64_t rows = std::min(m.batch, high * m.rows) - first;
#pragma omp parallel num_threads(threads)
            {
                Buffer<F> memory((2 * tall + 2 * BLOCK) * width + 2 * tall * BLOCK);
                if (!memory.at) enough = false;
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
                for (int64_t n = 0; n < (enough ? parts : 0); n++)
                    dispatch_squares<F>(kernel.power, [&](auto squares) {
                        block<decltype(squares)::value>(low, high, n * each, std::min(m.all_outputs, (n + 1) * each),
                                                        sums.at + n * rows * width, memory.at);
                    });
                if (to_x) {
#pragma omp for schedule(static)
                    for (int64_t b = 0; b < (enough ? rows : 0); b++) {
                        F* row = to_x + (first + b) * m.kept;
                        std::fill(row, row + m.kept, F(0));
                        for (int64_t n = 0; n < parts; n++) {
                            const F* part = sums.at + (n * rows + b) * width;
                            for (int64_t j = 0; j < m.kept; j++) row[j] += part[j] * most;
                        }
                    }
                }
            }
        }
        return enough;
    }
};

// to_x is overwritten, to_w added to; either may be null.
template <class F>
int backward(const F* grad, const F* x, const F* weight, const F* y, F* to_x, F* to_w, const Masks& m, double p,
             int threads) {
    if (!m.valid()) return BAD_MASK;
    const int64_t pairs = m.batch * m.chosen;
    const typename Bits<F>::Int most_bits = largest_bits(grad, pairs);
    if (std::max(most_bits, largest_bits(y, pairs)) >= Bits<F>::INF) return NOT_FINITE;
    F most;
    std::memcpy(&most, &most_bits, sizeof most);
    if (most == 0) {
        if (to_x) std::fill(to_x, to_x + m.batch * m.kept, F(0));
        return DONE;
    }
    const Power power(p, sizeof(F) == 4);
    const Backward<F> kernel(power);
    const Sweep<F> sweep{x, weight, y, grad, to_x, to_w, m, kernel, most, round_up(m.kept, Kind<F>::LANES)};
    return sweep.run(threads) ? DONE : NO_MEMORY;
}

}  // namespace

#define EXPORT(F, SUFFIX)                                                                                             \
    extern "C" int lp_backward_##SUFFIX(                                                                              \
        const F* x, const F* weight, const int64_t* inputs, const int64_t* outputs, int64_t rows, int64_t batch,      \
        int64_t kept, int64_t chosen, int64_t all_inputs, int64_t all_outputs, double p, int threads, const F* y,     \
        const F* grad, F* to_x, F* to_w) {                                                                            \
        return backward<F>(grad, x, weight, y, to_x, to_w,                                                            \
                           Masks(inputs, outputs, rows, batch, kept, chosen, all_inputs, all_outputs), p, threads);   \
    }
EXPORT(float, f32)
EXPORT(double, f64)
