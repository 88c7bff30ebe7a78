// Scratch memory, aligned for every vector width.
#pragma once

#include <cstdlib>
#include <new>

#include "kernels.hpp"

namespace sparsegen::SPARSEGEN_ISA {

// Uninitialised array of a trivial type, grown on demand and kept between uses.
template <typename T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(index_t size) { grow(size); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(data_); }

    // At least `size` elements; what was in it is lost.
    T* grow(index_t size) {
        if (size > size_) {
            std::free(data_);
            size_ = 0;
            const std::size_t bytes = (static_cast<std::size_t>(size) * sizeof(T) + 63) / 64 * 64;
            data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
            if (data_ == nullptr) throw std::bad_alloc();
            size_ = size;
        }
        return data_;
    }
    T* data() { return data_; }
    T& operator[](index_t i) { return data_[i]; }

  private:
    T* data_ = nullptr;
    index_t size_ = 0;
};

}  // namespace sparsegen::SPARSEGEN_ISA
