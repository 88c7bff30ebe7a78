// Minima between two clouds that skip what cannot matter: points in compact leaves, boxes around the leaves, and the
// distance between boxes as a lower bound. The minima are those of comparing all pairs, to the last bit.
#pragma once

#include "kernels/distance.inl"
#include "order.hpp"

namespace sparsegen::SPARSEGEN_ISA {

constexpr index_t kLeaf = 16;

// Clouds with their points in leaf order; the last leaf of a cloud is filled up with its last point.
template <typename T>
class Leaves {
  public:
    Leaves(const T* points, const index_t* offsets, index_t clouds, index_t dim, index_t threads)
        : dim_(dim), starts_(clouds + 1), box_starts_(clouds + 1) {
        starts_[0] = box_starts_[0] = 0;
        for (index_t c = 0; c < clouds; ++c) {
            const index_t leaves = (offsets[c + 1] - offsets[c] + kLeaf - 1) / kLeaf;
            starts_[c + 1] = starts_[c] + leaves * kLeaf;
            box_starts_[c + 1] = box_starts_[c] + 2 * dim * padded<T>(leaves);
        }
        points_.grow(starts_[clouds] * dim + 1);
        boxes_.grow(box_starts_[clouds] + 1);
        const double cost = 60.0 * static_cast<double>(offsets[clouds]);
        parallel_for(clouds, threads, cost, [&](index_t begin, index_t end) {
            Buffer<index_t> order;
            for (index_t c = begin; c < end; ++c) {
                prepare(c, points + offsets[c] * dim, offsets[c + 1] - offsets[c], order);
            }
        });
    }
    const index_t* starts() { return starts_.data(); }
    const T* points(index_t c) { return points_.data() + starts_[c] * dim_; }
    index_t count(index_t c) { return (starts_[c + 1] - starts_[c]) / kLeaf; }
    index_t stride(index_t c) { return padded<T>(count(c)); }
    // Lower and upper ends of the boxes along axis d, one a leaf, padded to whole vectors with empty boxes at infinity.
    T* low(index_t c, index_t d) { return boxes_.data() + box_starts_[c] + 2 * d * stride(c); }
    T* high(index_t c, index_t d) { return low(c, d) + stride(c); }

  private:
    void prepare(index_t c, const T* from, index_t n, Buffer<index_t>& order) {
        compact_order(from, n, dim_, kLeaf, order.grow(n));
        T* to = points_.data() + starts_[c] * dim_;
        for (index_t i = 0; i < count(c) * kLeaf; ++i) {
            const T* point = from + order[i < n ? i : n - 1] * dim_;
            for (index_t d = 0; d < dim_; ++d) to[i * dim_ + d] = point[d];
        }
        const T infinity = static_cast<T>(__builtin_inf());
        for (index_t d = 0; d < dim_; ++d) {
            for (index_t leaf = 0; leaf < stride(c); ++leaf) {
                T low = infinity, high = leaf < count(c) ? -infinity : infinity;
                for (index_t i = 0; leaf < count(c) && i < kLeaf; ++i) {
                    const T x = to[(leaf * kLeaf + i) * dim_ + d];
                    low = x < low ? x : low;
                    high = x > high ? x : high;
                }
                this->low(c, d)[leaf] = low;
                this->high(c, d)[leaf] = high;
            }
        }
    }

    index_t dim_;
    Buffer<index_t> starts_, box_starts_;
    Buffer<T> points_, boxes_;
};

// Minima of the rows of one leaf over the columns of another, and the other way.
template <typename T, typename M>
inline void leaf_minima(const M& metric, const T* rows, const T* targets, index_t width, index_t begin,
                        Vec<T>* row_minima, T* column_minima) {
    for (index_t c = begin; c < begin + kLeaf; c += kLanes<T>) {
        Vec<T> column = load(column_minima + c);
        for (index_t r = 0; r < kLeaf; r += kStep) {
            const T* x[kStep];
            Vec<T> squares[kStep];
            for (index_t i = 0; i < kStep; ++i) x[i] = rows + (r + i) * metric.dim;
            metric.template squared<kStep, true>(x, targets, width, c, squares);
            for (index_t i = 0; i < kStep; ++i) {
                row_minima[r + i] = least(squares[i], row_minima[r + i]);
                column = least(squares[i], column);
            }
        }
        store<T>(column_minima + c, column);
    }
}

// Scratch of one thread for LeafPair.
template <typename T>
struct LeafScratch {
    Buffer<T> row_best, column_best, column_reach, near, near_row;
};

// The minima between cloud i of a and cloud j of b, whose columns are packed at targets.
template <typename T, typename M>
class LeafPair {
  public:
    LeafPair(const M& metric, Leaves<T>& a, index_t i, Leaves<T>& b, index_t j, const T* targets, index_t width,
             LeafScratch<T>& scratch)
        : metric_(metric), a_(a), i_(i), b_(b), j_(j), targets_(targets), width_(width),
          row_best_(scratch.row_best.grow(a.count(i) * kLeaf + 1)), column_best_(scratch.column_best.grow(width + 1)),
          reach_(scratch.column_reach.grow(b.stride(j) + 1)), near_(scratch.near.grow(b.stride(j) + 1)),
          near_row_(scratch.near_row.grow(b.stride(j) + 1)) {}

