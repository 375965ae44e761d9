// The l_inf distance max_i |x_i - w_ki| and its range over a box, forward and backward, with the sub-batch masks.
//
// The backwards search for the first input that reaches the result, instead of every forward writing it down: a
// difference recomputed has the same bits.
#include <atomic>

#include "power.h"

namespace {

// From the centres' side: far = max_i max(w - l, u - w), near = max_i max(l - w, w - u), 0 at least.
template <class F>
INLINE void tile_range(const F* l, const F* u, const F* w, int64_t width, F* near, F* far) {
    typedef Kind<F> K;
    constexpr int ROWS = TILE_X / 2, PAIRS = ROWS * TILE_W;  // two sums per pair: half of the rows
    typename K::Vec acc[TILE], b[TILE_W];
    UNROLL for (int n = 0; n < TILE; n++) acc[n] = typename K::Vec{};
    for (int64_t i = 0; i < width; i += K::LANES) {
        UNROLL for (int c = 0; c < TILE_W; c++) b[c] = load(w + c * width + i);
        UNROLL for (int r = 0; r < ROWS; r++) {
            typename K::Vec low = load(l + r * width + i), high = load(u + r * width + i);
            UNROLL for (int c = 0; c < TILE_W; c++) {
                const int n = r * TILE_W + c;
                const typename K::Vec under = low - b[c], over = high - b[c];
                acc[n] = larger(acc[n], larger(under, -over));
                acc[PAIRS + n] = larger(acc[PAIRS + n], larger(-under, over));
            }
        }
    }
    F out[TILE];
    join_lanes<F, Max>(acc, out);
    std::memcpy(near, out, PAIRS * sizeof(F));
    std::memcpy(far, out + PAIRS, PAIRS * sizeof(F));
}

// Runs task(memory, sub, first column, columns) for all panels on all threads; the memory holds what pack says.
// Returns whether there was memory enough.
template <class F, class Task>
bool all_panels(const Masks& m, int64_t numbers, int threads, Task task) {
    const int64_t blocks = (m.chosen + BLOCK - 1) / BLOCK;
    std::atomic<bool> enough(true);
#pragma omp parallel num_threads(threads)
    {
        Buffer<F> memory(numbers);
        if (!memory.at) enough = false;
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
        for (int64_t n = 0; n < (enough ? m.subs * blocks : 0); n++) {
            const int64_t first = n % blocks * BLOCK;
            task(memory.at, n / blocks, first, std::min<int64_t>(BLOCK, m.chosen - first));
        }
    }
    return enough;
}

template <class F> int forward(const F* x, const F* weight, F* y, const Masks& m, int threads) {
    if (!m.valid()) return BAD_MASK;
    const int64_t width = round_up(m.kept, Kind<F>::LANES), tall = round_up(std::min(m.rows, m.batch), 4);
    std::atomic<bool> finite(true);
    const bool enough = all_panels<F>(m, (tall + BLOCK) * width, threads, [&](F* xs, int64_t sub, int64_t first, int64_t count) {
        const int64_t rows = m.count(sub);
        F* ws = xs + tall * width;
        pack_x(xs, x, m, m.first(sub), rows, width);
        pack_weight(ws, weight, m, sub, first, count, width);
        if (std::max(largest_bits(xs, rows * width), largest_bits(ws, count * width)) >= Bits<F>::INF)
            finite.store(false, std::memory_order_relaxed);
        alignas(64) F made[TILE];
        for (int64_t c = 0; c < count; c += TILE_W)
            for (int64_t r = 0; r < rows; r += TILE_X) {
                tile_max<F>(xs + r * width, ws + c * width, width, made);
                for (int n = 0; n < TILE; n++)
                    if (r + n / TILE_W < rows && c + n % TILE_W < count)
                        y[(m.first(sub) + r + n / TILE_W) * m.chosen + first + c + n % TILE_W] = made[n];
            }
    });
    return !enough ? NO_MEMORY : finite ? DONE : NOT_FINITE;
}

template <class F>
int range(const F* lower, const F* upper, const F* weight, F* least, F* most, const Masks& m, int threads) {
    const int64_t width = round_up(m.kept, Kind<F>::LANES), tall = round_up(std::min(m.rows, m.batch), 4);
    std::atomic<bool> finite(true);
    const bool enough = all_panels<F>(m, (2 * tall + BLOCK) * width, threads, [&](F* ls, int64_t sub, int64_t first, int64_t count) {
        const int64_t rows = m.count(sub);
        F *us = ls + tall * width, *ws = us + tall * width;
        pack_x(ls, lower, m, m.first(sub), rows, width);
        pack_x(us, upper, m, m.first(sub), rows, width);
        pack_weight(ws, weight, m, sub, first, count, width);
        const auto sides = std::max(largest_bits(ls, rows * width), largest_bits(us, rows * width));
        if (std::max(sides, largest_bits(ws, count * width)) >= Bits<F>::INF)
            finite.store(false, std::memory_order_relaxed);
        F near[TILE], far[TILE];
        for (int64_t c = 0; c < count; c += TILE_W)
            for (int64_t r = 0; r < rows; r += TILE_X / 2) {
                tile_range<F>(ls + r * width, us + r * width, ws + c * width, width, near, far);
                for (int n = 0; n < TILE / 2; n++) {
                    const int64_t at = (m.first(sub) + r + n / TILE_W) * m.chosen + first + c + n % TILE_W;
                    if (r + n / TILE_W < rows && c + n % TILE_W < count) least[at] = near[n], most[at] = far[n];
                }
            }
    });
    return !enough ? NO_MEMORY : finite ? DONE : NOT_FINITE;
}

// The first i with value(i) >= target, four vectors at a time; there is one, and ``width`` is whole fours of vectors.
// One unpredictable branch: each costs as much as looking at ten vectors.
template <class F, class Value>
INLINE int64_t first_at_least(int64_t width, F target, Value value) {
    typedef Kind<F> K;
    const typename K::Vec wanted = all(target);
    for (int64_t i = 0; i < width; i += 4 * K::LANES) {
        typename K::Vec v[4];
        UNROLL for (int n = 0; n < 4; n++) v[n] = value(i + n * K::LANES);
        if (!lanes<F>(larger(larger(v[0], v[1]), larger(v[2], v[3])) >= wanted)) continue;
        uint64_t found = 0;
        UNROLL for (int n = 0; n < 4; n++) found |= uint64_t(lanes<F>(v[n] >= wanted)) << n * K::LANES;
        return i + __builtin_ctzll(found);
    }
    return 0;
}

// i where ``above``, else ~i, without a branch.
INLINE int32_t marked(int64_t i, bool above) { return int32_t(i) ^ (int32_t(above) - 1); }

// Calls visit(r, c) for all r < rows, c < count, a few rows at a time: they and one neuron stay in the nearest cache.
template <class Visit> void near_pairs(int64_t rows, int64_t count, Visit visit) {
    for (int64_t from = 0; from < rows; from += 8)
        for (int64_t c = 0; c < count; c++)
            for (int64_t r = from; r < std::min(from + 8, rows); r++) visit(r, c);
}

// Where a gradient goes: i, or ~i where the centre lies above, or NOWHERE; i counts the columns of compact x.
constexpr int32_t NOWHERE = INT32_MIN;

// Adds the gradients: at i, grad to ``above`` and -grad to the weight; at ~i, -grad to ``below`` and grad to the weight.
// Each row of x and each of the weight belongs to one thread, so the order of every sum is fixed.
template <class F>
void scatter(const Masks& m, int threads, const int32_t* winners, const F* grad, F* above, F* below, F* to_w) {
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static) nowait
        for (int64_t b = 0; b < m.batch; b++)
            for (int64_t c = 0; above && c < m.chosen; c++) {
                const int32_t i = winners[b * m.chosen + c];
                const F g = grad[b * m.chosen + c];
                if (i == NOWHERE) continue;
                if (i >= 0) above[b * m.kept + i] += g;
                else below[b * m.kept + ~i] -= g;
            }
#pragma omp for schedule(static)
        for (int64_t k = 0; k < m.all_outputs; k += BLOCK)
            for (int64_t b = 0; to_w && b < m.batch; b++) {
                const int64_t sub = b / m.rows, last = m.column_from(sub, std::min(k + BLOCK, m.all_outputs));
                const int64_t* ins = m.ins(sub);
                for (int64_t c = m.column_from(sub, k); c < last; c++) {
                    const int32_t i = winners[b * m.chosen + c];
                    if (i == NOWHERE) continue;
                    const int64_t at = i < 0 ? ~i : i;
                    const F g = grad[b * m.chosen + c];
                    to_w[m.neuron(sub, c) * m.all_inputs + (ins ? ins[at] : at)] += i < 0 ? g : -g;
                }
            }
    }
}

