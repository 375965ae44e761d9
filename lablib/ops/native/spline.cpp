// Linear splines and their gradients as in reference.py (lablib/ops/splines): x, y, grad (N, C, M), v (C, K),
// alpha (C,) or null.
//
// NaN must reach the results without ever becoming a place in memory, and the implementations on the CPU return the
// same bits: neither finite-math-only nor fused multiply-adds.
#pragma GCC optimize("no-finite-math-only", "fp-contract=off")
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace {

constexpr int64_t TILE = 128;  // columns looked up at once; more, and what is looked up hides no wait for memory
constexpr int64_t LINE = 128;  // columns of a block of channels, at least: whole cache lines of each row
constexpr int64_t TASKS = 64;  // more parts than that feed no more threads

template <class F>
struct Spline {
    const F *x, *values, *scale;
    int64_t rows, channels, inner, knots;
    F inverse, half, last, spacing, reach;  // 1 / T, (K - 1) / 2, K - 2, T, R

    Spline(const F* x, const F* values, const F* scale, const int64_t* shape, double reach)
        : x(x), values(values), scale(scale), rows(shape[0]), channels(shape[1]), inner(shape[2]), knots(shape[3]),
          inverse(F((knots - 1) / (2 * reach))), half(F((knots - 1) / 2.0)), last(F(knots - 2)),
          spacing(F(2 * reach / (knots - 1))), reach(F(reach)) {}

    int64_t together() const { return std::min(channels, (LINE + inner - 1) / inner); }  // channels of a block
    int64_t blocks() const { return (channels + together() - 1) / together(); }
};

// Some channels and some of their tiles: tile t is TILE columns, or what is left, of a row.
struct Task {
    int64_t channel, channels, width, per_row, first, end;

    template <class F>
    Task(const Spline<F>& s, int64_t block, int64_t chunk, int64_t chunks) {
        channel = block * s.together();
        channels = std::min(s.together(), s.channels - channel);
        width = channels * s.inner;
        per_row = (width + TILE - 1) / TILE;
        const int64_t tiles = s.rows * per_row;
        first = tiles / chunks * chunk + std::min(chunk, tiles % chunks);
        end = tiles / chunks * (chunk + 1) + std::min(chunk + 1, tiles % chunks);
    }
};

// By its bits: GCC 12 takes NaN for infinite where it merges two comparisons.
inline bool endless(float number) {
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return (bits & 0x7fffffff) == 0x7f800000;
}

inline bool endless(double number) {
    uint64_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return (bits & 0x7fffffffffffffff) == 0x7ff0000000000000;
}

// What is looked up for the columns of a tile.
template <class F>
struct Tile {
    int64_t place, next;  // in x, of the first column here and in the tile to come
    int64_t size;
    const F* scale;                // alpha, and alpha x; unless it is null
    alignas(64) F scaled[TILE];
    alignas(64) int32_t at[TILE];  // v_k behind the block's first coefficient
    alignas(64) F pairs[TILE][2];  // v_k, v_{k+1}
    alignas(64) F slope[TILE];     // s_k
    alignas(64) F offset[TILE];    // alpha x - t_k
};

// Asks for numbers needed soon: the processor, looking ahead by itself, finds them too late.
template <class F>
inline void fetch(const F* numbers, int64_t size) {
    for (int64_t i = 0; i < size; i += 64 / sizeof(F)) __builtin_prefetch(numbers + i);
}

// Calls work(tile) for all tiles of a task.
template <class F, class Work>
void each_tile(const Spline<F>& s, const Task& task, Work work) {
    Tile<F> tile;
    // Of each column: where its channel's coefficients are, and alpha. Several channels have fewer than 2 TILE columns
    // together; of one channel, the first tile is as all others.
    static_assert(LINE <= TILE);
    alignas(64) int32_t base[2 * TILE] = {};
    alignas(64) F scale[2 * TILE];
    const bool several = task.channels > 1;
    for (int64_t c = 0; c < task.channels; c++) {
        const int64_t width = several ? s.inner : TILE;
        std::fill_n(base + c * width, width, int32_t(c * s.knots));
        if (s.scale) std::fill_n(scale + c * width, width, s.scale[task.channel + c]);
    }
    const F* values = s.values + task.channel * s.knots;
    int64_t column = task.first % task.per_row * TILE;
    tile.next = (task.first / task.per_row * s.channels + task.channel) * s.inner + column;
    for (int64_t t = task.first; t < task.end; t++) {
        const int64_t size = std::min(TILE, task.width - column);  // not reloaded after each store
        tile.size = size;
        tile.place = tile.next;
        const bool whole = column + size == task.width;
        if (t + 1 < task.end) tile.next += whole ? s.channels * s.inner - column : TILE;
        const int32_t* first = several ? base + column : base;
        tile.scale = several ? scale + column : scale;
        const F* x = s.x + tile.place;
        fetch(s.x + tile.next, size);
        if (s.scale) {
            for (int64_t i = 0; i < size; i++) tile.scaled[i] = x[i] * tile.scale[i];
            x = tile.scaled;
        }
        for (int64_t i = 0; i < size; i++) {
            F p = x[i] * s.inverse + s.half;
            p = p > 0 ? p : F(0);  // NaN too
            p = p < s.last ? p : s.last;
            const int32_t k = int32_t(p);
            tile.offset[i] = x[i] - (F(k) * s.spacing - s.reach);
            tile.at[i] = first[i] + k;
        }
        // One load for both coefficients: faster than two gathers.
#pragma GCC unroll 4
        for (int64_t i = 0; i < size; i++)
            std::memcpy(tile.pairs[i], values + tile.at[i], sizeof(tile.pairs[i]));
        for (int64_t i = 0; i < size; i++) {
            tile.slope[i] = (tile.pairs[i][1] - tile.pairs[i][0]) * s.inverse;
            // 0 times infinity: a flat end goes on flat.
            tile.offset[i] = (tile.slope[i] == 0) & endless(tile.offset[i]) ? F(0) : tile.offset[i];
        }
        work(tile);
        column = whole ? 0 : column + TILE;
    }
}

template <class F>
void forward(const Spline<F>& s, F* y, int threads) {
    const int64_t blocks = s.blocks(), chunks = (TASKS + blocks - 1) / blocks;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < blocks * chunks; n++)
        each_tile(s, Task(s, n / chunks, n % chunks, chunks), [&](const Tile<F>& tile) {
            const int64_t size = tile.size;
            F* out = y + tile.place;
            for (int64_t i = 0; i < size; i++) out[i] = tile.pairs[i][0] + tile.slope[i] * tile.offset[i];
            if (s.scale)
                for (int64_t i = 0; i < size; i++) out[i] /= tile.scale[i];
        });
}

