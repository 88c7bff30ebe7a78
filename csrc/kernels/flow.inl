// Exact transport of unequal masses between small point sets: the primal network simplex on a spanning tree that stays
// strongly feasible, so that degenerate pivots cannot cycle (Cunningham 1976; Ahuja, Magnanti and Orlin 1993, ch. 11).
#pragma once

#include "kernels/assignment.inl"

namespace sparsegen::SPARSEGEN_ISA {

// The solver and its scratch memory: one per thread, used for many pairs.
//
// Nodes are the n sources, the m targets and a root that artificial arcs join to all of them. For arcs of the tree
// cost + potential(tail) - potential(head) = 0.
class Flow {
  public:
    // Room for n sources and m targets; the caller fills row(i)[0 .. m), supply(i) and demand(j).
    void reset(index_t n, index_t m) {
        n_ = n;
        m_ = m;
        width_ = padded<double>(m);
        const index_t nodes = n + width_ + 2;
        cost_.grow(n * width_ + 1);
        mass_.grow(nodes);
        potential_.grow(nodes);
        flow_.grow(nodes);
        parent_.grow(nodes);
        depth_.grow(nodes);
        upward_.grow(nodes);
        child_.grow(nodes);
        next_.grow(nodes);
        last_.grow(nodes);
        stack_.grow(nodes);
    }
    double* row(index_t i) { return cost_.data() + i * width_; }
    double& supply(index_t i) { return mass_[i]; }
    double& demand(index_t j) { return mass_[n_ + j]; }

    // The least total cost; NaN if costs or masses are not finite.
    double solve() {
        double largest = 0, check = 0;
        for (index_t i = 0; i < n_; ++i) {
            double* costs = row(i);
            for (index_t j = 0; j < m_; ++j) {
                check += costs[j] * 0;
                largest = costs[j] > largest ? costs[j] : largest;
            }
            for (index_t j = m_; j < width_; ++j) costs[j] = __builtin_inf();
        }
        for (index_t k = 0; k < n_ + m_; ++k) check += mass_[k] * 0;
        if (check != 0) return __builtin_nan("");
        plant(largest);
        const double enough = -1e-14 * largest;
        // The cheapest arc into every target first.
        for (index_t j = 0; j < m_; ++j) {
            index_t i = 0;
            for (index_t k = 1; k < n_; ++k) i = row(k)[j] < row(i)[j] ? k : i;
            if (reduced(i, j) < enough) pivot(i, j);
        }
        const index_t block = n_ < 32 ? (n_ < 4 ? n_ : 4) : n_ / 8;
        index_t next = 0, seen = 0;
        while (seen < n_) {
            const index_t count = block < n_ - seen ? block : n_ - seen;
            index_t i = 0, j = 0;
            const double best = cheapest(next, count, &i, &j);
            next += count;
            if (next >= n_) next -= n_;
            seen += count;
            if (best < enough) {
                pivot(i, j);
                seen = 0;
            }
        }
        double total = 0;
        for (index_t v = 0; v < n_ + m_; ++v) {
            const index_t u = parent_[v];
            if (u == root()) continue;
            total += flow_[v] * (v < n_ ? row(v)[u - n_] : row(u)[v - n_]);
        }
        return total;
    }

  private:
    index_t root() const { return n_ + width_; }
    double reduced(index_t i, index_t j) { return row(i)[j] + potential_[i] - potential_[n_ + j]; }

    // The first tree: every node at the root. Any real arc is cheaper than the way through it, so none of that stays.
    void plant(double largest) {
        const double price = 2 * largest + 1;
        const index_t top = root();
        potential_[top] = 0;
        parent_[top] = -1;
        depth_[top] = 0;
        child_[top] = -1;
        for (index_t j = m_; j < width_; ++j) potential_[n_ + j] = 0;
        for (index_t v = 0; v < n_ + m_; ++v) {
            const bool source = v < n_;
            parent_[v] = top;
            depth_[v] = 1;
            upward_[v] = source;
            flow_[v] = mass_[v];
            potential_[v] = source ? 0 : price;
            child_[v] = -1;
            hang(v, top);
        }
    }

    void hang(index_t v, index_t under) {
        parent_[v] = under;
        last_[v] = -1;
        next_[v] = child_[under];
        if (next_[v] >= 0) last_[next_[v]] = v;
        child_[under] = v;
    }

