// The plain twin of rotary positions: loops that read like the formulas in ops.zig, the oracle of the tests; and the table of
// angles, which the vector kernels use too. Not fast. Read next: rope_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("rope.zig");

const Bytes = [*]align(64) u8;

/// Phase 0: the table of cosines and sines. Phase 1: the rotations.
pub fn rope(args: *const ops.Rope, phase: u32, tile: u32, workspace: Bytes, _: Bytes) void {
    const angles: [*]f32 = @ptrCast(workspace);
    if (phase == 0) return table(args, tile, angles);
    const half = args.d / 2;
    const interleaved = args.pairs == @intFromEnum(ops.RopePairs.interleaved);
    const first, const end = plan.rowRange(args, tile);
    for (first..end) |row| {
        const batch = row / args.time;
        const time = row % args.time;
        const cosines = angles + (if (args.positions.present()) row else time) * args.d;
        const sines = cosines + half;
        for (0..args.heads) |head| {
            const x = args.x.f32s() + batch * args.x_batch + time * args.x_time + head * args.x_head;
            const y = args.y.f32s() + batch * args.y_batch + time * args.y_time + head * args.y_head;
            for (0..half) |i| {
                const left = if (interleaved) 2 * i else i;
                const right = if (interleaved) 2 * i + 1 else i + half;
                const a = x[left];
                const b = x[right];
                put(&y[left], a * cosines[i] - b * sines[i], args.accumulate);
                put(&y[right], a * sines[i] + b * cosines[i], args.accumulate);
            }
        }
    }
}

fn put(to: *f32, value: f32, accumulate: u32) void {
    to.* = if (accumulate == 1) to.* + value else value;
}

/// Some rows of the table, in f64: position * frequency. From one position to the next the pair (cos, sin) is turned by
/// one step, which in f64 costs nothing over the rows of a tile; other positions are formed anew.
pub fn table(args: *const ops.Rope, tile: u32, angles: [*]f32) void {
    const half = args.d / 2;
    const first, const end = plan.tableRange(args, tile);
    for (0..half) |i| {
        const step = plan.frequency(args, i) * args.sign;
        const step_cos = @cos(step);
        const step_sin = @sin(step);
        var before: ?i64 = null;
        var cosine: f64 = undefined;
        var sine: f64 = undefined;
        for (first..end) |row| {
            const position: i64 = if (args.positions.present()) args.positions.i32s()[row] else @intCast(args.offset + row);
            if (before != null and position == before.? + 1) {
                const turned = cosine * step_cos - sine * step_sin;
                sine = cosine * step_sin + sine * step_cos;
                cosine = turned;
            } else {
                const angle = @as(f64, @floatFromInt(position)) * step;
                cosine = @cos(angle);
                sine = @sin(angle);
            }
            before = position;
            angles[row * args.d + i] = @floatCast(cosine);
            angles[row * args.d + half + i] = @floatCast(sine);
        }
    }
}
