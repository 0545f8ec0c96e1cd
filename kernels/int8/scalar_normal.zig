// The plain twin of rule nano-egg's noise, and of what puts noise on vectors and on the embedding. Loops that read like the
// formulas in ops.zig; the oracle of vector_normal.zig. The random numbers: threefry.zig.
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const plain = @import("plain.zig");
const threefry = @import("threefry.zig");

const group_lanes = layout.group_lanes;
const pair_lanes = layout.pair_lanes;
const clip = plain.clip;
const get = plain.get;
const put = plain.put;

fn normal(key: threefry.Key, index: u32) i8 {
    return threefry.noise.value(threefry.word(key, index) >> 9);
}

pub fn normalFill(op: *const ops.NormalFill) callconv(.c) void {
    for (op.starts, 0..) |start, lane| {
        op.b_sums[lane] = 0;
        for (0..op.cols) |k| {
            const value = normal(op.key, start + @as(u32, @intCast(k)));
            op.b[((k >> 2) * pair_lanes + lane) * 4 + (k & 3)] = value;
            op.b_sums[lane] += value;
        }
        for (0..op.rows) |r| op.a[r * pair_lanes + lane] = normal(op.key, start + op.cols + @as(u32, @intCast(r)));
    }
}

pub fn normalProducts(op: *const ops.NormalProducts) callconv(.c) void {
    for (op.starts, 0..) |start, lane| {
        for (0..op.rows) |r| {
            const first = start + 2 * @as(u32, @intCast(r));
            op.out[r * pair_lanes + lane] = @as(i16, normal(op.key, first)) * normal(op.key, first + 1);
        }
    }
}

pub fn perturbVector(op: *const ops.PerturbVector) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        const group = lane / group_lanes;
        const noise: [*]align(1) const i16 = if (op.perturbed != 0) @ptrCast(@as([*]const u8, @ptrCast(op.noise)) + group * op.noise_stride) else op.noise;
        for (0..op.width) |k| {
            var term: i32 = 0;
            if (op.perturbed != 0) {
                const value: i32 = noise[k * pair_lanes + lane % pair_lanes];
                term = (if (lane % group_lanes < pair_lanes) value else -value) >> @intCast(op.perturb_shift);
            }
            op.out[plain.at(k, lane, op.groups)] = clip(op.vector[k] + term);
        }
    }
}

pub fn perturbEmbedded(op: *const ops.PerturbEmbedded) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        const pair = lane % pair_lanes;
        const a = op.a + lane / group_lanes * op.stride;
        const b = op.b + lane / group_lanes * op.stride;
        const factor: i32 = a[@as(usize, op.tokens[lane]) * pair_lanes + pair];
        const sided = if (lane % group_lanes < pair_lanes) factor else -factor;
        for (0..op.width) |k| {
            const term = (sided * b[((k >> 2) * pair_lanes + pair) * 4 + (k & 3)]) >> @intCast(op.perturb_shift);
            put(op.x, k, lane, op.groups, clip(get(op.x, k, lane, op.groups) + term));
        }
    }
}