    void cut(index_t v) {
        if (last_[v] >= 0) {
            next_[last_[v]] = next_[v];
        } else {
            child_[parent_[v]] = next_[v];
        }
        if (next_[v] >= 0) last_[next_[v]] = last_[v];
    }

    // The smallest reduced cost of `count` sources from `first` on, around the end, and the arc that has it.
    double cheapest(index_t first, index_t count, index_t* source, index_t* target) {
        const double* potential = potential_.data() + n_;
        Vec<double> lanes;
        for (index_t lane = 0; lane < kLanes<double>; ++lane) lanes[lane] = static_cast<double>(lane);
        Vec<double> best = broadcast(__builtin_inf()), at = lanes, whose = broadcast(0.0);
        for (index_t k = 0; k < count; ++k) {
            const index_t i = first + k < n_ ? first + k : first + k - n_;
            const double* costs = row(i);
            const Vec<double> own = broadcast(potential_[i]), name = broadcast(static_cast<double>(i));
            Vec<double> here = lanes;
            for (index_t j = 0; j < width_; j += kLanes<double>) {
                const Vec<double> value = load(costs + j) - load(potential + j) + own;
                const auto better = value < best;
                at = better ? here : at;
                whose = better ? name : whose;
                best = better ? value : best;
                here += static_cast<double>(kLanes<double>);
            }
        }
        const double value = smallest_lane<double>(best);
        const unsigned hits = equal_lanes<double>(best, broadcast(value));
        const int lane = hits != 0 ? __builtin_ctz(hits) : 0;
        *source = static_cast<index_t>(whose[lane]);
        *target = static_cast<index_t>(at[lane]);
        return value;
    }

    // Brings the arc from source i to target j into the tree: mass goes round the cycle that it closes until an arc
    // against it is empty, which leaves. The last such arc along the cycle, from its top, keeps the tree strongly
    // feasible.
    void pivot(index_t i, index_t j) {
        const index_t tail = i, head = n_ + j;
        const double cost = reduced(i, j);
        index_t u = tail, v = head;
        double tail_least = __builtin_inf(), head_least = __builtin_inf();
        index_t tail_out = -1, head_out = -1;
        while (u != v) {
            if (depth_[u] >= depth_[v] && u != root()) {
                if (upward_[u] && flow_[u] < tail_least) {
                    tail_least = flow_[u];
                    tail_out = u;
                }
                u = parent_[u];
            } else {
                if (!upward_[v] && flow_[v] <= head_least) {
                    head_least = flow_[v];
                    head_out = v;
                }
                v = parent_[v];
            }
        }
        const index_t join = u;
        const bool on_tail = tail_least < head_least;
        const index_t out = on_tail ? tail_out : head_out;
        const double moved = on_tail ? tail_least : head_least;
        for (u = tail; u != join; u = parent_[u]) flow_[u] += upward_[u] ? -moved : moved;
        for (v = head; v != join; v = parent_[v]) flow_[v] += upward_[v] ? moved : -moved;
        // The part of the tree that hung on the leaving arc hangs on the entering one now, turned over.
        const index_t inner = on_tail ? tail : head, outer = on_tail ? head : tail;
        index_t node = inner, above = outer;
        double carried = moved;
        bool up = on_tail;
        while (true) {
            const index_t old_parent = parent_[node];
            const double old_flow = flow_[node];
            const bool old_up = upward_[node];
            cut(node);
            hang(node, above);
            flow_[node] = carried;
            upward_[node] = up;
            if (node == out) break;
            carried = old_flow;
            up = !old_up;
            above = node;
            node = old_parent;
        }
        const double shift = on_tail ? -cost : cost;
        index_t count = 0;
        stack_[count++] = inner;
        while (count > 0) {
            const index_t w = stack_[--count];
            potential_[w] += shift;
            depth_[w] = depth_[parent_[w]] + 1;
            for (index_t c = child_[w]; c >= 0; c = next_[c]) stack_[count++] = c;
        }
    }