    // Fills row_best() and column_best(); both in leaf order.
    void run() {
        const T infinity = static_cast<T>(__builtin_inf());
        const index_t leaves = a_.count(i_), columns = b_.count(j_);
        for (index_t r = 0; r < leaves * kLeaf; ++r) row_best_[r] = infinity;
        for (index_t c = 0; c < width_; ++c) column_best_[c] = infinity;
        for (index_t c = 0; c < b_.stride(j_); ++c) {
            near_[c] = infinity;
            near_row_[c] = 0;
            reach_[c] = 0;
        }
        if (leaves == 0 || columns == 0) return;
        // First every leaf meets the leaf whose centre is nearest: that bounds how far it need look.
        for (index_t leaf = 0; leaf < leaves; ++leaf) meet(leaf, nearest_leaf(leaf));
        for (index_t c = 0; c < columns; ++c) meet(static_cast<index_t>(near_row_[c]), c);
        for (index_t c = 0; c < columns; ++c) reach_[c] = farthest(column_best_ + c * kLeaf);
        // Then all others whose boxes are within the reach of one of the two.
        for (index_t leaf = 0; leaf < leaves; ++leaf) search(leaf);
    }
    const T* row_best() const { return row_best_; }
    const T* column_best() const { return column_best_; }

  private:
    static T farthest(const T* values) {
        T worst = values[0];
        for (index_t i = 1; i < kLeaf; ++i) worst = values[i] > worst ? values[i] : worst;
        return worst;
    }

    void load_rows(index_t leaf, Vec<T>* minima) const {
        for (index_t r = 0; r < kLeaf; ++r) minima[r] = broadcast(row_best_[leaf * kLeaf + r]);
    }
    void store_rows(index_t leaf, const Vec<T>* minima) {
        for (index_t r = 0; r < kLeaf; ++r) row_best_[leaf * kLeaf + r] = smallest_lane<T>(minima[r]);
    }
    void tile(index_t leaf, index_t column, Vec<T>* minima) {
        leaf_minima(metric_, a_.points(i_) + leaf * kLeaf * metric_.dim, targets_, width_, column * kLeaf, minima,
                    column_best_);
    }
    void meet(index_t leaf, index_t column) {
        Vec<T> minima[kLeaf];
        load_rows(leaf, minima);
        tile(leaf, column, minima);
        store_rows(leaf, minima);
    }

    // The column leaf whose centre is nearest; notes for each column leaf the nearest row leaf seen.
    index_t nearest_leaf(index_t leaf) {
        const T infinity = static_cast<T>(__builtin_inf());
        Vec<T> best = broadcast(infinity), at = Vec<T>{}, here;
        for (index_t lane = 0; lane < kLanes<T>; ++lane) here[lane] = static_cast<T>(lane);
        const Vec<T> number = broadcast(static_cast<T>(leaf));
        for (index_t c = 0; c < b_.stride(j_); c += kLanes<T>) {
            Vec<T> sum{};
            for (index_t d = 0; d < metric_.dim; ++d) {
                const T middle = a_.low(i_, d)[leaf] + a_.high(i_, d)[leaf];
                const Vec<T> away = load(b_.low(j_, d) + c) + load(b_.high(j_, d) + c) - middle;
                sum += away * away;
            }
            at = sum < best ? here : at;
            best = least(sum, best);
            here += static_cast<T>(kLanes<T>);
            const Vec<T> near = load(near_ + c);
            store<T>(near_row_ + c, sum < near ? number : load(near_row_ + c));
            store<T>(near_ + c, least(sum, near));
        }
        const T value = smallest_lane<T>(best);
        const Vec<T> none = broadcast(infinity);
        const T first = smallest_lane<T>(best == value ? at : none);
        return value < infinity ? static_cast<index_t>(first) : 0;
    }

    void search(index_t leaf) {
        // Distances and bounds are rounded: what is skipped must be farther by more than that.
        constexpr T slack = sizeof(T) == 4 ? T(0.99999) : T(0.9999999999999);
        Vec<T> minima[kLeaf];
        load_rows(leaf, minima);
        const Vec<T> reach = broadcast(farthest(row_best_ + leaf * kLeaf));
        const Vec<T> one = broadcast(T(1)), zero{};
        for (index_t c = 0; c < b_.stride(j_); c += kLanes<T>) {
            Vec<T> bound{};
            for (index_t d = 0; d < metric_.dim; ++d) {
                const Vec<T> above = load(b_.low(j_, d) + c) - a_.high(i_, d)[leaf];
                const Vec<T> below = a_.low(i_, d)[leaf] - load(b_.high(j_, d) + c);
                const Vec<T> gap = above > below ? above : below;
                const Vec<T> outside = gap > zero ? gap : zero;
                bound += outside * outside;
            }
            const Vec<T> column_reach = load(reach_ + c);
            const Vec<T> widest = column_reach > reach ? column_reach : reach;
            unsigned wanted = equal_lanes<T>(bound * slack <= widest ? one : zero, one);
            for (; wanted != 0; wanted &= wanted - 1) {
                const index_t column = c + __builtin_ctz(wanted);
                if (column < b_.count(j_)) tile(leaf, column, minima);
            }
        }
        store_rows(leaf, minima);
    }

    const M& metric_;
    Leaves<T>& a_;
    index_t i_;
    Leaves<T>& b_;
    index_t j_;
    const T* targets_;
    index_t width_;
    T *row_best_, *column_best_, *reach_, *near_, *near_row_;
};

}  // namespace sparsegen::SPARSEGEN_ISA
