// The plain twin of the int8 kernels: loops that read like the formulas in ops.zig, on every machine, and the oracle
// that the SIMD tiers are tested against. Not fast. Read next: scalar_operators.zig (norms, gates, loss), scalar_normal.zig
// (rule nano-egg's noise), and vector.zig, the same kernels in lanes.
const layout = @import("layout.zig");
const normal = @import("scalar_normal.zig");
const ops = @import("ops.zig");
const plain = @import("plain.zig");
const Operators = @import("scalar_operators.zig").Operators;

const group_lanes = layout.group_lanes;
const pair_lanes = layout.pair_lanes;
const at = plain.at;
const clip = plain.clip;
const get = plain.get;
const put = plain.put;
const signed = plain.signed;

pub const table: ops.Table = .{
    .bias = 0,
    .embed = &embed,
    .matmul = &matmul,
    .noise_dot = &noiseDot,
    .add = &add,
    .update = &update,
    .peak = &peak,
    .rows_matmul = &rowsMatmul,
    .rows_noise_dot = &rowsNoiseDot,
    .egg_c = Operators(.egg_c).table,
    .nano_egg = Operators(.nano_egg).table,
    .noise_fill = &noiseFill,
    .normal_fill = &normal.normalFill,
    .normal_products = &normal.normalProducts,
    .perturb_vector = &normal.perturbVector,
    .perturb_embedded = &normal.perturbEmbedded,
    .update_vector = &updateVector,
};

fn embed(op: *const ops.Embed) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        const row = op.embedding + @as(usize, op.tokens[lane]) * op.width;
        for (0..op.width) |k| put(op.out, k, lane, op.groups, row[k]);
    }
}

fn matmul(op: *const ops.Matmul) callconv(.c) void {
    for (0..op.groups) |group| {
        const a = op.a + group * op.a_stride;
        for (0..op.rows) |r| {
            const row = op.weights + r * op.cols;
            // Lane by lane inside, so that inputs are read in the order in which they lie.
            var sums: [group_lanes]i32 = @splat(0);
            for (0..op.cols) |k| {
                const x = op.x + at(k, group * group_lanes, op.groups);
                for (&sums, 0..) |*sum, lane| sum.* += @as(i32, @as(i8, @bitCast(x[lane * 4]))) * row[k];
            }
            for (&sums, 0..) |*sum, lane| {
                const dot = op.dots + group * group_lanes;
                if (op.perturbed != 0) sum.* += (dot[lane] * a[r * pair_lanes + lane % pair_lanes]) >> @intCast(op.perturb_shift);
                put(op.out, r, group * group_lanes + lane, op.groups, clip(scaled(sum.*, op.shift, op.root)));
            }
        }
    }
}

fn scaled(sum: i32, shift: u32, root: u32) i32 {
    return @divFloor(sum >> @intCast(shift), @as(i32, @intCast(root)));
}

fn noiseDot(op: *const ops.NoiseDot) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        const b = op.b + (lane / group_lanes) * op.b_stride;
        var sum: i32 = 0;
        for (0..op.cols) |k| sum += get(op.x, k, lane, op.groups) * b[((k >> 2) * pair_lanes + lane % pair_lanes) * 4 + (k & 3)];
        op.dots[lane] = if (lane % group_lanes < pair_lanes) sum else -sum;
    }
}

fn add(a: [*]const u8, b: [*]const u8, out: [*]u8, bytes: usize) callconv(.c) void {
    for (0..bytes) |i| {
        out[i] = @bitCast(clip(@as(i32, @as(i8, @bitCast(a[i]))) + @as(i8, @bitCast(b[i]))));
    }
}

/// Marsaglia's xorshift32, the step of egg.c's generator.
pub fn xorshift32(state: *u32) u32 {
    var x = state.*;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    state.* = x;
    return x;
}

/// Sign from bit 0, magnitude 0..31 from bits 1..5.
pub fn noiseValue(word: u32) i8 {
    const magnitude: i8 = @intCast((word >> 1) & 31);
    return if (word & 1 != 0) magnitude else -magnitude;
}

/// Calls `store(context, i, value)` for `count` values; egg.c discards four draws before every block of 16.
fn fillStream(state: *u32, count: usize, context: anytype, comptime store: fn (@TypeOf(context), usize, i8) void) void {
    for (0..count) |i| {
        if (i % 16 == 0) for (0..4) |_| {
            _ = xorshift32(state);
        };
        store(context, i, noiseValue(xorshift32(state)));
    }
}

