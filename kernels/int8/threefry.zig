// The random numbers of rule nano-egg: Threefry-2x32 with 20 rounds (Salmon et al. 2011) as JAX keys and counts it, and the
// two tables by which 23 bits of a word become a noise value or an initial weight. The plain form, one number at a time;
// vector_normal.zig makes noise in lanes. Read next: nano_egg.zig, which says where each number is taken.
const std = @import("std");

pub const Key = [2]u32;

pub const parity = 0x1bd11bda;
pub const rotations = [8]u5{ 13, 15, 26, 6, 17, 29, 16, 24 };

/// The block function: 64 bits of counter to 64 random bits.
pub fn block(key: Key, counter: [2]u32) [2]u32 {
    const keys = [3]u32{ key[0], key[1], key[0] ^ key[1] ^ parity };
    var x = [2]u32{ counter[0] +% keys[0], counter[1] +% keys[1] };
    for (0..5) |round| {
        for (rotations[round % 2 * 4 ..][0..4]) |rotation| {
            x[0] +%= x[1];
            x[1] = std.math.rotl(u32, x[1], rotation) ^ x[0];
        }
        x[0] +%= keys[(round + 1) % 3];
        x[1] +%= keys[(round + 2) % 3] +% @as(u32, @intCast(round + 1));
    }
    return x;
}

/// The key of a seed.
pub fn keyOf(seed: u32) Key {
    return .{ 0, seed };
}

/// A key of its own for each number; also the key of that number when a key is split.
pub fn foldIn(key: Key, number: u32) Key {
    return block(key, .{ 0, number });
}

/// Word `index` of the key's stream.
pub fn word(key: Key, index: u32) u32 {
    const x = block(key, .{ 0, index });
    return x[0] ^ x[1];
}

/// Values that rise with m, a number of 23 bits: the least, and where each one more begins (where several begin at the same
/// m, the value jumps). They are z = sqrt(2) erf^-1(2m / 2^23 - 1) in sixteenths, as the reference computes it in f32.
pub const Steps = struct {
    least: i8,
    begins: []const u32,

    pub fn value(steps: Steps, m: u32) i8 {
        var low: usize = 0;
        var high = steps.begins.len;
        while (low < high) {
            const middle = (low + high) / 2;
            if (steps.begins[middle] <= m) low = middle + 1 else high = middle;
        }
        return @intCast(@as(i32, steps.least) + @as(i32, @intCast(low)));
    }
};

/// Noise: 16 z, cut toward zero; -86 .. 83.
pub const noise: Steps = .{
    .least = -86,
    // zig fmt: off
    .begins = &.{
        1, 1, 1, 1, 1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 29, 38, 51, 68, 90, 119, 156, 204, 266, 346, 447, 577, 742, 950, 1212, 1541, 1952,
        2463, 3096, 3879, 4841, 6019, 7458, 9207, 11324, 13878, 16946, 20619, 24996, 30195, 36344, 43588, 52091, 62031, 73606, 87033,
        102547, 120402, 140873, 164250, 190842, 220974, 254983, 293220, 336041, 383809, 436890, 495642, 560420, 631562, 709389, 794198,
        886255, 985789, 1092990, 1207997, 1330897, 1461721, 1600437, 1746948, 1901088, 2062624, 2231249, 2406589, 2588201, 2775576, 2968143,
        3165276, 3366296, 3570480, 3777070, 3985280, 4403329, 4611539, 4818129, 5022313, 5223332, 5420465, 5613033, 5800408, 5982020,
        6157360, 6325985, 6487520, 6641661, 6788171, 6926887, 7057712, 7180612, 7295619, 7402819, 7502353, 7594410, 7679219, 7757047,
        7828189, 7892966, 7951719, 8004799, 8052568, 8095389, 8133625, 8167635, 8197766, 8224359, 8247736, 8268206, 8286062, 8301576,
        8315003, 8326578, 8336518, 8345020, 8352265, 8358414, 8363612, 8367990, 8371662, 8374731, 8377285, 8379402, 8381151, 8382589,
        8383768, 8384730, 8385512, 8386146, 8386657, 8387068, 8387396, 8387658, 8387866, 8388031, 8388161, 8388263, 8388343, 8388405,
        8388453, 8388490, 8388519, 8388541, 8388557, 8388570, 8388580, 8388587, 8388593, 8388597, 8388600, 8388602, 8388604, 8388605,
        8388606, 8388607, 8388607, 8388607,
    },
    // zig fmt: on
};

