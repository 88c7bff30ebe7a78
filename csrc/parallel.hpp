// Threads for loops over events or tiles.
#pragma once

#include <type_traits>

#include "kernels.hpp"

namespace sparsegen {

using Body = void (*)(void* context, index_t begin, index_t end);

// Calls body(context, begin, end) on disjoint ranges covering [0, count), by at most `threads` threads.
void run_parallel(index_t count, index_t threads, Body body, void* context);

namespace SPARSEGEN_ISA {

// Work below this many nanoseconds a thread is not worth starting one for.
constexpr double kThreadCost = 1.0e5;

// Runs body(begin, end) over [0, count). `cost` is the estimated cost of the whole loop in nanoseconds of one thread;
// ranges are handed out dynamically, so items may differ in size. No pool is kept: safe after fork.
template <typename F>
inline void parallel_for(index_t count, index_t threads, double cost, F&& body) {
    const double worth = cost / kThreadCost;
    index_t workers = worth < static_cast<double>(threads) ? static_cast<index_t>(worth) : threads;
    workers = workers < count ? workers : count;
    if (workers <= 1) {
        if (count > 0) body(index_t{0}, count);
        return;
    }
    auto call = [](void* context, index_t begin, index_t end) { (*static_cast<std::remove_reference_t<F>*>(context))(begin, end); };
    run_parallel(count, workers, call, &body);
}

}  // namespace SPARSEGEN_ISA
}  // namespace sparsegen