    index_t n_ = 0, m_ = 0, width_ = 0;
    Buffer<double> cost_, mass_, potential_, flow_;
    Buffer<index_t> parent_, depth_, child_, next_, last_, stack_;
    Buffer<bool> upward_;
};

// Whether all are the same finite number.
inline bool all_equal(const double* values, index_t n) {
    for (index_t k = 1; k < n; ++k) {
        if (values[k] != values[0]) return false;
    }
    return values[0] * 0 == 0;
}

// The earth mover's distance of every set of a to every set of b, (a_count, b_count). With unmatched < 0 each set has
// mass one; otherwise masses are as given and what one side has more costs `unmatched` a unit. Returns -1, or the
// number of the first pair whose points or masses are not finite.
FlowFn pairwise_flow;
index_t pairwise_flow(const double* a, const index_t* a_offsets, const double* a_mass, index_t a_count, const double* b,
                      const index_t* b_offsets, const double* b_mass, index_t b_count, index_t dim,
                      const double* period, index_t symmetric, double unmatched, double* totals, index_t threads) {
    index_t bad = -1;
    const double n = a_count > 0 ? static_cast<double>(a_offsets[a_count]) / static_cast<double>(a_count) : 0;
    const double m = b_count > 0 ? static_cast<double>(b_offsets[b_count]) / static_cast<double>(b_count) : 0;
    const double each = (n + m) * (n + m) * m + 100 * (n + m);
    with_metric<double>(dim, period, [&](const auto& metric) {
        Packed<double> targets(b, b_offsets, b_count, dim);
        const double cost = each * static_cast<double>(a_count * b_count);
        parallel_for(a_count * b_count, threads, cost, [&](index_t begin, index_t end) {
            Flow flow;
            Assignment assignment;
            for (index_t pair = begin; pair < end; ++pair) {
                const index_t i = pair / b_count, j = pair % b_count;
                if (symmetric && i >= j) {
                    // The lower half is copied when all is done.
                    if (i == j) totals[pair] = 0;
                    continue;
                }
                const index_t rows = a_offsets[i + 1] - a_offsets[i], columns = b_offsets[j + 1] - b_offsets[j];
                const double *from = a_mass + a_offsets[i], *to = b_mass + b_offsets[j];
                double have = 0, want = 0;
                for (index_t k = 0; k < rows; ++k) have += from[k];
                for (index_t k = 0; k < columns; ++k) want += to[k];
                const bool unit = unmatched < 0;
                if (have == 0 || want == 0) {
                    totals[pair] = have == want ? 0 : (unit ? __builtin_inf() : unmatched * (have + want));
                    continue;
                }
                const auto fill = [&](index_t r, double* costs) {
                    const double* x = a + (a_offsets[i] + r) * dim;
                    const index_t width = targets.width(j);
                    for (index_t c = 0; c < width; c += kLanes<double>) {
                        Vec<double> squares[1];
                        metric.template squared<1>(&x, targets.event(j), width, c, squares);
                        store<double>(costs + c, squares[0]);
                    }
                    for (index_t c = 0; c < columns; ++c) costs[c] = __builtin_sqrt(costs[c]);
                };
                if (rows == columns && all_equal(from, rows) && all_equal(to, columns) && (unit || *from == *to)) {
                    // Points of one mass on both sides: some best plan is a matching.
                    assignment.reset(rows, columns);
                    for (index_t r = 0; r < rows; ++r) fill(r, assignment.row(r));
                    const double share = unit ? 1 / static_cast<double>(rows) : *from;
                    totals[pair] = assignment.finite() ? assignment.solve() * share : __builtin_nan("");
                    continue;
                }
                const double more = unit ? 0 : have - want;
                const bool extra_row = more < 0, extra_column = more > 0;
                flow.reset(rows + extra_row, columns + extra_column);
                for (index_t r = 0; r < rows; ++r) {
                    fill(r, flow.row(r));
                    if (extra_column) flow.row(r)[columns] = unmatched;
                    flow.supply(r) = unit ? from[r] / have : from[r];
                }
                for (index_t c = 0; c < columns; ++c) flow.demand(c) = unit ? to[c] / want : to[c];
                if (extra_column) flow.demand(columns) = more;
                if (extra_row) {
                    for (index_t c = 0; c < columns; ++c) flow.row(rows)[c] = unmatched;
                    flow.supply(rows) = -more;
                }
                totals[pair] = flow.solve();
            }
        });
    });
    for (index_t i = 0; i < a_count; ++i) {
        for (index_t j = 0; j < b_count; ++j) {
            if (symmetric && i > j) totals[i * b_count + j] = totals[j * b_count + i];
            if (totals[i * b_count + j] != totals[i * b_count + j] && bad < 0) bad = i * b_count + j;
        }
    }
    return bad;
}

}  // namespace sparsegen::SPARSEGEN_ISA
