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
// Points whose maxima stay there with them.
constexpr index_t kMirrorRows = 8;
// Points whose products are made side by side, where a group has that many coordinates.
constexpr int kTogether = 4;
constexpr index_t kTogetherFrom = 3;
// Below every score, yet finite: numbers in its lowest bits do not make it a NaN.
constexpr float kNever = -1e37f;

template <int G>
inline SPARSEGEN_INLINE void walsh_hadamard(Vec<float> (&p)[G]) {
    steps<4>([&](auto s) SPARSEGEN_INLINE {
        constexpr int half = 1 << s.value;
        if constexpr (half < G) {
            steps<G>([&](auto i) SPARSEGEN_INLINE {
                if constexpr ((i.value & half) == 0) {
                    const Vec<float> a = p[i.value], b = p[i.value + half];
                    p[i.value] = a + b;
                    p[i.value + half] = a - b;
                }
            });
        }
    });
}

inline SPARSEGEN_INLINE Vec<float> numbered(Vec<float> score, Bits number) {
#if SPARSEGEN_VECTOR_BYTES == 64
    // the truth table of (score & ~mask) | number
    const __m512i mask = _mm512_set1_epi32(kNumberMask);
    return (Vec<float>)_mm512_ternarylogic_epi32((__m512i)score, mask, (__m512i)number, 0xBA);
#else
    return (Vec<float>)(((Bits)score & ~kNumberMask) | number);
#endif
}

// Folds the scores of all images of a point into best (2 G vectors); p holds the G sums of one vector of targets.
template <int G>
inline SPARSEGEN_INLINE void fold_images(Vec<float> (&p)[G], Vec<float> height, index_t number,
                                                       Vec<float>* best) {
    // every image but the negatives has the first group as it is
    p[0] += height;
    walsh_hadamard<G>(p);
    const Vec<float> twice = height + height;
    const Bits bits = (std::int32_t)number - Bits{};
    steps<G>([&](auto g) SPARSEGEN_INLINE {
        best[g.value] = greatest<float>(numbered(p[g.value], bits), best[g.value]);
        best[G + g.value] = greatest<float>(numbered(twice - p[g.value], bits), best[G + g.value]);
    });
}

// Folds the scores of all images of x against tiles [begin, end) into best.
template <int G>
inline void mirror_scores(const float* x, index_t dim, const float* packed, const float* heights, index_t first,
                          index_t begin, index_t end, Vec<float>* best) {
    for (index_t t = begin; t < end; ++t) {
        for (index_t v = 0; v < kScoreVectors; ++v) {
            const float* y = packed + t * dim * kScoreTile<float> + v * kLanes<float>;
            Vec<float> p[G];
            steps<G>([&](auto g) SPARSEGEN_INLINE { p[g.value] = load(y + g.value * kScoreTile<float>) * x[g.value]; });
            index_t j = G;
            for (; j + G <= dim; j += G) {
                steps<G>([&](auto g) SPARSEGEN_INLINE {
                    const index_t k = j + g.value;
                    p[g.value] = muladd(load(y + k * kScoreTile<float>), broadcast(x[k]), p[g.value]);
                });
            }
            if (j < dim) {
                steps<G>([&](auto g) SPARSEGEN_INLINE {
                    const index_t k = j + g.value;
                    if (k < dim) p[g.value] = muladd(load(y + k * kScoreTile<float>), broadcast(x[k]), p[g.value]);
                });
            }
            const Vec<float> height = load(heights + t * kScoreTile<float> + v * kLanes<float>);
            fold_images<G>(p, height, (t - first) * kScoreVectors + v, best);
        }
    }
}

// The same for kTogether points: a coordinate of the targets is loaded once for all points, one of a point once for all
// vectors of a tile; the sums go through memory. Worth it where groups have several coordinates.
template <int G>
inline void mirror_scores_together(const float* x, index_t dim, const float* packed, const float* heights,
                                   index_t first, index_t begin, index_t end, Vec<float>* best) {
    Vec<float> sums[kTogether * kScoreVectors * G];
    for (index_t t = begin; t < end; ++t) {
        const float* tile = packed + t * dim * kScoreTile<float>;
        for (int g = 0; g < G; ++g) {
            Vec<float> sum[kTogether * kScoreVectors] = {};
            for (index_t j = g; j < dim; j += G) {
                Vec<float> y[kScoreVectors];
                steps<kScoreVectors>([&](auto v) SPARSEGEN_INLINE {
                    y[v.value] = load(tile + j * kScoreTile<float> + v.value * kLanes<float>);
                });
                steps<kTogether>([&](auto r) SPARSEGEN_INLINE {
                    const Vec<float> point = broadcast(x[r.value * dim + j]);
                    steps<kScoreVectors>([&](auto v) SPARSEGEN_INLINE {
                        constexpr int at = r.value * kScoreVectors + v.value;
                        sum[at] = muladd(point, y[v.value], sum[at]);
                    });
                });
            }
            steps<kTogether * kScoreVectors>([&](auto i) SPARSEGEN_INLINE { sums[i.value * G + g] = sum[i.value]; });
        }
        for (int i = 0; i < kTogether * kScoreVectors; ++i) {
            const index_t r = i / kScoreVectors, v = i % kScoreVectors;
            Vec<float> p[G];
            steps<G>([&](auto g) SPARSEGEN_INLINE { p[g.value] = sums[i * G + g.value]; });
            const Vec<float> height = load(heights + t * kScoreTile<float> + v * kLanes<float>);
            fold_images<G>(p, height, (t - first) * kScoreVectors + v, best + r * 2 * G);
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
            index_t r = 0;
            for (; dim >= kTogetherFrom * G && r + kTogether <= count; r += kTogether) {
                mirror_scores_together<G>(x + r * dim, dim, packed, heights, first, begin, end, best + r * kImages);
            }
            for (; r < count; ++r) {
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