template <class F>
int backward(const F* x, const F* weight, const Masks& m, int threads, const F* y, const F* grad, F* to_x, F* to_w) {
    if (!m.valid()) return BAD_MASK;
    if (largest_bits(y, m.batch * m.chosen) >= Bits<F>::INF) return NOT_FINITE;
    const int64_t width = round_up(m.kept, 4 * Kind<F>::LANES), tall = round_up(std::min(m.rows, m.batch), 4);
    Buffer<int32_t> winners(m.batch * m.chosen);
    if (!winners.at) return NO_MEMORY;
    const bool enough = all_panels<F>(m, (tall + BLOCK) * width, threads, [&](F* xs, int64_t sub, int64_t first, int64_t count) {
        F* ws = xs + tall * width;
        pack_x(xs, x, m, m.first(sub), m.count(sub), width);
        pack_weight(ws, weight, m, sub, first, count, width);
        near_pairs(m.count(sub), count, [&](int64_t r, int64_t c) {
                const int64_t at = (m.first(sub) + r) * m.chosen + first + c;
                const F *a = xs + r * width, *b = ws + c * width;
                winners.at[at] = NOWHERE;
                if (grad[at] == 0 || y[at] == 0) return;
                const int64_t i = first_at_least<F>(width, y[at], [&](int64_t j) { return size_of<F>(load(a + j) - load(b + j)); });
                winners.at[at] = marked(i, a[i] > b[i]);
        });
    });
    if (!enough) return NO_MEMORY;
    scatter(m, threads, winners.at, grad, to_x, to_x, to_w);
    return DONE;
}

