// Gradients of the sorted sum of sortnet.cpp, from the places of the K largest that its forward pass kept.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

namespace {

enum Form { ABS, LOW, HIGH };  // |x + b|; its smallest and its largest value for x in the box [x, u]

template <class F>
struct Forward {
    const F *x, *u, *center, *weight;  // (B, I), (B, I) (x where there is no box), (O, I), (O, K)
    int64_t weight_stride;             // 0: one row of weights for all outputs
    int64_t rows, inputs, outs, top;
    const int32_t* places;  // (B, O, K)
};

// The derivatives of a size: by x, by u, and the size itself (by its weight).
template <class F>
struct Slope {
    F x, u, size;
};

template <class F>
inline F sign(F d) { return F((d > 0) - (d < 0)); }

template <class F, Form FORM>
inline Slope<F> slope_of(F x, F u, F b) {
    const F first = x + b, second = u + b;
    if (FORM == ABS) return {sign(first), 0, std::abs(first)};
    if (FORM == LOW) {
        if (first > 0) return {1, 0, first};
        return second < 0 ? Slope<F>{0, -1, -second} : Slope<F>{0, 0, 0};
    }
    if (std::abs(first) >= std::abs(second)) return {sign(first), 0, std::abs(first)};
    return {0, sign(second), std::abs(second)};
}

template <class F>
struct Gradients {
    const F* y;                        // (B, O)
    F *x, *u, *center, *weight;        // (B, I), (B, I), (O, I), (O, K), each null or added to
};

// Each entry of a gradient belongs to one thread, which adds its terms in the order of the rows and outputs.
// Returns whether there was memory enough.
template <class F, Form FORM>
bool backward(const Forward<F>& q, const Gradients<F>& d, int threads) {
    constexpr int64_t BLOCK = 8;
    if (d.x || d.u) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (int64_t row0 = 0; row0 < q.rows; row0 += BLOCK)
            for (int64_t out = 0; out < q.outs; out++)
                for (int64_t row = row0; row < q.rows && row < row0 + BLOCK; row++) {
                    const F *x = q.x + row * q.inputs, *u = q.u + row * q.inputs, *b = q.center + out * q.inputs;
                    const int32_t* place = q.places + (row * q.outs + out) * q.top;
                    const F grad = d.y[row * q.outs + out], *weight = q.weight + out * q.weight_stride;
                    for (int64_t j = 0; j < q.top; j++) {
                        const int64_t i = place[j];
                        const Slope<F> slope = slope_of<F, FORM>(x[i], u[i], b[i]);
                        if (d.x) d.x[row * q.inputs + i] += grad * weight[j] * slope.x;
                        if (d.u) d.u[row * q.inputs + i] += grad * weight[j] * slope.u;
                    }
                }
    }
    if (!d.center && !d.weight) return true;
    std::atomic<bool> enough(true);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t out0 = 0; out0 < q.outs; out0 += BLOCK) {
        const int64_t outs = std::min(BLOCK, q.outs - out0);
        std::vector<double> by_weight;
        try {
            by_weight.resize(outs * q.top);
        } catch (const std::bad_alloc&) {  // out of here it would end the process
            enough = false;
            continue;
        }
        for (int64_t row = 0; row < q.rows; row++)
            for (int64_t o = 0; o < outs; o++) {
                const int64_t out = out0 + o;
                const F *x = q.x + row * q.inputs, *u = q.u + row * q.inputs, *b = q.center + out * q.inputs;
                const int32_t* place = q.places + (row * q.outs + out) * q.top;
                const F grad = d.y[row * q.outs + out], *weight = q.weight + out * q.weight_stride;
                for (int64_t j = 0; j < q.top; j++) {
                    const int64_t i = place[j];
                    const Slope<F> slope = slope_of<F, FORM>(x[i], u[i], b[i]);
                    if (d.center) d.center[out * q.inputs + i] += grad * weight[j] * (slope.x + slope.u);
                    by_weight[o * q.top + j] += (double)grad * (double)slope.size;
                }
            }
        if (d.weight)
            for (int64_t k = 0; k < outs * q.top; k++) d.weight[out0 * q.top + k] += (F)by_weight[k];
    }
    return enough;
}

}  // namespace

#define EXPORTED(NAME, F)                                                                                        \
    extern "C" int NAME(int form, const F* x, const F* u, const F* center, const F* weight,                     \
                         int64_t weight_stride, int64_t rows, int64_t inputs, int64_t outs, int64_t top,         \
                         const F* grad, const int32_t* places, F* by_x, F* by_u, F* by_center, F* by_weight,     \
                         int threads) {                                                                          \
        const Forward<F> q{x, u, center, weight, weight_stride, rows, inputs, outs, top, places};                \
        const Gradients<F> d{grad, by_x, by_u, by_center, by_weight};                                            \
        if (form == ABS) return !backward<F, ABS>(q, d, threads);                                                \
        if (form == LOW) return !backward<F, LOW>(q, d, threads);                                                \
        if (form == HIGH) return !backward<F, HIGH>(q, d, threads);                                              \
        return 0;                                                                                                \
    }

EXPORTED(sortnet_backward_f32, float)
EXPORTED(sortnet_backward_f64, double)
