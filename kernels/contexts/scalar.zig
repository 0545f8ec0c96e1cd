// The context model's kernels in plain loops that read like the formulas of ops.zig: the oracle of the tests, and the tier for CPUs
// that have no other. Not fast. Read next: vector.zig.
const ops = @import("ops.zig");

const pair_lanes = ops.pair_lanes;

pub const table: ops.Table = .{ .group = &group, .position = &position, .move = &move };

/// Value i of the noise of `key`.
pub fn noise(key: u32, i: u32) i8 {
    const word = ops.hash((key +% i / 4) *% ops.golden_ratio);
    const byte: i8 = @bitCast(@as(u8, @truncate(word >> @intCast(8 * (i % 4)))));
    return (byte >> 2) | 1;
}

fn group(op: *const ops.Group) callconv(.c) void {
    const width = ops.padded(op.vocabulary);
    for (0..width) |v| {
        for (0..pair_lanes) |p| {
            const b = if (v < op.vocabulary) noise(op.key, @intCast(v * pair_lanes + p)) else 0;
            op.noise[v * pair_lanes + p] = b;
            if (v < (op.vocabulary + 1) & ~@as(usize, 1)) op.pairs[v / 2 * 2 * pair_lanes + 2 * p + v % 2] = b;
            op.quads[(p / 4 * width + v) * 4 + p % 4] = b;
        }
        op.offsets[v] = 0; // inputs are not biased here
    }
}

/// L of ops.Position.
pub fn logarithm(z: u32) i32 {
    const e: i32 = 31 - @as(i32, @clz(z));
    const f: i32 = @intCast(((z << @intCast(@clz(z))) >> 23) & 255);
    return 256 * e + f + ((f * (256 - f) * 89) >> 16);
}

fn position(op: *ops.Position) callconv(.c) void {
    const width = ops.padded(op.vocabulary);
    const half: i32 = if (op.shift == 0) 0 else @as(i32, 1) << @intCast(op.shift - 1);
    var clean: [ops.max_vocabulary]i32 = undefined;
    var top: i32 = -(1 << 20);
    for (clean[0..op.vocabulary], 0..) |*sum, v| {
        sum.* = 0;
        for (op.rows[0..op.order]) |row| sum.* += op.weights[row * width + v];
        top = @max(top, sum.*);
    }
    const ceiling = top + @as(i32, @intCast(op.margin));
    op.loss = 0;
    for (0..pair_lanes) |p| {
        var factors: [ops.max_order]i32 = undefined;
        var a: i32 = 0;
        for (op.rows[0..op.order], factors[0..op.order]) |row, *factor| {
            factor.* = noise(op.key, row *% pair_lanes +% @as(u32, @intCast(p)));
            a += factor.*;
        }
        var losses: [2]i32 = undefined;
        for (&losses, [2]i32{ 1, -1 }) |*loss, sign| {
            var z: u32 = 0;
            for (clean[0..op.vocabulary], 0..) |sum, v| {
                const b: i32 = op.pairs[v / 2 * 2 * pair_lanes + 2 * p + v % 2];
                const neg: u32 = @intCast(ceiling - sum - sign * ((a * b + half) >> @intCast(op.shift)));
                if (neg < 256) z += ops.powers[neg % 16] >> @intCast(neg / 16);
                if (v == op.target) loss.* = 16 * @as(i32, @intCast(neg));
            }
            loss.* += logarithm(@max(z, 1)); // all of it may lie below what Z holds, where perturbations are large
            op.loss += loss.* - 15 * 256;
        }
        const difference = losses[1] - losses[0];
        op.differences[p] = difference;
        const rounding: i32 = if (op.fitness_shift == 0) 0 else @as(i32, 1) << @intCast(op.fitness_shift - 1);
        const fitness = @min(@max((difference + rounding) >> @intCast(op.fitness_shift), -127), 127);
        for (factors[0..op.order], op.votes[0..op.order]) |factor, votes| {
            const share = (factor * fitness + 16) >> 5;
            for (0..op.vocabulary) |v| votes[v] +%= share * op.pairs[v / 2 * 2 * pair_lanes + 2 * p + v % 2];
        }
    }
}

fn move(op: *ops.Move) callconv(.c) void {
    op.changed = 0;
    for (op.votes[0..op.padded], op.master[0..op.padded], op.weights[0..op.padded]) |votes, *master, *weight| {
        const change = (@as(i64, votes) * op.rate) >> 16;
        const moved = master.* + @as(i32, @intCast(@min(@max(change, -ops.change_limit), ops.change_limit)));
        master.* = @min(@max(moved, -ops.weight_limit), ops.weight_limit);
        const new: i8 = @intCast((master.* + (1 << (ops.unit_bits - 1))) >> ops.unit_bits);
        if (new != weight.*) op.changed += 1;
        weight.* = new;
    }
}
