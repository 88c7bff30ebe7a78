// Cells of the mirror images of a point: for every pattern of signs s, the target of largest sum_j s_j x_j y_j + h.
//
// Coordinates are dealt into G groups; the 2 G patterns are the rows of a Hadamard matrix over the groups and their
// negatives, so any two of them differ in half of the groups or in all. The products with a target are summed group
// by group, once; a fast Walsh-Hadamard transform of these G sums in registers gives the scores of G images, and
// the scores of the others follow by a subtraction: an image costs some six operations a target, whatever the dimension.
//
// The maxima are kept lane by lane, with the number of the vector of targets in the lowest bits of the score: a cell
// found is within 2^-17 of its score of the best one.
#pragma once

#include "buffer.hpp"
#include "parallel.hpp"
#include "kernels/potential.inl"
#include "simd.hpp"

namespace sparsegen::SPARSEGEN_ISA {

typedef std::int32_t Bits __attribute__((vector_size(SPARSEGEN_VECTOR_BYTES)));

// Vectors of targets whose numbers fit the lowest bits of a score: whole tiles.
constexpr index_t kNumberBits = 6;
constexpr std::int32_t kNumberMask = (1 << kNumberBits) - 1;
constexpr index_t kSpanTiles = (index_t{1} << kNumberBits) / kScoreVectors;
// Targets that stay in the first-level cache while points go over them.
constexpr index_t kNearBytes = 1 << 14;
constexpr index_t kMirrorRows = 16;
// Below every score, yet finite: numbers in its lowest bits do not make it a NaN.
constexpr float kNever = -1e37f;

template <int G>
inline __attribute__((always_inline)) void walsh_hadamard(Vec<float> (&p)[G]) {
#pragma GCC unroll 4
    for (int half = 1; half < G; half *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < G; ++i) {
            if ((i & half) == 0) {
                const Vec<float> a = p[i], b = p[i + half];
                p[i] = a + b;
                p[i + half] = a - b;
            }
        }
    }
}

inline __attribute__((always_inline)) Vec<float> numbered(Vec<float> score, Bits number) {
    return (Vec<float>)(((Bits)score & ~kNumberMask) | number);
}

// Folds the scores of all images of x against tiles [begin, end) into best (2 G vectors).
template <int G>
inline void mirror_scores(const float* x, index_t dim, const float* packed, const float* heights, index_t first,
                          index_t begin, index_t end, Vec<float>* best) {
    for (index_t t = begin; t < end; ++t) {
        for (index_t v = 0; v < kScoreVectors; ++v) {
            const float* y = packed + t * dim * kScoreTile<float> + v * kLanes<float>;
            const Vec<float> height = load(heights + t * kScoreTile<float> + v * kLanes<float>);
            Vec<float> p[G];
#pragma GCC unroll 16
            for (int g = 0; g < G; ++g) p[g] = load(y + g * kScoreTile<float>) * x[g];
            index_t j = G;
            for (; j + G <= dim; j += G) {
#pragma GCC unroll 16
                for (int g = 0; g < G; ++g) {
                    p[g] = muladd(load(y + (j + g) * kScoreTile<float>), broadcast(x[j + g]), p[g]);
                }
            }
#pragma GCC unroll 16
            for (int g = 0; g < G; ++g) {
                if (j + g < dim) p[g] = muladd(load(y + (j + g) * kScoreTile<float>), broadcast(x[j + g]), p[g]);
            }
            // every image but the negatives has the first group as it is
            p[0] += height;
            walsh_hadamard<G>(p);
            const Vec<float> twice = height + height;
            const Bits number = (std::int32_t)((t - first) * kScoreVectors + v) - Bits{};
#pragma GCC unroll 16
            for (int g = 0; g < G; ++g) {
                best[g] = greatest<float>(numbered(p[g], number), best[g]);
                best[G + g] = greatest<float>(numbered(twice - p[g], number), best[G + g]);
            }
        }
    }
}

