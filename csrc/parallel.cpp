#define SPARSEGEN_ISA portable
#include "parallel.hpp"

#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace sparsegen {

void run_parallel(index_t count, index_t threads, Body body, void* context) {
    // About eight ranges a thread balance uneven events without contention.
    const index_t chunk = count / (8 * threads) > 1 ? count / (8 * threads) : 1;
    std::atomic<index_t> next{0};
    std::exception_ptr failure;
    std::mutex guard;
    auto work = [&] {
        try {
            for (index_t begin = next.fetch_add(chunk); begin < count; begin = next.fetch_add(chunk)) {
                body(context, begin, begin + chunk < count ? begin + chunk : count);
            }
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            failure = std::current_exception();
            next = count;
        }
    };
    std::vector<std::thread> workers;
    workers.reserve(static_cast<std::size_t>(threads - 1));
    try {
        for (index_t i = 1; i < threads; ++i) workers.emplace_back(work);
    } catch (const std::system_error&) {
        // The system refuses more threads: those that run, and this one, do the work.
    }
    work();
    for (auto& worker : workers) worker.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace sparsegen
