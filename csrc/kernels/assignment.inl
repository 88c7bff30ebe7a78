// Exact linear assignment for batches of small cost matrices: column reduction, one bid of every free row, then shortest
// augmenting paths (Jonker and Volgenant 1987), rectangular matrices as in Crouse 2016.
#pragma once

#include "kernels/distance.inl"

namespace sparsegen::SPARSEGEN_ISA {

// The solver and its scratch memory: one per thread, used for many matrices.
class Assignment {
  public:
    // Room for n <= m rows; the caller fills row i at row(i)[0 .. m).
    void reset(index_t n, index_t m) {
        n_ = n;
        m_ = m;
        width_ = padded<double>(m);
        cost_.grow(n * width_ + 1);
        column_of_.grow(n + 1);
        row_of_.grow(width_ + 1);
        price_.grow(width_ + 1);
        open_price_.grow(width_ + 1);
        distance_.grow(width_ + 1);
        previous_.grow(width_ + 1);
        scanned_.grow(width_ + 1);
        scanned_distance_.grow(width_ + 1);
        free_.grow(n + 1);
    }
    double* row(index_t i) { return cost_.data() + i * width_; }
    index_t column(index_t i) { return column_of_[i]; }

    // Whether every cost is finite.
    bool finite() {
        double worst = 0;
        for (index_t i = 0; i < n_; ++i) {
            const double* costs = row(i);
            for (index_t j = 0; j < m_; ++j) worst += costs[j] * 0;  // 0, or NaN for an infinite or missing cost
        }
        return worst == 0;
    }

    // Fills column(i) for every row and returns the total cost.
    double solve() {
        for (index_t i = 0; i < n_; ++i) {
            column_of_[i] = -1;
            for (index_t j = m_; j < width_; ++j) row(i)[j] = __builtin_inf();
        }
        for (index_t j = 0; j < width_; ++j) {
            row_of_[j] = -1;
            price_[j] = 0;
        }
        // Columns may stay free, at price 0, where there are more of them.
        if (n_ == m_) reduce_columns();
        const index_t left = bid();
        for (index_t k = 0; k < left; ++k) augment(free_[k]);
        double total = 0;
        for (index_t i = 0; i < n_; ++i) total += row(i)[column_of_[i]];
        return total;
    }

  private:
    static double lowest(Vec<double> values, Vec<double> indices, index_t* index) {
        const double value = smallest_lane<double>(values);
        unsigned lanes = equal_lanes<double>(values, broadcast(value));
        double first = indices[__builtin_ctz(lanes)];
        while (lanes &= lanes - 1) {
            const double other = indices[__builtin_ctz(lanes)];
            if (other < first) first = other;
        }
        *index = static_cast<index_t>(first);
        return value;
    }

    static Vec<double> first_indices() {
        Vec<double> lanes;
        for (index_t lane = 0; lane < kLanes<double>; ++lane) lanes[lane] = static_cast<double>(lane);
        return lanes;
    }

    // Smallest and second smallest of cost minus price in row i.
    double cheapest(index_t i, index_t* column, double* second) {
        const double* costs = row(i);
        const double* price = price_.data();
        const Vec<double> infinity = broadcast(__builtin_inf());
        Vec<double> best = infinity, next = infinity, at = infinity, here = first_indices();
        for (index_t j = 0; j < width_; j += kLanes<double>) {
            const Vec<double> value = load(costs + j) - load(price + j);
            const auto better = value < best;
            next = better ? best : least(value, next);
            at = better ? here : at;
            best = better ? value : best;
            here += static_cast<double>(kLanes<double>);
        }
        const double value = lowest(best, at, column);
        // Lanes hold different columns: the winner is taken out of its own.
        const auto won = at == broadcast(static_cast<double>(*column));
        *second = smallest_lane<double>(least(next, won ? infinity : best));
        return value;
    }

    // Every column takes the price of its cheapest row, and is given to it if that has none yet.
    void reduce_columns() {
        double* price = price_.data();
        double* cheapest_row = previous_.data();
        for (index_t j = 0; j < width_; j += kLanes<double>) {
            Vec<double> best = load(row(0) + j), at = broadcast(0.0), here = at;
            for (index_t i = 1; i < n_; ++i) {
                here += 1.0;
                const Vec<double> value = load(row(i) + j);
                const auto better = value < best;
                at = better ? here : at;
                best = better ? value : best;
            }
            store<double>(price + j, best);
            store<double>(cheapest_row + j, at);
        }
        for (index_t j = m_; j < width_; ++j) price[j] = 0;
        for (index_t j = 0; j < m_; ++j) {
            const index_t i = static_cast<index_t>(cheapest_row[j]);
            if (column_of_[i] < 0) match(i, j);
        }
    }