template <class F>
int range_backward(const F* lower, const F* upper, const F* weight, const Masks& m, int threads, const F* least,
                   const F* most, const F* to_least, const F* to_most, F* to_lower, F* to_upper, F* to_w) {
    const int64_t pairs = m.batch * m.chosen;
    if (std::max(largest_bits(least, pairs), largest_bits(most, pairs)) >= Bits<F>::INF) return NOT_FINITE;
    const int64_t width = round_up(m.kept, 4 * Kind<F>::LANES), tall = round_up(std::min(m.rows, m.batch), 4);
    Buffer<int32_t> near(pairs), far(pairs);
    if (!near.at || !far.at) return NO_MEMORY;
    const bool enough = all_panels<F>(m, (2 * tall + BLOCK) * width, threads, [&](F* ls, int64_t sub, int64_t first, int64_t count) {
        F *us = ls + tall * width, *ws = us + tall * width;
        pack_x(ls, lower, m, m.first(sub), m.count(sub), width);
        pack_x(us, upper, m, m.first(sub), m.count(sub), width);
        pack_weight(ws, weight, m, sub, first, count, width);
        near_pairs(m.count(sub), count, [&](int64_t r, int64_t c) {
                const int64_t at = (m.first(sub) + r) * m.chosen + first + c;
                const F *l = ls + r * width, *u = us + r * width, *b = ws + c * width;
                near.at[at] = far.at[at] = NOWHERE;
                if (to_least[at] != 0 && least[at] > 0) {
                    const int64_t i = first_at_least<F>(width, least[at], [&](int64_t j) {
                        return larger(load(l + j) - load(b + j), load(b + j) - load(u + j));
                    });
                    near.at[at] = marked(i, l[i] > b[i]);
                }
                if (to_most[at] != 0) {
                    const int64_t i = first_at_least<F>(width, most[at], [&](int64_t j) {
                        return larger(load(u + j) - load(b + j), load(b + j) - load(l + j));
                    });
                    if (most[at] > 0) far.at[at] = marked(i, u[i] - b[i] > b[i] - l[i]);
                }
        });
    });
    if (!enough) return NO_MEMORY;
    scatter(m, threads, near.at, to_least, to_lower, to_upper, to_w);
    scatter(m, threads, far.at, to_most, to_upper, to_lower, to_w);
    return DONE;
}

}  // namespace

#define COMMON(F)                                                                                                   \
    const F *x, const F *weight, const int64_t *inputs, const int64_t *outputs, int64_t rows, int64_t batch,        \
        int64_t kept, int64_t chosen, int64_t all_inputs, int64_t all_outputs, double, int threads
#define MASKS Masks(inputs, outputs, rows, batch, kept, chosen, all_inputs, all_outputs)
#define EXPORT(F, SUFFIX)                                                                                           \
    extern "C" int linf_forward_##SUFFIX(COMMON(F), F* y) { return forward<F>(x, weight, y, MASKS, threads); }      \
    extern "C" int linf_backward_##SUFFIX(COMMON(F), const F* y, const F* grad, F* to_x, F* to_w) {                 \
        return backward<F>(x, weight, MASKS, threads, y, grad, to_x, to_w);                                         \
    }                                                                                                               \
    extern "C" int linf_range_##SUFFIX(COMMON(F), const F* upper, F* least, F* most) {                              \
        return range<F>(x, upper, weight, least, most, MASKS, threads);                                             \
    }                                                                                                               \
    extern "C" int linf_range_backward_##SUFFIX(COMMON(F), const F* upper, const F* least, const F* most,           \
                                                const F* to_least, const F* to_most, F* to_lower, F* to_upper,      \
                                                F* to_w) {                                                          \
        return range_backward<F>(x, upper, weight, MASKS, threads, least, most, to_least, to_most, to_lower,        \
                                 to_upper, to_w);                                                                   \
    }
EXPORT(float, f32)
EXPORT(double, f64)
