// The zlib stream of an array that is zero except in some cells, written from these cells alone.
//
// One block under the format's fixed code: values are literals, runs of zero bytes are a literal and matches of
// distance 1 to it. Time grows with the cells, and by a step per 258 zero bytes. See RFC 1950 and RFC 1951.
#pragma once

#include "buffer.hpp"

namespace sparsegen::SPARSEGEN_ISA {

constexpr index_t kLongestMatch = 258;
constexpr index_t kShortestMatch = 3;
constexpr std::uint64_t kAdlerModulus = 65521;

// Bits of a code, the first to be written lowest.
struct DeflateCode {
    std::uint32_t bits;
    std::uint32_t length;
};

constexpr DeflateCode reversed_code(std::uint32_t code, std::uint32_t length) {
    std::uint32_t bits = 0;
    for (std::uint32_t i = 0; i < length; ++i) bits |= (code >> i & 1) << (length - 1 - i);
    return {bits, length};
}

// The fixed code of a literal, a match's length or the end of the block.
constexpr DeflateCode fixed_code(std::uint32_t symbol) {
    if (symbol < 144) return reversed_code(0x30 + symbol, 8);
    if (symbol < 256) return reversed_code(0x190 + symbol - 144, 9);
    if (symbol < 280) return reversed_code(symbol - 256, 7);
    return reversed_code(0xC0 + symbol - 280, 8);
}

// A match of distance 1: its length, and the five zero bits of the distance.
constexpr DeflateCode match_code(index_t length) {
    std::uint32_t symbol = 285, extra = 0, more = 0;
    if (length < kLongestMatch) {
        // Lengths from 3 on: eight symbols without extra bits, then four for each number of extra bits
        std::uint32_t left = static_cast<std::uint32_t>(length - kShortestMatch);
        symbol = 257;
        while (true) {
            const std::uint32_t symbols = extra == 0 ? 8 : 4;
            if (left < symbols << extra) break;
            left -= symbols << extra;
            symbol += symbols;
            ++extra;
        }
        symbol += left >> extra;
        more = left & ((1u << extra) - 1);
    }
    const DeflateCode code = fixed_code(symbol);
    return {code.bits | more << code.length, code.length + extra + 5};
}

struct DeflateTables {
    DeflateCode literals[256];
    DeflateCode matches[kLongestMatch + 1];
};

constexpr DeflateTables deflate_tables() {
    DeflateTables tables{};
    for (std::uint32_t value = 0; value < 256; ++value) tables.literals[value] = fixed_code(value);
    for (index_t length = kShortestMatch; length <= kLongestMatch; ++length) tables.matches[length] = match_code(length);
    return tables;
}

constexpr DeflateTables kDeflate = deflate_tables();

class DeflateStream {
  public:
    explicit DeflateStream(std::uint8_t* out) : start_(out), out_(out) {
        // Deflate with a window of 32 kB, at the fastest level; then the only block, of the fixed code
        *out_++ = 0x78;
        *out_++ = 0x01;
        put({0b011, 3});
    }

    void literal(std::uint8_t value) {
        put(kDeflate.literals[value]);
        low_ += value;
        high_ += low_;
    }

    void zeros(index_t count) {
        if (count == 0) return;
        high_ = (high_ + static_cast<std::uint64_t>(count) % kAdlerModulus * low_) % kAdlerModulus;
        put(kDeflate.literals[0]);
        index_t left = count - 1;
        for (; left >= kLongestMatch; left -= kLongestMatch) put(kDeflate.matches[kLongestMatch]);
        if (left >= kShortestMatch) {
            put(kDeflate.matches[left]);
        } else {
            for (; left > 0; --left) put(kDeflate.literals[0]);
        }
    }

    // Between values: keeps the sums of the checksum small.
    void reduce() {
        low_ %= kAdlerModulus;
        high_ %= kAdlerModulus;
    }

    index_t finish() {
        put(fixed_code(256));
        for (; count_ > 0; count_ -= count_ < 8 ? count_ : 8, bits_ >>= 8) *out_++ = static_cast<std::uint8_t>(bits_);
        reduce();
        const std::uint64_t sum = high_ << 16 | low_;
        for (int shift = 24; shift >= 0; shift -= 8) *out_++ = static_cast<std::uint8_t>(sum >> shift);
        return out_ - start_;
    }

  private:
    void put(DeflateCode code) {
        bits_ |= static_cast<std::uint64_t>(code.bits) << count_;
        count_ += code.length;
        if (count_ >= 32) {
            for (int byte = 0; byte < 4; ++byte) out_[byte] = static_cast<std::uint8_t>(bits_ >> (8 * byte));
            out_ += 4;
            bits_ >>= 32;
            count_ -= 32;
        }
    }

    std::uint8_t* start_;
    std::uint8_t* out_;
    std::uint64_t bits_ = 0;
    std::uint32_t count_ = 0;
    // Adler-32
    std::uint64_t low_ = 1;
    std::uint64_t high_ = 0;
};

// values (cells, width) bytes at rising places of an array of `size` values; `out` has room for deflate_room bytes.
DeflateCellsFn deflate_cells;
index_t deflate_cells(const std::uint8_t* values, const index_t* places, index_t cells, index_t width, index_t size,
                      std::uint8_t* out) {
    DeflateStream stream(out);
    index_t next = 0;
    for (index_t cell = 0; cell < cells; ++cell, values += width) {
        stream.zeros((places[cell] - next) * width);
        for (index_t byte = 0; byte < width; ++byte) stream.literal(values[byte]);
        stream.reduce();
        next = places[cell] + 1;
    }
    stream.zeros((size - next) * width);
    return stream.finish();
}

// Bytes that a stream takes at most: a value's bytes 9 bits each, a run of zeros 41 bits and 13 for each match.
DeflateRoomFn deflate_room;
index_t deflate_room(index_t cells, index_t width, index_t size) {
    const index_t bits = cells * width * 9 + (cells + 1) * 41 + (size * width / kLongestMatch + 1) * 13;
    return bits / 8 + 16;
}

}  // namespace sparsegen::SPARSEGEN_ISA