    // Each row without a column bids once for its cheapest, up to the price of the second cheapest, and displaces the
    // row that held it; returns how many rows are left free. More rounds cost more than the paths that they save.
    index_t bid() {
        index_t waiting = 0, left = 0;
        for (index_t i = 0; i < n_; ++i) {
            if (column_of_[i] < 0) free_[waiting++] = i;
        }
        for (index_t k = 0; k < waiting; ++k) {
            const index_t i = free_[k];
            index_t j = 0;
            double second = 0;
            const double first = cheapest(i, &j, &second);
            const double before = price_[j];
            if (second < __builtin_inf()) price_[j] -= second - first;
            const index_t displaced = row_of_[j];
            if (displaced >= 0 && !(price_[j] < before)) {
                free_[left++] = i;
                continue;
            }
            match(i, j);
            if (displaced >= 0) {
                column_of_[displaced] = -1;
                free_[left++] = displaced;
            }
        }
        return left;
    }

    void match(index_t i, index_t j) {
        column_of_[i] = j;
        row_of_[j] = i;
    }

    // Shortest path over reduced costs from a free row to a free column, then the prices that keep it optimal.
    void augment(index_t start) {
        double* distance = distance_.data();
        double* previous = previous_.data();
        double* price = open_price_.data();
        for (index_t j = 0; j < width_; ++j) {
            distance[j] = __builtin_inf();
            price[j] = price_[j];
        }
        index_t i = start, sink = -1, scanned = 0;
        double reached = 0, offset = 0;
        while (true) {
            const double* costs = row(i);
            const Vec<double> from = broadcast(static_cast<double>(i));
            Vec<double> best = broadcast(__builtin_inf()), at = best, here = first_indices();
            for (index_t j = 0; j < width_; j += kLanes<double>) {
                // A scanned column has price -infinity: its distance stays infinite here.
                const Vec<double> through = load(costs + j) - load(price + j) - offset;
                const Vec<double> known = load(distance + j);
                const auto shorter = through < known;
                const Vec<double> now = shorter ? through : known;
                store<double>(distance + j, now);
                store<double>(previous + j, shorter ? from : load(previous + j));
                const auto better = now < best;
                at = better ? here : at;
                best = better ? now : best;
                here += static_cast<double>(kLanes<double>);
            }
            index_t j = 0;
            reached = lowest(best, at, &j);
            if (row_of_[j] < 0) {
                sink = j;
                break;
            }
            scanned_[scanned] = j;
            scanned_distance_[scanned++] = reached;
            distance[j] = __builtin_inf();
            price[j] = -__builtin_inf();
            i = row_of_[j];
            offset = row(i)[j] - price_[j] - reached;
        }
        for (index_t k = 0; k < scanned; ++k) price_[scanned_[k]] += scanned_distance_[k] - reached;
        for (index_t j = sink;;) {
            const index_t owner = static_cast<index_t>(previous[j]);
            const index_t next = column_of_[owner];
            match(owner, j);
            if (owner == start) break;
            j = next;
        }
    }

