// Nearest neighbours in ragged batches, one direction or both in one pass.
//
// The pass keeps only minima and the tile they were seen in; the index is then found by going through that one tile
// again, where the same arithmetic gives the same bits. Ties go to the lowest index.
#pragma once

#include "kernels/distance.inl"

namespace sparsegen::SPARSEGEN_ISA {

// Where the result of one direction goes: index into the flat targets, squared distance.
template <typename T>
struct Found {
    index_t* index;
    T* squared;

    inline void set(index_t i, index_t at, T value) const {
        index[i] = at;
        squared[i] = value;
    }
};

// Nearest targets of queries [first, last) of one event and, if Both (then the range is the whole event), nearest
// queries of its targets.
template <typename T, bool Both, typename M>
inline void nearest_in_event(const M& metric, const T* queries, const T* packed_queries, index_t query_width,
                             index_t first, index_t last, index_t query_start, const T* targets,
                             const T* packed_targets, index_t target_width, index_t m, index_t target_start,
                             Found<T> to_target, Found<T> to_query, Buffer<T>& scratch) {
    const T infinity = static_cast<T>(__builtin_inf());
    const index_t dim = metric.dim;
    Vec<T> best[kRows], best_tile[kRows];
    T tile_columns[kColumns];
    T* column_best = nullptr;
    T* column_tile = nullptr;
    if constexpr (Both) {
        column_best = scratch.grow(2 * target_width);
        column_tile = column_best + target_width;
        for (index_t c = 0; c < target_width; ++c) {
            column_best[c] = infinity;
            column_tile[c] = 0;
        }
    }
    for (index_t block = first; block < last; block += kRows) {
        const index_t block_end = block + kRows < last ? block + kRows : last;
        for (index_t r = 0; r < kRows; ++r) {
            best[r] = broadcast(infinity);
            best_tile[r] = Vec<T>{};
        }
        for (index_t begin = 0; begin < target_width; begin += kColumns) {
            const index_t end = begin + kColumns < target_width ? begin + kColumns : target_width;
            const Vec<T> tile = broadcast(static_cast<T>(begin / kColumns));
            if constexpr (Both) {
                for (index_t c = 0; c < end - begin; ++c) tile_columns[c] = infinity;
            }
            for (index_t r = block; r < block_end; r += kStep) {
                const T* x[kStep];
                rows_at(queries, dim, r, last, x);
                Vec<T> minima[kStep];
                tile_minima<T, Both, false>(metric, x, packed_targets, target_width, begin, end, minima, tile_columns);
                for (int i = 0; i < kStep; ++i) {
                    const index_t slot = r - block + i;
                    best_tile[slot] = minima[i] < best[slot] ? tile : best_tile[slot];
                    best[slot] = least(minima[i], best[slot]);
                }
            }
            if constexpr (Both) {
                const Vec<T> here = broadcast(static_cast<T>(block / kRows));
                for (index_t c = begin; c < end; c += kLanes<T>) {
                    const Vec<T> now = load(tile_columns + c - begin), before = load(column_best + c);
                    store<T>(column_tile + c, now < before ? here : load(column_tile + c));
                    store<T>(column_best + c, least(now, before));
                }
            }
        }
        for (index_t r = block; r < block_end; ++r) {
            const Vec<T> values = best[r - block];
            const T value = smallest_lane<T>(values);
            index_t at = 0;
            if (value < infinity) {
                index_t begin = 0;
                if (target_width > kColumns) {
                    const Vec<T> none = broadcast(infinity);
                    const Vec<T> tiles = values == value ? best_tile[r - block] : none;
                    begin = static_cast<index_t>(smallest_lane<T>(tiles)) * kColumns;
                }
                const index_t end = begin + kColumns < target_width ? begin + kColumns : target_width;
                at = metric.find(queries + r * dim, packed_targets, target_width, begin, end, value);
                to_target.set(query_start + r, target_start + at, value);
            } else {
                // Every distance is infinite or NaN: the first target, and its distance as it is.
                to_target.set(query_start + r, target_start, metric.squared(queries + r * dim, targets));
            }
        }
    }
    if constexpr (Both) {
        for (index_t c = 0; c < m; ++c) {
            const T value = column_best[c];
            if (value < infinity) {
                const index_t begin = static_cast<index_t>(column_tile[c]) * kRows;
                const index_t end = begin + kRows < query_width ? begin + kRows : query_width;
                const index_t at = metric.find(targets + c * dim, packed_queries, query_width, begin, end, value);
                to_query.set(target_start + c, query_start + at, value);
            } else {
                to_query.set(target_start + c, query_start, metric.squared(targets + c * dim, queries));
            }
        }
    }
}

// One direction: items are blocks of queries, so that one large event still uses every thread.
template <typename T, typename M>
inline void nearest_one_way(const M& metric, const T* queries, const index_t* query_offsets, const T* targets,
                            const index_t* target_offsets, index_t events, double cost, index_t threads,
                            Found<T> found) {
    constexpr index_t kBlock = 8 * kRows;
    Packed<T> packed(targets, target_offsets, events, metric.dim);
    Buffer<index_t> starts(events + 1);
    starts[0] = 0;
    for (index_t e = 0; e < events; ++e) {
        starts[e + 1] = starts[e] + (query_offsets[e + 1] - query_offsets[e] + kBlock - 1) / kBlock;
    }
    parallel_for(starts[events], threads, cost, [&](index_t begin, index_t end) {
        Buffer<T> scratch;
        index_t e = 0;
        while (starts[e + 1] <= begin) ++e;
        for (index_t item = begin; item < end; ++item) {
            while (starts[e + 1] <= item) ++e;
            const index_t n = query_offsets[e + 1] - query_offsets[e], m = target_offsets[e + 1] - target_offsets[e];
            const index_t first = (item - starts[e]) * kBlock, last = first + kBlock < n ? first + kBlock : n;
            if (m == 0) {
                for (index_t r = first; r < last; ++r) {
                    found.set(query_offsets[e] + r, -1, static_cast<T>(__builtin_inf()));
                }
                continue;
            }
            nearest_in_event<T, false>(metric, queries + query_offsets[e] * metric.dim, nullptr, 0, first, last,
                                       query_offsets[e], targets + target_offsets[e] * metric.dim, packed.event(e),
                                       packed.width(e), m, target_offsets[e], found, Found<T>{}, scratch);
        }
    });
}

// Both directions at once: items are events.
template <typename T, typename M>
inline void nearest_both_ways(const M& metric, const T* queries, const index_t* query_offsets, const T* targets,
                              const index_t* target_offsets, index_t events, double cost, index_t threads,
                              Found<T> to_target, Found<T> to_query) {
    Packed<T> packed_queries(queries, query_offsets, events, metric.dim);
    Packed<T> packed_targets(targets, target_offsets, events, metric.dim);
    parallel_for(events, threads, cost, [&](index_t begin, index_t end) {
        Buffer<T> scratch;
        for (index_t e = begin; e < end; ++e) {
            const index_t n = query_offsets[e + 1] - query_offsets[e], m = target_offsets[e + 1] - target_offsets[e];
            if (n == 0 || m == 0) {
                const T infinity = static_cast<T>(__builtin_inf());
                for (index_t r = 0; r < n; ++r) to_target.set(query_offsets[e] + r, -1, infinity);
                for (index_t c = 0; c < m; ++c) to_query.set(target_offsets[e] + c, -1, infinity);
                continue;
            }
            nearest_in_event<T, true>(metric, queries + query_offsets[e] * metric.dim, packed_queries.event(e),
                                      packed_queries.width(e), 0, n, query_offsets[e],
                                      targets + target_offsets[e] * metric.dim, packed_targets.event(e),
                                      packed_targets.width(e), m, target_offsets[e], to_target, to_query, scratch);
        }
    });
}

// Nearest target of every query and, unless target_index is null, nearest query of every target.
//
// queries (N, dim) and targets (M, dim) are row-major; offsets (events + 1). period (dim,) holds 0 where an axis does
// not wrap, or is null. Indices point into the flat arrays. An event without candidates gives -1 and infinity.
template <typename T>
inline void nearest(const T* queries, const index_t* query_offsets, const T* targets, const index_t* target_offsets,
                    index_t events, index_t dim, const T* period, index_t* query_index, T* query_squared,
                    index_t* target_index, T* target_squared, index_t threads) {
    const Found<T> to_target{query_index, query_squared}, to_query{target_index, target_squared};
    double pairs = 0;
    for (index_t e = 0; e < events; ++e) {
        pairs += static_cast<double>(query_offsets[e + 1] - query_offsets[e]) *
                 static_cast<double>(target_offsets[e + 1] - target_offsets[e]);
    }
    const double cost = distance_cost<T>(pairs, dim);
    with_metric<T>(dim, period, [&](const auto& metric) {
        if (target_index == nullptr) {
            nearest_one_way<T>(metric, queries, query_offsets, targets, target_offsets, events, cost, threads,
                               to_target);
        } else if (events >= threads || cost < kThreadCost) {
            nearest_both_ways<T>(metric, queries, query_offsets, targets, target_offsets, events, cost, threads,
                                 to_target, to_query);
        } else {
            // Fewer events than threads: the same bits, each direction split over blocks of points.
            nearest_one_way<T>(metric, queries, query_offsets, targets, target_offsets, events, cost, threads,
                               to_target);
            nearest_one_way<T>(metric, targets, target_offsets, queries, query_offsets, events, cost, threads,
                               to_query);
        }
    });
}

NearestFn<float> nearest_f32;
void nearest_f32(const float* queries, const index_t* query_offsets, const float* targets,
                 const index_t* target_offsets, index_t events, index_t dim, const float* period,
                 index_t* query_index, float* query_squared, index_t* target_index, float* target_squared,
                 index_t threads) {
    nearest<float>(queries, query_offsets, targets, target_offsets, events, dim, period, query_index, query_squared,
                   target_index, target_squared, threads);
}

NearestFn<double> nearest_f64;
void nearest_f64(const double* queries, const index_t* query_offsets, const double* targets,
                 const index_t* target_offsets, index_t events, index_t dim, const double* period,
                 index_t* query_index, double* query_squared, index_t* target_index, double* target_squared,
                 index_t threads) {
    nearest<double>(queries, query_offsets, targets, target_offsets, events, dim, period, query_index, query_squared,
                    target_index, target_squared, threads);
}

}  // namespace sparsegen::SPARSEGEN_ISA
