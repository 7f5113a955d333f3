// Stable sort by unsigned integer keys, least significant digit first. No torch headers.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

namespace cfr::evaluation {

// Sorts items[0, count) by key(item); `spare` holds `count` items too. Returns where the result lies: `items` or
// `spare`. `highest` is at least the largest key; digits in which all keys agree cost nothing but a count.
template <class Item, class Key, class KeyOf>
Item* radix_sort(Item* items, Item* spare, int64_t count, Key highest, const KeyOf& key) {
  constexpr int kWidest = 11;  // bits of a digit: the ends of 2,048 buckets stay in the first-level cache
  constexpr int kMost = (8 * sizeof(Key) + kWidest - 1) / kWidest;
  int bits = 0;
  for (Key rest = highest; rest != 0; rest >>= 1) ++bits;
  const int passes = (bits + kWidest - 1) / kWidest;
  if (passes == 0 || count < 2) return items;
  const int width = (bits + passes - 1) / passes;
  const Key mask = (Key{1} << width) - 1;

  std::vector<std::array<int64_t, size_t{1} << kWidest>> counts(passes);
  for (int64_t i = 0; i < count; ++i) {
    const Key value = key(items[i]);
    for (int pass = 0; pass < kMost; ++pass)
      if (pass < passes) ++counts[pass][(value >> (pass * width)) & mask];
  }
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = pass * width;
    auto& place = counts[pass];
    if (place[(key(items[0]) >> shift) & mask] == count) continue;
    int64_t sum = 0;
    for (Key digit = 0; digit <= mask; ++digit) {
      const int64_t size = place[digit];
      place[digit] = sum;
      sum += size;
    }
    for (int64_t i = 0; i < count; ++i) spare[place[(key(items[i]) >> shift) & mask]++] = items[i];
    std::swap(items, spare);
  }
  return items;
}

}  // namespace cfr::evaluation