    index_t n_ = 0, m_ = 0, width_ = 0;
    Buffer<double> cost_, price_, open_price_, distance_, previous_, scanned_distance_;
    Buffer<index_t> column_of_, row_of_, scanned_, free_;
};

// Rough nanoseconds for one n x m problem.
inline double assignment_cost(index_t n, index_t m) {
    const double small = static_cast<double>(n < m ? n : m), large = static_cast<double>(n < m ? m : n);
    return 0.5 * small * small * large + 20 * small;
}

// Solves events problems of rows[e] x columns[e]; fill(solver, e, transposed) writes the costs, with rows and columns
// exchanged if there are more rows. Row r of event e goes to partner[row_offsets[e] + r] = column_offsets[e] + column,
// or -1 where rows outnumber columns. Returns -1, or the first event that holds a cost that is not finite.
template <typename Fill>
inline index_t assign_batch(const index_t* row_offsets, const index_t* column_offsets, index_t events, Fill fill,
                            index_t* partner, double* totals, index_t threads) {
    double cost = 0;
    for (index_t e = 0; e < events; ++e) {
        cost += assignment_cost(row_offsets[e + 1] - row_offsets[e], column_offsets[e + 1] - column_offsets[e]);
        totals[e] = 0;
    }
    parallel_for(events, threads, cost, [&](index_t begin, index_t end) {
        Assignment solver;
        for (index_t e = begin; e < end; ++e) {
            const index_t n = row_offsets[e + 1] - row_offsets[e], m = column_offsets[e + 1] - column_offsets[e];
            for (index_t i = 0; i < n; ++i) partner[row_offsets[e] + i] = -1;
            if (n == 0 || m == 0) continue;
            const bool transposed = n > m;
            const index_t small = transposed ? m : n;
            solver.reset(small, transposed ? n : m);
            fill(solver, e, transposed);
            if (!solver.finite()) {
                totals[e] = __builtin_nan("");
                continue;
            }
            totals[e] = solver.solve();
            for (index_t i = 0; i < small; ++i) {
                const index_t j = solver.column(i);
                partner[row_offsets[e] + (transposed ? j : i)] = column_offsets[e] + (transposed ? i : j);
            }
        }
    });
    for (index_t e = 0; e < events; ++e) {
        if (totals[e] != totals[e]) return e;
    }
    return -1;
}

// Given matrices, one after the other, row-major.
AssignFn assign_costs;
index_t assign_costs(const double* costs, const index_t* row_offsets, const index_t* column_offsets, index_t events,
                     index_t* partner, double* totals, index_t threads) {
    Buffer<index_t> starts(events + 1);
    starts[0] = 0;
    for (index_t e = 0; e < events; ++e) {
        starts[e + 1] = starts[e] + (row_offsets[e + 1] - row_offsets[e]) * (column_offsets[e + 1] - column_offsets[e]);
    }
    auto fill = [&](Assignment& solver, index_t e, bool transposed) {
        const index_t n = row_offsets[e + 1] - row_offsets[e], m = column_offsets[e + 1] - column_offsets[e];
        const double* matrix = costs + starts[e];
        for (index_t i = 0; i < (transposed ? m : n); ++i) {
            double* to = solver.row(i);
            for (index_t j = 0; j < (transposed ? n : m); ++j) to[j] = transposed ? matrix[j * m + i] : matrix[i * m + j];
        }
    };
    return assign_batch(row_offsets, column_offsets, events, fill, partner, totals, threads);
}

// Matrices of distances |a_i - b_j| (power 1) or their squares (power 2) between points (N, dim) and (M, dim).
AssignPointsFn assign_points;
index_t assign_points(const double* a, const index_t* a_offsets, const double* b, const index_t* b_offsets,
                      index_t events, index_t dim, const double* period, index_t power, index_t* partner,
                      double* totals, index_t threads) {
    index_t result = -1;
    with_metric<double>(dim, period, [&](const auto& metric) {
        Packed<double> packed_a(a, a_offsets, events, dim), packed_b(b, b_offsets, events, dim);
        auto fill = [&](Assignment& solver, index_t e, bool transposed) {
            const double* rows = transposed ? b + b_offsets[e] * dim : a + a_offsets[e] * dim;
            const index_t n = transposed ? b_offsets[e + 1] - b_offsets[e] : a_offsets[e + 1] - a_offsets[e];
            Packed<double>& columns = transposed ? packed_a : packed_b;
            const index_t width = columns.width(e);
            for (index_t i = 0; i < n; ++i) {
                const double* x = rows + i * dim;
                double* to = solver.row(i);
                for (index_t c = 0; c < width; c += kLanes<double>) {
                    Vec<double> squares[1];
                    metric.template squared<1>(&x, columns.event(e), width, c, squares);
                    store<double>(to + c, squares[0]);
                }
                if (power == 1) {
                    for (index_t c = 0; c < width; ++c) to[c] = __builtin_sqrt(to[c]);
                }
            }
        };
        result = assign_batch(a_offsets, b_offsets, events, fill, partner, totals, threads);
    });
    return result;
}

}  // namespace sparsegen::SPARSEGEN_ISA
