// The Brenier potential of semi-discrete transport: max_j <x, y_j> + h_j and who attains it, for many points x.
//
// A matrix product whose result never reaches memory: a few rows by a few vectors of targets are accumulated in
// registers and folded into running maxima there. The pass keeps, lane by lane, the largest score and the tile it was
// seen in; the index is then found by going through that one tile again, where the same arithmetic gives the same
// bits. Ties go to the lowest index.
#pragma once

#include "buffer.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace sparsegen::SPARSEGEN_ISA {

// Accumulators of one register tile: kScoreRows points by kScoreVectors vectors of targets.
#if SPARSEGEN_VECTOR_BYTES == 64
constexpr int kScoreRows = 8, kScoreVectors = 3;
#else
constexpr int kScoreRows = 4, kScoreVectors = 3;
#endif

template <typename T>
constexpr index_t kScoreTile = kScoreVectors * kLanes<T>;

// Targets of one chunk stay in the second-level cache while a block of rows goes over them.
constexpr index_t kChunkBytes = 1 << 18;
constexpr index_t kRowBlock = 64;

// a > b ? a : b, so a NaN in a is never chosen: the definition of the max instructions.
template <typename T>
inline Vec<T> greatest(Vec<T> a, Vec<T> b) {
    return a > b ? a : b;
}
#if SPARSEGEN_VECTOR_BYTES == 64
template <>
inline Vec<float> greatest<float>(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm512_max_ps((__m512)a, (__m512)b); }
template <>
inline Vec<double> greatest<double>(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm512_max_pd((__m512d)a, (__m512d)b); }
#elif SPARSEGEN_VECTOR_BYTES == 32
template <>
inline Vec<float> greatest<float>(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b); }
template <>
inline Vec<double> greatest<double>(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm256_max_pd((__m256d)a, (__m256d)b); }
#elif defined(__SSE2__)
template <>
inline Vec<float> greatest<float>(Vec<float> a, Vec<float> b) { return (Vec<float>)_mm_max_ps((__m128)a, (__m128)b); }
template <>
inline Vec<double> greatest<double>(Vec<double> a, Vec<double> b) { return (Vec<double>)_mm_max_pd((__m128d)a, (__m128d)b); }
#endif

// Scores of Rows points against one tile. `tile` holds coordinate after coordinate, kScoreTile targets each.
template <typename T, int Rows>
inline __attribute__((always_inline)) void score_tile(const T* const* x, index_t dim, const T* tile, const T* heights,
                                                      Vec<T> (&score)[Rows][kScoreVectors]) {
#pragma GCC unroll 8
    for (int v = 0; v < kScoreVectors; ++v) {
        const Vec<T> height = load(heights + v * kLanes<T>);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) score[r][v] = height;
    }
    for (index_t k = 0; k < dim; ++k) {
        Vec<T> y[kScoreVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kScoreVectors; ++v) y[v] = load(tile + k * kScoreTile<T> + v * kLanes<T>);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            const Vec<T> point = broadcast(x[r][k]);
#pragma GCC unroll 8
            for (int v = 0; v < kScoreVectors; ++v) score[r][v] = muladd(point, y[v], score[r][v]);
        }
    }
}

// Running maxima of one point, lane by lane.
template <typename T>
struct Running {
    Vec<T> best, tile, second;
};

template <typename T, int Rows, bool Second>
inline void score_rows(const T* const* x, index_t dim, const T* packed, const T* heights, index_t begin, index_t end,
                       Running<T>* running) {
    Vec<T> best[Rows], tile[Rows], second[Rows];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
        best[r] = running[r].best;
        tile[r] = running[r].tile;
        if constexpr (Second) second[r] = running[r].second;
    }
    for (index_t t = begin; t < end; ++t) {
        Vec<T> score[Rows][kScoreVectors];
        score_tile<T, Rows>(x, dim, packed + t * dim * kScoreTile<T>, heights + t * kScoreTile<T>, score);
        const Vec<T> here = broadcast(static_cast<T>(t));
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            Vec<T> largest = score[r][0];
            if constexpr (Second) {
                Vec<T> runner = second[r];
#pragma GCC unroll 8
                for (int v = 1; v < kScoreVectors; ++v) {
                    runner = greatest<T>(least(score[r][v], largest), runner);
                    largest = greatest<T>(score[r][v], largest);
                }
                second[r] = greatest<T>(least(largest, best[r]), runner);
            } else {
#pragma GCC unroll 8
                for (int v = 1; v < kScoreVectors; ++v) largest = greatest<T>(score[r][v], largest);
            }
            tile[r] = largest > best[r] ? here : tile[r];
            best[r] = greatest<T>(largest, best[r]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
        running[r].best = best[r];
        running[r].tile = tile[r];
        if constexpr (Second) running[r].second = second[r];
    }
}