template <int G>
inline void mirror_rows(const float* x, index_t count, index_t dim, const float* packed, const float* heights,
                        index_t tiles, std::int32_t* cells, float* scores) {
    constexpr index_t kImages = 2 * G;
    Vec<float> best[kMirrorRows * kImages];
    index_t near = kNearBytes / (static_cast<index_t>(sizeof(float)) * kScoreTile<float> * dim);
    near = near < 1 ? 1 : near;
    for (index_t first = 0; first < tiles; first += kSpanTiles) {
        const index_t last = first + kSpanTiles < tiles ? first + kSpanTiles : tiles;
        for (index_t i = 0; i < count * kImages; ++i) best[i] = broadcast(kNever);
        for (index_t begin = first; begin < last; begin += near) {
            const index_t end = begin + near < last ? begin + near : last;
            for (index_t r = 0; r < count; ++r) {
                mirror_scores<G>(x + r * dim, dim, packed, heights, first, begin, end, best + r * kImages);
            }
        }
        for (index_t i = 0; i < count * kImages; ++i) {
            const float value = -smallest_lane<float>(-best[i]);
            if (first > 0 && !(value > scores[i])) continue;
            std::int32_t bits;
            __builtin_memcpy(&bits, &value, sizeof(bits));
            const index_t vector = first * kScoreVectors + (bits & kNumberMask);
            const index_t lane = __builtin_ctz(equal_lanes<float>(best[i], broadcast(value)));
            cells[i] = static_cast<std::int32_t>(vector * kLanes<float> + lane);
            scores[i] = value;
        }
    }
}

template <typename F>
inline void with_groups(index_t groups, F&& body) {
    if (groups == 16) return body(std::integral_constant<int, 16>{});
    if (groups == 8) return body(std::integral_constant<int, 8>{});
    return body(std::integral_constant<int, 4>{});
}

// Heights of whole tiles; padding never wins.
inline void raise_heights(const float* heights, index_t n, index_t tiles, float* raised) {
    for (index_t j = 0; j < tiles * kScoreTile<float>; ++j) raised[j] = j < n ? heights[j] : kNever;
}

inline void mirror_search(const float* x, const float* packed, const float* raised, index_t m, index_t tiles,
                          index_t dim, index_t groups, std::int32_t* cells, float* scores, index_t threads) {
    const index_t images = 2 * groups;
    const double cost = static_cast<double>(m * tiles * kScoreTile<float>) * static_cast<double>(images) * 0.1;
    with_groups(groups, [&](auto g) {
        parallel_for((m + kMirrorRows - 1) / kMirrorRows, threads, cost, [&](index_t begin, index_t end) {
            for (index_t block = begin; block < end; ++block) {
                const index_t start = block * kMirrorRows;
                const index_t count = start + kMirrorRows < m ? kMirrorRows : m - start;
                mirror_rows<g.value>(x + start * dim, count, dim, packed, raised, tiles, cells + start * images,
                                     scores + start * images);
            }
        });
    });
}

MirrorCellsFn mirror_cells;
void mirror_cells(const float* x, const float* packed, const float* heights, index_t m, index_t n, index_t dim,
                  index_t groups, std::int32_t* cells, float* scores, index_t threads) {
    const index_t tiles = (n + kScoreTile<float> - 1) / kScoreTile<float>;
    Buffer<float> raised(tiles * kScoreTile<float>);
    raise_heights(heights, n, tiles, raised.data());
    mirror_search(x, packed, raised.data(), m, tiles, dim, groups, cells, scores, threads);
}

MirrorSumsFn mirror_sums;
void mirror_sums(const float* x, const float* signs, const std::int32_t* cells, index_t m, index_t dim, index_t images,
                 float* sums) {
    for (index_t i = 0; i < m; ++i) {
        for (index_t k = 0; k < images; ++k) {
            float* sum = sums + cells[i * images + k] * dim;
            for (index_t j = 0; j < dim; ++j) sum[j] += signs[k * dim + j] * x[i * dim + j];
        }
    }
}

MirrorDescendFn mirror_descend;
void mirror_descend(const float* x, const float* packed, const float* weights, index_t steps, index_t rows,
                    index_t n, index_t dim, index_t groups, const float* lengths, const float* rates,
                    float* iterate, float* average, index_t threads) {
    const index_t tiles = (n + kScoreTile<float> - 1) / kScoreTile<float>, images = rows * 2 * groups;
    Buffer<float> raised(tiles * kScoreTile<float>), scores(images), excess(n);
    Buffer<std::int32_t> cells(images);
    const float each = 1.0f / static_cast<float>(images);
    for (index_t s = 0; s < steps; ++s) {
        raise_heights(iterate, n, tiles, raised.data());
        mirror_search(x + s * rows * dim, packed, raised.data(), rows, tiles, dim, groups, cells.data(), scores.data(),
                      threads);
        for (index_t j = 0; j < n; ++j) excess[j] = -weights[j];
        for (index_t i = 0; i < images; ++i) excess[cells[i]] += each;
        const float length = lengths[s], rate = rates[s];
        for (index_t j = 0; j < n; ++j) {
            iterate[j] -= length * excess[j];
            average[j] += (iterate[j] - average[j]) * rate;
        }
    }
}

}  // namespace sparsegen::SPARSEGEN_ISA
