// All-pairs Chamfer distances: mean distance to the nearest point, both ways, of every cloud of A to every one of B.
#pragma once

#include "kernels/distance.inl"
#include "kernels/leaves.inl"

namespace sparsegen::SPARSEGEN_ISA {

// Columns of one pass: three axes and the column minima fit the first-level cache.
constexpr index_t kChamferColumns = 2048;

// Mean over the first n values, or of their roots; 0 of nothing.
template <typename T>
inline double mean_distance(const T* squares, index_t n, bool squared) {
    double sum = 0;
    for (index_t i = 0; i < n; ++i) {
        const double value = static_cast<double>(squares[i]);
        sum += squared ? value : __builtin_sqrt(value);
    }
    return n > 0 ? sum / static_cast<double>(n) : 0;
}

// Squared distances to the nearest point of the other cloud, for n rows and for the columns of a packed event.
template <typename T, typename M>
inline void cloud_minima(const M& metric, const T* points, index_t n, const T* targets, index_t width, T* row_best,
                         T* column_best) {
    const T infinity = static_cast<T>(__builtin_inf());
    for (index_t r = 0; r < n; ++r) row_best[r] = infinity;
    for (index_t c = 0; c < width; ++c) column_best[c] = infinity;
    for (index_t begin = 0; begin < width; begin += kChamferColumns) {
        const index_t end = begin + kChamferColumns < width ? begin + kChamferColumns : width;
        for (index_t r = 0; r < n; r += kStep) {
            const T* x[kStep];
            rows_at(points, metric.dim, r, n, x);
            Vec<T> minima[kStep];
            tile_minima<T, true, true>(metric, x, targets, width, begin, end, minima, column_best + begin);
            for (index_t i = 0; i < kStep && r + i < n; ++i) {
                row_best[r + i] = least<T>(smallest_lane<T>(minima[i]), row_best[r + i]);
            }
        }
    }
}

// Fills both matrices by pair(i, j, forward, backward) for all pairs, or for i < j if `symmetric`.
template <typename Scratch, typename Pair>
inline void all_pairs(index_t a_count, index_t b_count, bool symmetric, double* forward, double* backward, double cost,
                      index_t threads, Pair pair) {
    parallel_for(a_count * b_count, threads, cost, [&](index_t begin, index_t end) {
        Scratch scratch;
        for (index_t item = begin; item < end; ++item) {
            const index_t i = item / b_count, j = item % b_count;
            if (symmetric && j <= i) {
                if (j == i) forward[item] = backward[item] = 0;
                continue;
            }
            pair(i, j, scratch, forward + item, backward + item);
            if (symmetric) {
                forward[j * b_count + i] = backward[item];
                backward[j * b_count + i] = forward[item];
            }
        }
    });
}

// Scratch of one thread for comparing all points of two clouds.
template <typename T>
struct CloudScratch {
    Buffer<T> row_best, column_best;
};

// From this many points a cloud on, in so many dimensions, looking for what can be skipped pays.
constexpr index_t kLeafPoints = 256;
constexpr index_t kLeafDim = 6;

// forward[i, j]: mean over a_i of the distance to b_j; backward[i, j]: the other way. A cloud without points is at
// distance 0 of every other, and at infinity seen from one that has points. `symmetric`: b is a, half is computed.
template <typename T>
inline void chamfer_pairs(const T* a, const index_t* a_offsets, index_t a_count, const T* b, const index_t* b_offsets,
                          index_t b_count, index_t dim, const T* period, index_t squared, index_t symmetric,
                          double* forward, double* backward, index_t threads) {
    const double points_a = static_cast<double>(a_offsets[a_count]), points_b = static_cast<double>(b_offsets[b_count]);
    const double cost = distance_cost<T>(points_a * points_b, dim);
    const bool sparse = period == nullptr && dim <= kLeafDim && a_offsets[a_count] >= kLeafPoints * a_count &&
                        b_offsets[b_count] >= kLeafPoints * b_count;
    auto write = [&](const T* rows, index_t i, const T* columns, index_t j, double* there, double* back) {
        *there = mean_distance(rows, a_offsets[i + 1] - a_offsets[i], squared != 0);
        *back = mean_distance(columns, b_offsets[j + 1] - b_offsets[j], squared != 0);
    };
    with_metric<T>(dim, period, [&](const auto& metric) {
        using M = std::remove_cv_t<std::remove_reference_t<decltype(metric)>>;
        if (sparse) {
            Leaves<T> leaves_a(a, a_offsets, a_count, dim, threads), leaves_b(b, b_offsets, b_count, dim, threads);
            Packed<T> packed(leaves_b.points(0), leaves_b.starts(), b_count, dim);
            all_pairs<LeafScratch<T>>(
                a_count, b_count, symmetric != 0, forward, backward, cost, threads,
                [&](index_t i, index_t j, LeafScratch<T>& scratch, double* there, double* back) {
                    LeafPair<T, M> pair(metric, leaves_a, i, leaves_b, j, packed.event(j), packed.width(j), scratch);
                    pair.run();
                    write(pair.row_best(), i, pair.column_best(), j, there, back);
                });
        } else {
            Packed<T> packed(b, b_offsets, b_count, dim);
            all_pairs<CloudScratch<T>>(
                a_count, b_count, symmetric != 0, forward, backward, cost, threads,
                [&](index_t i, index_t j, CloudScratch<T>& scratch, double* there, double* back) {
                    const index_t n = a_offsets[i + 1] - a_offsets[i];
                    T* rows = scratch.row_best.grow(n + 1);
                    T* columns = scratch.column_best.grow(packed.width(j) + 1);
                    cloud_minima(metric, a + a_offsets[i] * dim, n, packed.event(j), packed.width(j), rows, columns);
                    write(rows, i, columns, j, there, back);
                });
        }
    });
}

ChamferFn<float> chamfer_f32;
void chamfer_f32(const float* a, const index_t* a_offsets, index_t a_count, const float* b, const index_t* b_offsets,
                 index_t b_count, index_t dim, const float* period, index_t squared, index_t symmetric,
                 double* forward, double* backward, index_t threads) {
    chamfer_pairs<float>(a, a_offsets, a_count, b, b_offsets, b_count, dim, period, squared, symmetric, forward,
                         backward, threads);
}

ChamferFn<double> chamfer_f64;
void chamfer_f64(const double* a, const index_t* a_offsets, index_t a_count, const double* b,
                 const index_t* b_offsets, index_t b_count, index_t dim, const double* period, index_t squared,
                 index_t symmetric, double* forward, double* backward, index_t threads) {
    chamfer_pairs<double>(a, a_offsets, a_count, b, b_offsets, b_count, dim, period, squared, symmetric, forward,
                          backward, threads);
}

}  // namespace sparsegen::SPARSEGEN_ISA