// Index and score of the best cell of one point, and the second score if asked.
template <typename T>
inline void finish_row(const T* x, index_t dim, const T* packed, const T* heights, const Running<T>& running,
                       index_t* index, T* score, T* second) {
    const T infinity = static_cast<T>(__builtin_inf());
    const T value = -smallest_lane<T>(-running.best);
    *score = value;
    index_t at = 0;
    if (value > -infinity) {
        const Vec<T> none = broadcast(infinity);
        const Vec<T> tiles = running.best == value ? running.tile : none;
        const index_t t = static_cast<index_t>(smallest_lane<T>(tiles));
        Vec<T> scores[1][kScoreVectors];
        score_tile<T, 1>(&x, dim, packed + t * dim * kScoreTile<T>, heights + t * kScoreTile<T>, scores);
        for (int v = kScoreVectors - 1; v >= 0; --v) {
            const unsigned equal = equal_lanes<T>(scores[0][v], broadcast(value));
            if (equal != 0) at = t * kScoreTile<T> + v * kLanes<T> + __builtin_ctz(equal);
        }
    }
    *index = at;
    if (second == nullptr) return;
    // Behind the best lane: its own second, and the best of every other lane.
    T lanes[kLanes<T>];
    store(lanes, running.best);
    const index_t lane = at % kLanes<T>;
    lanes[lane] = -infinity;
    T runner = -smallest_lane<T>(-running.second);
    for (index_t i = 0; i < kLanes<T>; ++i) runner = lanes[i] > runner ? lanes[i] : runner;
    *second = runner;
}

// Coordinates of targets (n, dim) in tiles; packed has ceil(n / tile) * tile * dim elements.
template <typename T>
inline index_t pack_cells(const T* targets, index_t n, index_t dim, T* packed) {
    const index_t tiles = (n + kScoreTile<T> - 1) / kScoreTile<T>;
    if (packed == nullptr) return tiles * kScoreTile<T> * dim;
    for (index_t t = 0; t < tiles; ++t) {
        T* tile = packed + t * kScoreTile<T> * dim;
        for (index_t c = 0; c < kScoreTile<T>; ++c) {
            const index_t j = t * kScoreTile<T> + c;
            for (index_t k = 0; k < dim; ++k) tile[k * kScoreTile<T> + c] = j < n ? targets[j * dim + k] : T(0);
        }
    }
    return tiles * kScoreTile<T> * dim;
}

// Best cell of every point (m, dim): its index and score and, unless `second` is null, the second-best score.
//
// A point with a NaN gets cell 0 and the score -inf.
template <typename T>
inline void best_cells(const T* x, const T* packed, const T* heights, index_t m, index_t n, index_t dim,
                       index_t* index, T* score, T* second, index_t threads) {
    const T infinity = static_cast<T>(__builtin_inf());
    const index_t tiles = (n + kScoreTile<T> - 1) / kScoreTile<T>;
    Buffer<T> raised(tiles * kScoreTile<T>);
    for (index_t j = 0; j < tiles * kScoreTile<T>; ++j) raised[j] = j < n ? heights[j] : -infinity;
    index_t chunk = kChunkBytes / (static_cast<index_t>(sizeof(T)) * kScoreTile<T> * dim);
    chunk = chunk < 1 ? 1 : chunk;
    const double cost = static_cast<double>(m) * static_cast<double>(tiles * kScoreVectors) * (0.25 * static_cast<double>(dim) + 1.0);
    parallel_for((m + kRowBlock - 1) / kRowBlock, threads, cost, [&](index_t first, index_t last) {
        Running<T> running[kRowBlock];
        const T* rows[kRowBlock];
        for (index_t block = first; block < last; ++block) {
            const index_t start = block * kRowBlock, count = start + kRowBlock < m ? kRowBlock : m - start;
            for (index_t r = 0; r < kRowBlock; ++r) {
                rows[r] = x + (start + (r < count ? r : count - 1)) * dim;
                running[r] = {broadcast(-infinity), Vec<T>{}, broadcast(-infinity)};
            }
            for (index_t begin = 0; begin < tiles; begin += chunk) {
                const index_t end = begin + chunk < tiles ? begin + chunk : tiles;
                for (index_t r = 0; r < count; r += kScoreRows) {
                    if (second == nullptr) {
                        score_rows<T, kScoreRows, false>(rows + r, dim, packed, raised.data(), begin, end, running + r);
                    } else {
                        score_rows<T, kScoreRows, true>(rows + r, dim, packed, raised.data(), begin, end, running + r);
                    }
                }
            }
            for (index_t r = 0; r < count; ++r) {
                finish_row<T>(rows[r], dim, packed, raised.data(), running[r], index + start + r, score + start + r,
                              second == nullptr ? nullptr : second + start + r);
            }
        }
    });
}

PackCellsFn<float> pack_cells_f32;
index_t pack_cells_f32(const float* targets, index_t n, index_t dim, float* packed) {
    return pack_cells<float>(targets, n, dim, packed);
}

PackCellsFn<double> pack_cells_f64;
index_t pack_cells_f64(const double* targets, index_t n, index_t dim, double* packed) {
    return pack_cells<double>(targets, n, dim, packed);
}

BestCellsFn<float> best_cells_f32;
void best_cells_f32(const float* x, const float* packed, const float* heights, index_t m, index_t n, index_t dim,
                    index_t* index, float* score, float* second, index_t threads) {
    best_cells<float>(x, packed, heights, m, n, dim, index, score, second, threads);
}

BestCellsFn<double> best_cells_f64;
void best_cells_f64(const double* x, const double* packed, const double* heights, index_t m, index_t n, index_t dim,
                    index_t* index, double* score, double* second, index_t threads) {
    best_cells<double>(x, packed, heights, m, n, dim, index, score, second, threads);
}

}  // namespace sparsegen::SPARSEGEN_ISA