typedef double Pair __attribute__((vector_size(16)));  // the sums of g and of g d / T where v_k is looked up

template <class F>
void accumulate(const Spline<F>& s, const Task& task, const F* grad, F* by_x, Pair* sums) {
    alignas(64) Pair terms[TILE];
    each_tile(s, task, [&](const Tile<F>& tile) {
        const int64_t size = tile.size;
        const F* g = grad + tile.place;
        fetch(grad + tile.next, size);
        if (by_x)
            for (int64_t i = 0; i < size; i++) by_x[tile.place + i] = g[i] * tile.slope[i];
        if (!sums) return;
        double* both = reinterpret_cast<double*>(terms);
        for (int64_t i = 0; i < size; i++) {
            both[2 * i] = g[i];
            both[2 * i + 1] = double(g[i]) * double(tile.offset[i] * s.inverse);
        }
#pragma GCC unroll 4
        for (int64_t i = 0; i < size; i++) sums[tile.at[i]] += terms[i];
    });
}

// Where gradients go; null if nobody wants them.
template <class F>
struct Gradients {
    F *by_x, *by_values, *by_scale;

    bool sums() const { return by_values || by_scale; }
};

// The gradients of v and alpha of a block from its chunks' sums, each a table further.
template <class F>
void join(const Spline<F>& s, const Task& task, const Pair* sums, int64_t chunks, int64_t table,
          const Gradients<F>& out) {
    for (int64_t c = task.channel; c < task.channel + task.channels; c++, sums += s.knots) {
        const double alpha = s.scale ? s.scale[c] : 1, inverse = 1 / alpha;
        const F* v = s.values + c * s.knots;
        double before = 0, heights = 0;  // the sum of g d / T one segment to the left; that of g b_k
        for (int64_t k = 0; k < s.knots; k++) {
            Pair here = {0, 0};
            for (int64_t n = 0; n < chunks; n++) here += sums[n * table + k];
            if (out.by_values) out.by_values[c * s.knots + k] = F((here[0] - here[1] + before) * inverse);
            before = here[1];
            if (out.by_scale && k + 1 < s.knots)
                heights += here[0] * (v[k] - (double(v[k + 1]) - v[k]) * (k - (s.knots - 1) / 2.0));
        }
        if (out.by_scale) out.by_scale[c] = F(-heights * inverse * inverse);
    }
}

// Returns whether there was memory enough. Chunks depend on the shape alone and are joined in their order: the number
// of threads changes no bit.
template <class F>
bool backward(const Spline<F>& s, const F* grad, const Gradients<F>& out, int threads) {
    const int64_t blocks = s.blocks(), table = s.together() * s.knots;
    const int64_t size = s.rows * s.together() * s.inner, worth = size / std::max<int64_t>(1 << 16, 16 * table);
    const int64_t chunks = std::max<int64_t>(1, std::min((TASKS + blocks - 1) / blocks, worth));
    const int64_t tables = chunks > 1 ? blocks * chunks : threads;
    const std::unique_ptr<Pair[]> memory(out.sums() ? new (std::nothrow) Pair[tables * table] : nullptr);
    if (out.sums() && !memory) return false;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < blocks * chunks; n++) {
        const Task task(s, n / chunks, n % chunks, chunks);
        Pair* sums = memory ? memory.get() + (chunks > 1 ? n : omp_get_thread_num()) * table : nullptr;
        if (sums) std::fill_n(sums, table, Pair{0, 0});
        accumulate(s, task, grad, out.by_x, sums);
        if (sums && chunks == 1) join(s, task, sums, 1, table, out);
    }
    if (memory && chunks > 1)
        for (int64_t block = 0; block < blocks; block++)
            join(s, Task(s, block, 0, 1), memory.get() + block * chunks * table, chunks, table, out);
    return true;
}

}  // namespace

// shape: N, C, M, K. by_x (N, C, M), by_values (C, K) and by_scale (C,) are written where they are not null.
#define EXPORTED(SUFFIX, F)                                                                                        \
    extern "C" int spline_forward_##SUFFIX(const F* x, const F* values, const F* scale, const int64_t* shape,      \
                                           double reach, F* y, int threads) {                                      \
        forward(Spline<F>(x, values, scale, shape, reach), y, threads);                                            \
        return 0;                                                                                                  \
    }                                                                                                              \
    extern "C" int spline_backward_##SUFFIX(const F* x, const F* values, const F* scale, const int64_t* shape,     \
                                            double reach, const F* grad, F* by_x, F* by_values, F* by_scale,       \
                                            int threads) {                                                         \
        return !backward(Spline<F>(x, values, scale, shape, reach), grad, {by_x, by_values, by_scale}, threads);   \
    }

EXPORTED(f32, float)
EXPORTED(f64, double)