/// Initial weights: 16 z, rounded; -87 .. 84.
pub const initial: Steps = .{
    .least = -87,
    // zig fmt: off
    .begins = &.{
        1, 1, 1, 1, 1, 2, 2, 3, 4, 6, 8, 10, 14, 19, 25, 33, 44, 59, 78, 103, 136, 178, 233, 303, 393, 508, 655, 840, 1074, 1367, 1735,
        2193, 2763, 3467, 4335, 5400, 6703, 8290, 10215, 12542, 15342, 18701, 22712, 27485, 33141, 39819, 47671, 56869, 67601, 80074, 94513,
        111165, 130293, 152179, 177124, 205445, 237472, 273551, 314034, 359284, 409663, 465535, 527256, 595175, 669621, 750904, 839305,
        935075, 1038421, 1149511, 1268457, 1395319, 1530097, 1672727, 1823077, 1980949, 2146072, 2318106, 2496641, 2681202, 2871248,
        3066181, 3265344, 3468039, 3673523, 3881022, 4089741, 4298868, 4507586, 4715086, 4920570, 5123264, 5322428, 5517360, 5707406,
        5891967, 6070503, 6242537, 6407659, 6565531, 6715882, 6858511, 6993289, 7120152, 7239098, 7350187, 7453534, 7549303, 7637705,
        7718988, 7793434, 7861352, 7923074, 7978946, 8029325, 8074574, 8115058, 8151136, 8183164, 8211484, 8236429, 8258316, 8277443,
        8294095, 8308535, 8321008, 8331739, 8340937, 8348789, 8355467, 8361123, 8365896, 8369907, 8373266, 8376067, 8378393, 8380318,
        8381905, 8383208, 8384274, 8385142, 8385846, 8386415, 8386873, 8387241, 8387535, 8387768, 8387954, 8388100, 8388215, 8388305,
        8388376, 8388430, 8388473, 8388505, 8388530, 8388550, 8388564, 8388575, 8388584, 8388590, 8388595, 8388598, 8388601, 8388603,
        8388604, 8388605, 8388606, 8388607, 8388607, 8388607,
    },
    // zig fmt: on
};

/// Values of a half of the noise table's m, by buckets: u = 0 .. 2^22 - 1 counts from the half's outer end, and u + 16 is cut into
/// 16 buckets from each power of two to the next, so that no bucket holds more than one step.
pub const buckets_of_half = 19 * 16;

/// The bucket of m.
pub fn bucketOf(m: u32) u32 {
    const upper = m >> 22 != 0;
    const place = (if (upper) m ^ 0x7fffff else m) + 16;
    const exponent: u5 = @intCast(27 - @as(u32, @clz(place))); // 0 for 16 .. 31
    return (if (upper) @as(u32, buckets_of_half) else 0) + @as(u32, exponent) * 16 + (place >> exponent) - 16;
}

/// A bucket's word: the value at its least m in the low 8 bits, above them the m where the next value begins (2^23: nowhere
/// in the bucket).
pub const noise_buckets: [2 * buckets_of_half]u32 = blk: {
    @setEvalBranchQuota(300000);
    var words: [2 * buckets_of_half]u32 = undefined;
    for (&words, 0..) |*entry, i| {
        const upper = i >= buckets_of_half;
        const exponent = i % buckets_of_half / 16;
        const first: u32 = ((16 + i % 16) << exponent) - 16;
        const last: u32 = @as(u32, @min(first + (1 << exponent), 1 << 22)) - 1;
        // In the upper half m falls as u rises.
        const least: u32 = if (upper) (1 << 23) - 1 - last else first;
        const most: u32 = if (upper) (1 << 23) - 1 -| first else last;
        var begin: u32 = 1 << 23;
        for (noise.begins) |m| if (m > least and m <= most) {
            begin = m;
        };
        const value = if (first > last) 0 else noise.value(least); // the last exponent reaches past the half
        entry.* = begin << 8 | @as(u8, @bitCast(@as(i8, value)));
    }
    break :blk words;
};

/// The noise value of m, as lanes find it.
pub fn noiseValue(m: u32) i8 {
    const entry = noise_buckets[bucketOf(m)];
    return @as(i8, @bitCast(@as(u8, @truncate(entry)))) + @intFromBool(m >= entry >> 8);
}

test "the buckets hold the table" {
    for (0..1 << 23) |m| try std.testing.expectEqual(noise.value(@intCast(m)), noiseValue(@intCast(m)));
}
