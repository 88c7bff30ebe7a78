// Squared distances between points of ragged batches, from differences: exact far from the origin. Shared by
// nearest.inl, chamfer.inl and assignment.inl.
#pragma once

namespace sparsegen::SPARSEGEN_ISA {

// Points of all events with one row per axis ("structure of arrays"), each event padded to whole vectors.
//
// Padding is +infinity, so a padded point is at distance infinity (or NaN) and never the nearest.
template <typename T>
class Packed {
  public:
    Packed(const T* points, const index_t* offsets, index_t events, index_t dim) : dim_(dim), starts_(events + 1) {
        index_t total = 0;
        for (index_t e = 0; e < events; ++e) {
            starts_[e] = total;
            total += padded<T>(offsets[e + 1] - offsets[e]);
        }
        starts_[events] = total;
        data_.grow(total * dim + kLanes<T>);
        for (index_t e = 0; e < events; ++e) {
            const index_t count = offsets[e + 1] - offsets[e], width = padded<T>(count);
            const T* from = points + offsets[e] * dim;
            for (index_t d = 0; d < dim; ++d) {
                T* to = data_.data() + starts_[e] * dim + d * width;
                for (index_t i = 0; i < count; ++i) to[i] = from[i * dim + d];
                for (index_t i = count; i < width; ++i) to[i] = static_cast<T>(__builtin_inf());
            }
        }
    }
    // Axis d of event e is at event(e) + d * width(e).
    const T* event(index_t e) { return data_.data() + starts_[e] * dim_; }
    index_t width(index_t e) { return starts_[e + 1] - starts_[e]; }

  private:
    index_t dim_;
    Buffer<index_t> starts_;
    Buffer<T> data_;
};

// Geometry: D axes (0: as many as `dim` says), all of them plain or some periodic (period 0: not periodic).
template <typename T, int D, bool Periodic>
struct Metric {
    index_t dim;
    const T* period;   // (dim,), 0 where the axis does not wrap; unused unless Periodic
    const T* inverse;  // 1 / period, 0 where the axis does not wrap

    // Squared distances of R points (x[r] points to dim coordinates) to the targets at column c of a packed event.
    // Bit for bit the same on every instruction set, unless Fused: then quicker, and rounded once less an axis.
    template <int R, bool Fused = false>
    inline void squared(const T* const* x, const T* targets, index_t width, index_t c, Vec<T>* out) const {
        const index_t axes = D > 0 ? D : dim;
        for (int r = 0; r < R; ++r) out[r] = Vec<T>{};
        for (index_t d = 0; d < axes; ++d) {
            const Vec<T> y = load(targets + d * width + c);
            for (int r = 0; r < R; ++r) {
                Vec<T> difference = y - x[r][d];
                if constexpr (Periodic) difference -= nearest_integer<T>(difference * inverse[d]) * period[d];
                out[r] = Fused ? muladd(difference, difference, out[r]) : out[r] + difference * difference;
            }
        }
    }

    // First column in [begin, end) whose squared distance to x equals `value`; `begin` if there is none.
    inline index_t find(const T* x, const T* targets, index_t width, index_t begin, index_t end, T value) const {
        for (index_t c = begin; c < end; c += kLanes<T>) {
            Vec<T> squares[1];
            squared<1>(&x, targets, width, c, squares);
            const unsigned hits = equal_lanes<T>(squares[0], broadcast(value));
            if (hits != 0) return c + __builtin_ctz(hits);
        }
        return begin;
    }

    // The squared distance of one pair, rounded as above.
    inline T squared(const T* x, const T* y) const {
        const index_t axes = D > 0 ? D : dim;
        T sum = 0;
        for (index_t d = 0; d < axes; ++d) {
            T difference = y[d] - x[d];
            if constexpr (Periodic) {
                difference -= nearest_integer<T>(broadcast<T>(difference * inverse[d]))[0] * period[d];
            }
            sum += difference * difference;
        }
        return sum;
    }
};

// Calls body(metric) with the Metric for dim and period (null: no axis is periodic). Only the common case of float
// points in the plane and in space has code of its own: each case is compiled once more per instruction set.
template <typename T, typename F>
inline void with_metric(index_t dim, const T* period, F&& body) {
    if (period == nullptr) {
        if constexpr (sizeof(T) == 4) {
            if (dim == 2) return body(Metric<T, 2, false>{dim, nullptr, nullptr});
            if (dim == 3) return body(Metric<T, 3, false>{dim, nullptr, nullptr});
        }
        return body(Metric<T, 0, false>{dim, nullptr, nullptr});
    }
    Buffer<T> inverse(dim);
    for (index_t d = 0; d < dim; ++d) inverse[d] = period[d] > 0 ? 1 / period[d] : 0;
    return body(Metric<T, 0, true>{dim, period, inverse.data()});
}

// Tiles: minima over kColumns columns and kRows rows at a time stay in the first-level cache; kStep rows share a load.
constexpr index_t kColumns = 256;
constexpr index_t kRows = 64;
constexpr int kStep = 4;

// Rows [r, r + kStep) of an event with n points; past the end the last row repeats, which changes no minimum.
template <typename T>
inline void rows_at(const T* points, index_t dim, index_t r, index_t n, const T** x) {
    for (index_t i = 0; i < kStep; ++i) x[i] = points + (r + i < n ? r + i : n - 1) * dim;
}

// Minima of one tile: of each of kStep rows over columns [begin, end), and, if Both, of each column over the rows.
template <typename T, bool Both, bool Fused, typename M>
inline void tile_minima(const M& metric, const T* const* x, const T* targets, index_t width, index_t begin, index_t end,
                        Vec<T>* row_minima, T* column_minima) {
    Vec<T> squares[kStep], minima[kStep];
    for (int r = 0; r < kStep; ++r) minima[r] = broadcast(static_cast<T>(__builtin_inf()));
    for (index_t c = begin; c < end; c += kLanes<T>) {
        metric.template squared<kStep, Fused>(x, targets, width, c, squares);
        for (int r = 0; r < kStep; ++r) minima[r] = least(squares[r], minima[r]);
        if constexpr (Both) {
            Vec<T> column = load(column_minima + c - begin);
            for (int r = 0; r < kStep; ++r) column = least(squares[r], column);
            store(column_minima + c - begin, column);
        }
    }
    for (int r = 0; r < kStep; ++r) row_minima[r] = minima[r];
}

// Nanoseconds one thread takes for `pairs` distances, roughly: only to decide whether threads are worth their start.
template <typename T>
inline double distance_cost(double pairs, index_t dim) {
    return pairs * static_cast<double>(dim + 1) / static_cast<double>(kLanes<T>);
}

}  // namespace sparsegen::SPARSEGEN_ISA