fn noiseFill(op: *const ops.NoiseFill) callconv(.c) void {
    const Lane = struct {
        op: *const ops.NoiseFill,
        lane: usize,
        fn storeA(self: @This(), i: usize, value: i8) void {
            self.op.a[i * pair_lanes + self.lane] = value;
        }
        fn storeB(self: @This(), i: usize, value: i8) void {
            self.op.b[((i >> 2) * pair_lanes + self.lane) * 4 + (i & 3)] = value;
            self.op.b_sums[self.lane] += value;
        }
    };
    for (0..pair_lanes) |lane| {
        var state = op.seed +% @as(u32, @intCast(lane));
        op.b_sums[lane] = 0;
        const self: Lane = .{ .op = op, .lane = lane };
        fillStream(&state, op.rows, self, Lane.storeA);
        fillStream(&state, op.cols, self, Lane.storeB);
    }
}

fn peak(op: *ops.Peak) callconv(.c) void {
    var sums: [12]u32 = undefined;
    for (&sums, 1..) |*sum, i| sum.* = op.seed *% @as(u32, @intCast(2 * i + 1));
    op.sink = 0;
    if (op.bytes == 0) {
        for (0..op.rounds) |_| {
            // Each sum takes a product of its neighbour: one of its own would let the compiler fold rounds together.
            inline for (&sums, 0..) |*sum, i| sum.* +%= sums[(i + 1) % sums.len] *% op.seed;
        }
        op.done = @as(u64, op.rounds) * sums.len;
    } else {
        const words: [*]align(1) const u64 = @ptrCast(op.data);
        var word: u64 = 0;
        for (words[0 .. op.bytes / 8]) |value| word ^= value;
        op.sink = @truncate(word ^ word >> 32);
        op.done = op.bytes;
    }
    for (sums) |sum| op.sink ^= sum;
}

fn update(op: *ops.Update) callconv(.c) void {
    op.changed = 0;
    const padded = layout.alignUp(op.cols, ops.update_cols);
    for (0..op.rows) |r| {
        for (0..op.cols) |k| {
            var vote: i32 = if (op.first != 0) 0 else op.votes[r * padded + k];
            for (0..op.groups) |group| {
                const a = op.a + group * op.noise_stride + r * pair_lanes;
                const b = op.b + group * op.noise_stride + (k >> 2) * pair_lanes * 4 + (k & 3);
                const fitness = op.fitness + group * pair_lanes;
                for (0..pair_lanes) |lane| vote += fitness[lane] * counted(a[lane], op.signs) * counted(b[lane * 4], op.signs);
            }
            if (op.last == 0) op.votes[r * padded + k] = vote else op.changed += move(&op.weights[r * op.cols + k], vote, op.bounds);
        }
    }
}

fn updateVector(op: *ops.UpdateVector) callconv(.c) void {
    op.changed = 0;
    for (0..op.rows) |r| {
        var vote: i32 = if (op.first != 0) 0 else op.votes[r];
        for (0..op.groups) |group| {
            const noise: [*]align(1) const i16 = @ptrCast(@as([*]const u8, @ptrCast(op.noise)) + group * op.noise_stride);
            for (0..pair_lanes) |lane| vote += op.fitness[group * pair_lanes + lane] * counted(noise[r * pair_lanes + lane], op.signs);
        }
        if (op.last == 0) op.votes[r] = vote else op.changed += move(&op.weights[r], vote, op.bounds);
    }
}

/// A noise value, or its sign.
fn counted(value: i32, signs: u32) i32 {
    return if (signs == 0) value else @min(@max(value, -1), 1);
}

/// Moves a weight by its votes; returns by how much.
fn move(weight: *i8, votes: i32, bounds: ops.Bounds) u32 {
    const vote = if (bounds.zero_falls != 0 and votes <= 0) votes - 1 else votes;
    const before = weight.*;
    if (vote > bounds.above) weight.* = clip(@as(i32, before) + 1);
    if (vote < bounds.below) weight.* = clip(@as(i32, before) - 1);
    return @abs(weight.* - before);
}

fn rowsMatmul(op: *const ops.RowsMatmul) callconv(.c) void {
    for (0..op.count) |j| {
        const x = op.x + j * ops.rowBytes(op.cols);
        for (0..op.rows) |r| {
            var sum: i32 = 0;
            for (x[0..op.cols], op.weights[r * op.cols ..][0..op.cols]) |input, w| sum += signed(input) * w;
            if (op.pairs != 0) sum += (op.dots[j] * op.a[j / 2 % op.pairs * op.a_stride + r]) >> @intCast(op.perturb_shift);
            op.out[j * op.out_stride + r] = @bitCast(clip(scaled(sum, op.shift, op.root)));
        }
    }
}

fn rowsNoiseDot(op: *const ops.RowsNoiseDot) callconv(.c) void {
    for (0..op.count) |j| {
        const b = op.b + j / 2 % op.pairs * op.b_stride;
        var sum: i32 = 0;
        for (op.x[j * ops.rowBytes(op.cols) ..][0..op.cols], b[0..op.cols]) |input, factor| sum += signed(input) * factor;
        op.dots[j] = if (j % 2 == 0) sum else -sum;
    }
}
