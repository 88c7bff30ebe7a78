// Exact linear assignment for batches of small cost matrices: augmenting row reduction, then shortest augmenting paths
// (Jonker and Volgenant 1987), rectangular matrices as in Crouse 2016. Ties go to the lowest column.
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
        const index_t left = reduce_rows();
        for (index_t k = 0; k < left; ++k) augment(free_[k]);
        double total = 0;
        for (index_t i = 0; i < n_; ++i) total += row(i)[column_of_[i]];
        return total;
    }

  private:
    static double lowest(Vec<double> values, Vec<double> indices, index_t* index) {
        const double value = smallest_lane<double>(values);
        double first = __builtin_inf();
        for (index_t lane = 0; lane < kLanes<double>; ++lane) {
            if (values[lane] == value && indices[lane] < first) first = indices[lane];
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
        double runner_up = smallest_lane<double>(next);
        for (index_t lane = 0; lane < kLanes<double>; ++lane) {
            if (at[lane] != static_cast<double>(*column) && best[lane] < runner_up) runner_up = best[lane];
        }
        *second = runner_up;
        return value;
    }

    // Each free row bids for its cheapest column up to the price of the second cheapest, twice around; returns how
    // many rows stay free. Bids that gain nothing wait for the augmenting phase, so rounding cannot make it endless.
    index_t reduce_rows() {
        index_t waiting = n_;
        for (index_t i = 0; i < n_; ++i) free_[i] = i;
        for (int pass = 0; pass < 2; ++pass) {
            index_t left = 0, budget = 4 * n_;
            for (index_t k = 0; k < waiting; ++k) {
                index_t i = free_[k];
                while (i >= 0) {
                    index_t j = 0;
                    double second = 0;
                    const double first = cheapest(i, &j, &second);
                    const double before = price_[j];
                    if (second < __builtin_inf()) price_[j] -= second - first;
                    const bool gained = price_[j] < before;
                    const index_t displaced = row_of_[j];
                    if (displaced >= 0 && !gained) {
                        free_[left++] = i;
                        break;
                    }
                    column_of_[i] = j;
                    row_of_[j] = i;
                    i = displaced;
                    if (i >= 0) {
                        column_of_[i] = -1;
                        if (--budget <= 0) {
                            free_[left++] = i;
                            break;
                        }
                    }
                }
            }
            waiting = left;
        }
        return waiting;
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
            column_of_[owner] = j;
            row_of_[j] = owner;
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
