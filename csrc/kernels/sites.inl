// Kernel maps of sparse convolutions from bitmaps of active sites.
//
// One bit a site of the batch of lattices, row-major, and the number of active sites before each word: as the rows of a
// sparse tensor are sorted by site, the row of a site is the rank of its bit. A bitmap is 32 times smaller than a table
// of rows and stays in cache; neighbouring taps of the last axis are neighbouring bits, read at once.
#pragma once

#include "buffer.hpp"

namespace sparsegen::SPARSEGEN_ISA {

using word_t = std::uint64_t;
constexpr index_t kAxes = 4;

// Geometry of a window, seven numbers an axis; missing axes come first, with one site and one tap.
struct SiteAxis {
    index_t kernel = 1, stride = 1, padding = 0, dilation = 1;
    // Sites of the side that windows read, and of the side that they are placed at.
    index_t fine = 1, coarse = 1;
    bool wraps = false;
};

inline void read_axes(const index_t* geometry, index_t dim, SiteAxis* axes) {
    for (index_t a = 0; a < dim; ++a) {
        const index_t* g = geometry + 7 * a;
        axes[kAxes - dim + a] = {g[0], g[1], g[2], g[3], g[4], g[5], g[6] != 0};
    }
}

inline index_t wrap(index_t place, index_t size) {
    const index_t rest = place % size;
    return rest < 0 ? rest + size : rest;
}

inline index_t rank_of(const word_t* words, const std::int32_t* ranks, index_t site) {
    const word_t below = (word_t{1} << (site & 63)) - 1;
    return ranks[site >> 6] + __builtin_popcountll(words[site >> 6] & below);
}

// Counts the active sites before each word; returns how many there are.
inline index_t rank_words(const word_t* words, index_t count, std::int32_t* ranks) {
    index_t before = 0;
    for (index_t i = 0; i < count; ++i) {
        ranks[i] = static_cast<std::int32_t>(before);
        before += __builtin_popcountll(words[i]);
    }
    return before;
}

// Key of each site (N, 1 + D). Returns -1 where keys rise, -2 where they do not, or else the first row that lies
// outside the limits (1 + D).
SitesKeysFn sites_keys;
index_t sites_keys(const index_t* coords, index_t n, index_t dim, const index_t* limits, index_t* keys) {
    bool rises = true;
    index_t before = -1;
    for (index_t i = 0; i < n; ++i, coords += dim + 1) {
        index_t key = 0;
        bool inside = true;
        for (index_t a = 0; a <= dim; ++a) {
            inside = inside && coords[a] >= 0 && coords[a] < limits[a];
            // Unsigned: what lies outside may overflow before it is refused.
            key = static_cast<index_t>(static_cast<word_t>(key) * static_cast<word_t>(limits[a]) +
                                       static_cast<word_t>(coords[a]));
        }
        if (!inside) return i;
        rises = rises && key > before;
        before = keys[i] = key;
    }
    return rises ? -1 : -2;
}

SitesMarkFn sites_mark;
void sites_mark(const index_t* keys, index_t n, word_t* words, index_t count, std::int32_t* ranks) {
    for (index_t i = 0; i < count; ++i) words[i] = 0;
    for (index_t i = 0; i < n; ++i) words[keys[i] >> 6] |= word_t{1} << (keys[i] & 63);
    rank_words(words, count, ranks);
}

// Sites of one axis that a site meets, as offsets of the key.
struct Meetings {
    Buffer<index_t> offsets;
    index_t count = 0, coordinate = -1;
};

// Marks every site that windows lead to: from fine to coarse sites (a convolution's outputs) or back (a transposed
// one's). Returns how many there are.
SitesReachFn sites_reach;
index_t sites_reach(const index_t* coords, index_t n, index_t dim, const index_t* geometry, index_t down,
                    word_t* words, index_t count, std::int32_t* ranks) {
    SiteAxis axes[kAxes];
    read_axes(geometry, dim, axes);
    Meetings met[kAxes];
    index_t steps[kAxes], volume = 1;
    for (index_t a = kAxes - 1; a >= 0; --a) {
        met[a].offsets.grow(axes[a].kernel);
        steps[a] = volume;
        volume *= down != 0 ? axes[a].coarse : axes[a].fine;
    }
    for (index_t i = 0; i < count; ++i) words[i] = 0;
    for (index_t i = 0; i < n; ++i) {
        const index_t* site = coords + i * (dim + 1);
        for (index_t a = 0; a < kAxes; ++a) {
            const SiteAxis& axis = axes[a];
            Meetings& m = met[a];
            const index_t c = a < kAxes - dim ? 0 : site[1 + a - (kAxes - dim)];
            if (c == m.coordinate) continue;
            m.coordinate = c;
            m.count = 0;
            for (index_t t = 0; t < axis.kernel; ++t) {
                index_t place;
                if (down != 0) {
                    place = c + axis.padding - t * axis.dilation;
                    if (axis.wraps) place = wrap(place, axis.fine);
                    if (place < 0 || place % axis.stride != 0) continue;
                    place /= axis.stride;
                    if (place >= axis.coarse) continue;
                } else {
                    place = c * axis.stride + t * axis.dilation - axis.padding;
                    if (axis.wraps) place = wrap(place, axis.fine);
                    if (place < 0 || place >= axis.fine) continue;
                }
                m.offsets[m.count++] = place * steps[a];
            }
        }
        const index_t event = site[0] * volume;
        for (index_t t0 = 0; t0 < met[0].count; ++t0) {
            for (index_t t1 = 0; t1 < met[1].count; ++t1) {
                for (index_t t2 = 0; t2 < met[2].count; ++t2) {
                    const index_t row = event + met[0].offsets[t0] + met[1].offsets[t1] + met[2].offsets[t2];
                    for (index_t t3 = 0; t3 < met[3].count; ++t3) {
                        const index_t key = row + met[3].offsets[t3];
                        words[key >> 6] |= word_t{1} << (key & 63);
                    }
                }
            }
        }
    }
    return rank_words(words, count, ranks);
}

// Keys (N) and coordinates (N, 1 + D) of the active sites, in order.
SitesListFn sites_list;
void sites_list(const word_t* words, index_t count, const index_t* shape, index_t dim, index_t* keys,
                index_t* coords) {
    for (index_t i = 0; i < count; ++i) {
        for (word_t left = words[i]; left != 0; left &= left - 1) {
            index_t key = i * 64 + __builtin_ctzll(left);
            *keys++ = key;
            for (index_t a = dim; a > 0; --a) {
                const index_t quotient = key / shape[a - 1];
                coords[a] = key - quotient * shape[a - 1];
                key = quotient;
            }
            coords[0] = key;
            coords += dim + 1;
        }
    }
}

// Every meeting of a window at coords (M, 1 + D) with an active site: tap, window row and site row to hits (3, at most M
// times the searched taps), the first pair of each tap, and one past the last, to starts (taps + 1). Windows come in
// order. Where `mirrored`, only the first half of an odd number of taps is searched; see sites_group. Returns how many.
SitesSearchFn sites_search;
index_t sites_search(const index_t* coords, index_t m, index_t dim, const index_t* geometry, const word_t* words,
                     const std::int32_t* ranks, index_t taps, index_t mirrored, std::int32_t* hits, index_t* starts) {
    SiteAxis axes[kAxes];
    const index_t limit = mirrored != 0 ? taps / 2 : taps;
    index_t* counts = starts + 1;
    read_axes(geometry, dim, axes);
    const SiteAxis& last = axes[kAxes - 1];
    index_t sizes = 1, rows = 1;
    for (index_t a = 0; a < kAxes - 1; ++a) rows *= axes[a].kernel;
    for (index_t a = 0; a < kAxes; ++a) sizes *= axes[a].fine;
    // Lattice rows that the current window reads: first tap and key of the first site.
    Buffer<index_t> row_tap(rows), row_key(rows), places(last.kernel);
    const bool adjacent = last.dilation == 1 && !last.wraps && last.kernel <= 64;
    for (index_t k = 0; k < limit; ++k) counts[k] = 0;
    std::int32_t* hit = hits;
    index_t active_rows = 0;
    for (index_t i = 0; i < m; ++i) {
        const index_t* site = coords + i * (dim + 1);
        bool same = i > 0;
        for (index_t a = 0; a < dim && same; ++a) same = site[a] == site[a - dim - 1];
        if (!same) {
            index_t at[kAxes] = {0, 0, 0, 0};
            for (index_t a = 0; a < dim; ++a) at[kAxes - dim + a] = site[1 + a] * axes[kAxes - dim + a].stride;
            active_rows = 0;
            for (index_t row = 0; row < rows; ++row) {
                if (row * last.kernel >= limit) break;
                index_t rest = row, key = 0, step = last.fine;
                bool inside = true;
                for (index_t a = kAxes - 2; a >= 0; --a) {
                    const SiteAxis& axis = axes[a];
                    index_t place = at[a] + rest % axis.kernel * axis.dilation - axis.padding;
                    rest /= axis.kernel;
                    if (axis.wraps) place = wrap(place, axis.fine);
                    inside = inside && place >= 0 && place < axis.fine;
                    key += place * step;
                    step *= axis.fine;
                }
                if (!inside) continue;
                row_tap[active_rows] = row * last.kernel;
                row_key[active_rows++] = key + site[0] * sizes;
            }
        }
        const index_t first = site[dim] * last.stride - last.padding;
        if (adjacent) {
            const index_t low = first < 0 ? -first : 0;
            index_t high = last.fine - first < last.kernel ? last.fine - first : last.kernel;
            if (low >= high) continue;
            const word_t mask = high - low == 64 ? ~word_t{0} : (word_t{1} << (high - low)) - 1;
            for (index_t r = 0; r < active_rows; ++r) {
                const index_t key = row_key[r] + first + low;
                const index_t shift = key & 63;
                word_t found = words[key >> 6] >> shift;
                // The other half of a window across two words; shifting twice avoids a shift by 64.
                found |= words[(key >> 6) + 1] << 1 << (63 - shift);
                found &= mask;
                if (found == 0) continue;
                index_t rank = rank_of(words, ranks, key);
                for (; found != 0; found &= found - 1, ++rank) {
                    const index_t tap = row_tap[r] + low + __builtin_ctzll(found);
                    if (tap >= limit) break;
                    ++counts[tap];
                    hit[0] = static_cast<std::int32_t>(tap);
                    hit[1] = static_cast<std::int32_t>(i);
                    hit[2] = static_cast<std::int32_t>(rank);
                    hit += 3;
                }
            }
            continue;
        }
        for (index_t t = 0; t < last.kernel; ++t) {
            const index_t place = first + t * last.dilation;
            places[t] = last.wraps ? wrap(place, last.fine) : place;
        }
        for (index_t r = 0; r < active_rows; ++r) {
            for (index_t t = 0; t < last.kernel && row_tap[r] + t < limit; ++t) {
                if (places[t] < 0 || places[t] >= last.fine) continue;
                const index_t key = row_key[r] + places[t];
                if ((words[key >> 6] >> (key & 63) & 1) == 0) continue;
                ++counts[row_tap[r] + t];
                hit[0] = static_cast<std::int32_t>(row_tap[r] + t);
                hit[1] = static_cast<std::int32_t>(i);
                hit[2] = static_cast<std::int32_t>(rank_of(words, ranks, key));
                hit += 3;
            }
        }
    }
    if (mirrored != 0) {
        counts[limit] = m;
        for (index_t k = 0; k < limit; ++k) counts[taps - 1 - k] = counts[k];
    }
    starts[0] = 0;
    for (index_t k = 0; k < taps; ++k) counts[k] += starts[k];
    return (hit - hits) / 3;
}

// Hits in order of their taps. `starts`: first place of each tap, and one past the last. Where `mirrored`, hits are of
// the first half of an odd number of taps on one set of `rows` sites: the middle tap pairs each row with itself, the
// second half is the first one backwards.
SitesGroupFn sites_group;
void sites_group(const std::int32_t* hits, index_t n, index_t taps, const index_t* starts, index_t mirrored,
                 index_t rows, index_t* site_rows, index_t* window_rows) {
    Buffer<index_t> next(taps);
    for (index_t k = 0; k < taps; ++k) next[k] = starts[k];
    for (index_t i = 0; i < n; ++i, hits += 3) {
        index_t to = next[hits[0]]++;
        site_rows[to] = hits[2];
        window_rows[to] = hits[1];
        if (mirrored != 0) {
            to = next[taps - 1 - hits[0]]++;
            site_rows[to] = hits[1];
            window_rows[to] = hits[2];
        }
    }
    if (mirrored != 0) {
        const index_t start = starts[taps / 2];
        for (index_t i = 0; i < rows; ++i) site_rows[start + i] = window_rows[start + i] = i;
    }
}

// Pairs with output rows below `rows` rising within each tap: no two of a tap have the same.
SitesOrderFn sites_order;
void sites_order(const index_t* inputs, const index_t* outputs, const index_t* starts, index_t taps, index_t rows,
                 index_t* ordered_inputs, index_t* ordered_outputs) {
    Buffer<index_t> met(rows);
    for (index_t k = 0; k < taps; ++k) {
        const index_t begin = starts[k], end = starts[k + 1];
        bool rises = true;
        for (index_t p = begin + 1; p < end; ++p) rises = rises && outputs[p] > outputs[p - 1];
        if (rises) {
            for (index_t p = begin; p < end; ++p) {
                ordered_inputs[p] = inputs[p];
                ordered_outputs[p] = outputs[p];
            }
            continue;
        }
        for (index_t row = 0; row < rows; ++row) met[row] = -1;
        for (index_t p = begin; p < end; ++p) met[outputs[p]] = inputs[p];
        for (index_t row = 0, p = begin; row < rows; ++row) {
            if (met[row] < 0) continue;
            ordered_inputs[p] = met[row];
            ordered_outputs[p++] = row;
        }
    }
}

}  // namespace sparsegen::SPARSEGEN_ISA
