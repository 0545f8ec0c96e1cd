// The lower levels of `egg bench ladder`, to be read: a matrix product in the textbook's order, in a better order, and in blocks
// that stay in the cache; attention with all scores written out, and in one pass. Plain loops for the baseline CPU (in which the
// compiler may find a few vectors), one thread, dense matrices. Not what trains: gemm_vector.zig, attention_vector.zig climb on.
const std = @import("std");

/// The numbers are part of the ABI (src/native/ladder.ts).
pub const Level = enum(u32) { naive = 1, reordered = 2, blocked = 3, scores = 4, online = 5 };

/// What a level tells of itself when it is done: its own number, and how often its inner loop began. The counts of two levels
/// differ for the same matrices, so that a benchmark cannot show one and run another.
pub const Ran = struct { level: Level, inner: u64 };

/// Level 0. C = A B, A (m, k), B (k, n): each element of C is the dot product of a row and a column. The inner loop jumps from
/// row to row of B: one value of each cache line is used before the line is gone.
pub fn naive(c: [*]f32, a: [*]const f32, b: [*]const f32, m: usize, n: usize, k: usize) Ran {
    @setRuntimeSafety(false);
    var inner: u64 = 0;
    for (0..m) |i| {
        for (0..n) |j| {
            inner += 1;
            var sum: f32 = 0;
            for (0..k) |l| sum += a[i * k + l] * b[l * n + j];
            c[i * n + j] = sum;
        }
    }
    return .{ .level = .naive, .inner = inner };
}

/// Level 1. The two inner loops change places: rows of B are added to a row of C. All memory is read in order, and the same
/// multiply-adds are done in the same order for each element: the result has the same bits.
pub fn reordered(c: [*]f32, a: [*]const f32, b: [*]const f32, m: usize, n: usize, k: usize) Ran {
    @setRuntimeSafety(false);
    var inner: u64 = 0;
    for (0..m) |i| {
        const row = c[i * n ..][0..n];
        @memset(row, 0);
        for (0..k) |l| {
            inner += 1;
            const factor = a[i * k + l];
            for (row, b[l * n ..][0..n]) |*sum, value| sum.* += factor * value;
        }
    }
    return .{ .level = .reordered, .inner = inner };
}

/// Rows and columns of C that are summed up in registers; depth and height of what is packed: a panel of A stays in the second-level
/// cache, a sliver of B in the first.
const tile = 4;
const depth_max = 256;
const height_max = 64;
pub const packed_floats = depth_max * height_max;

/// Floats of room that `blocked` needs.
pub fn blockedRoom(n: usize) usize {
    return packed_floats + depth_max * std.mem.alignForward(usize, n, tile);
}

/// Level 2. Blocks of k: rows of B are copied to slivers of `tile` columns, rows of A to slivers of `tile` rows, zeros behind the
/// last, so that the inner loop reads both in order. Each value that it reads is used `tile` times, from a register.
pub fn blocked(c: [*]f32, a: [*]const f32, b: [*]const f32, m: usize, n: usize, k: usize, room: [*]f32) Ran {
    @setRuntimeSafety(false);
    const packed_a = room;
    const packed_b = room + packed_floats;
    var inner: u64 = 0;
    if (k == 0) @memset(c[0 .. m * n], 0);
    var begin: usize = 0;
    while (begin < k) : (begin += depth_max) {
        const depth = @min(depth_max, k - begin);
        packSlivers(packed_b, b + begin * n, 1, n, n, depth);
        var row0: usize = 0;
        while (row0 < m) : (row0 += height_max) {
            const height = @min(height_max, m - row0);
            packSlivers(packed_a, a + row0 * k + begin, k, 1, height, depth);
            var j: usize = 0;
            while (j < n) : (j += tile) {
                var i: usize = 0;
                while (i < height) : (i += tile) {
                    inner += 1;
                    const sums = multiply(packed_a + i * depth, packed_b + j * depth, depth);
                    for (0..@min(tile, height - i)) |r| {
                        for (0..@min(tile, n - j)) |s| {
                            const to = &c[(row0 + i + r) * n + j + s];
                            to.* = if (begin == 0) sums[r][s] else to.* + sums[r][s];
                        }
                    }
                }
            }
        }
    }
    return .{ .level = .blocked, .inner = inner };
}

/// (depth, tile) slivers of `count` rows or columns: `across` leads to the next of them, `along` to the next of k.
fn packSlivers(to: [*]f32, from: [*]const f32, across: usize, along: usize, count: usize, depth: usize) void {
    @setRuntimeSafety(false);
    var out = to;
    var first: usize = 0;
    while (first < count) : (first += tile) {
        for (0..depth) |l| {
            for (0..tile) |i| out[i] = if (first + i < count) from[(first + i) * across + l * along] else 0;
            out += tile;
        }
    }
}

inline fn multiply(a: [*]const f32, b: [*]const f32, depth: usize) [tile][tile]f32 {
    @setRuntimeSafety(false);
    var sums: [tile][tile]f32 = @splat(@splat(0));
    for (0..depth) |l| {
        inline for (0..tile) |i| {
            inline for (0..tile) |j| sums[i][j] += a[l * tile + i] * b[l * tile + j];
        }
    }
    return sums;
}

/// Level 0 of attention. One head, causal: o = softmax(q k^T / sqrt(d)) v, all (time, d). The scores of all pairs are written out
/// (time, time), then each row becomes weights, then the weights are multiplied with v: memory grows with the square of time.
pub fn scores(o: [*]f32, q: [*]const f32, k: [*]const f32, v: [*]const f32, time: usize, d: usize, room: [*]f32) Ran {
    @setRuntimeSafety(false);
    const scale = 1 / @sqrt(@as(f32, @floatFromInt(d)));
    var inner: u64 = 0;
    for (0..time) |t| {
        for (0..t + 1) |s| {
            inner += 1;
            var dot: f32 = 0;
            for (0..d) |i| dot += q[t * d + i] * k[s * d + i];
            room[t * time + s] = dot * scale;
        }
    }
    softmaxRows(room, time);
    for (0..time) |t| {
        for (0..d) |i| {
            inner += 1;
            var sum: f32 = 0;
            for (0..t + 1) |s| sum += room[t * time + s] * v[s * d + i];
            o[t * d + i] = sum;
        }
    }
    return .{ .level = .scores, .inner = inner };
}

/// Weights of each query over the keys that it sees, from their scores, in place (time, time); the rest of a row becomes 0.
pub fn softmaxRows(rows: [*]f32, time: usize) void {
    @setRuntimeSafety(false);
    for (0..time) |t| {
        const row = rows[t * time ..][0 .. t + 1];
        var largest = row[0];
        for (row) |x| largest = @max(largest, x);
        var sum: f32 = 0;
        for (row) |*x| {
            x.* = @exp(x.* - largest);
            sum += x.*;
        }
        for (row) |*x| x.* /= sum;
        @memset(rows[t * time + t + 1 .. (t + 1) * time], 0);
    }
}

/// Level 1 of attention. One pass over the keys: the largest score so far, the sum of exp(score - largest) and the weighted sum of
/// the values are kept; when a larger score comes, both sums are scaled down. No score is ever written.
pub fn online(o: [*]f32, q: [*]const f32, k: [*]const f32, v: [*]const f32, time: usize, d: usize) Ran {
    @setRuntimeSafety(false);
    const scale = 1 / @sqrt(@as(f32, @floatFromInt(d)));
    var inner: u64 = 0;
    for (0..time) |t| {
        const out = o[t * d ..][0..d];
        @memset(out, 0);
        var largest = -std.math.inf(f32);
        var sum: f32 = 0;
        for (0..t + 1) |s| {
            inner += 1;
            var dot: f32 = 0;
            for (0..d) |i| dot += q[t * d + i] * k[s * d + i];
            const score = dot * scale;
            if (score > largest) {
                const shrink = @exp(largest - score);
                sum *= shrink;
                for (out) |*x| x.* *= shrink;
                largest = score;
            }
            const weight = @exp(score - largest);
            sum += weight;
            for (out, v[s * d ..][0..d]) |*x, value| x.* += weight * value;
        }
        for (out) |*x| x.* /= sum;
    }
    return .{ .level = .online, .inner = inner };
}

test "ladder: all levels of a product agree, with the counts of their own loops" {
    const gpa = std.testing.allocator;
    var random: std.Random.DefaultPrng = .init(1);
    for ([_][3]usize{ .{ 1, 1, 1 }, .{ 3, 5, 7 }, .{ 65, 33, 300 }, .{ 4, 4, 0 } }) |shape| {
        const m, const n, const k = shape;
        const a = try gpa.alloc(f32, m * k);
        defer gpa.free(a);
        const b = try gpa.alloc(f32, k * n);
        defer gpa.free(b);
        for (a) |*x| x.* = random.random().floatNorm(f32);
        for (b) |*x| x.* = random.random().floatNorm(f32);
        const c = try gpa.alloc(f32, 3 * m * n);
        defer gpa.free(c);
        const room = try gpa.alloc(f32, blockedRoom(n));
        defer gpa.free(room);
        const dots = naive(c.ptr, a.ptr, b.ptr, m, n, k);
        const rows = reordered(c.ptr + m * n, a.ptr, b.ptr, m, n, k);
        const tiles = blocked(c.ptr + 2 * m * n, a.ptr, b.ptr, m, n, k, room.ptr);
        try std.testing.expectEqual(Ran{ .level = .naive, .inner = m * n }, dots);
        try std.testing.expectEqual(Ran{ .level = .reordered, .inner = m * k }, rows);
        try std.testing.expectEqual(Level.blocked, tiles.level);
        try std.testing.expectEqualSlices(f32, c[0 .. m * n], c[m * n ..][0 .. m * n]);
        for (c[0 .. m * n], c[2 * m * n ..]) |x, y| try std.testing.expectApproxEqAbs(x, y, 1e-4);
    }
}

test "ladder: attention in one pass is attention with all scores" {
    const gpa = std.testing.allocator;
    var random: std.Random.DefaultPrng = .init(2);
    const time = 37;
    const d = 8;
    const all = try gpa.alloc(f32, 5 * time * d + time * time);
    defer gpa.free(all);
    for (all) |*x| x.* = random.random().floatNorm(f32);
    const q = all.ptr;
    const first = scores(q + 3 * time * d, q, q + time * d, q + 2 * time * d, time, d, q + 5 * time * d);
    const second = online(q + 4 * time * d, q, q + time * d, q + 2 * time * d, time, d);
    try std.testing.expectEqual(Ran{ .level = .scores, .inner = time * (time + 1) / 2 + time * d }, first);
    try std.testing.expectEqual(Ran{ .level = .online, .inner = time * (time + 1) / 2 }, second);
    for (all[3 * time * d ..][0 .. time * d], all[4 * time * d ..][0 .. time * d]) |x, y| try std.testing.expectApproxEqAbs(x, y, 1e-5);
}
