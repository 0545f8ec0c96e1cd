// Rule nano-egg: initial weights, noise and update bounds of ESHyperscale/nano-egg, run.py, bit for bit. Its operators are the
// second set in ops.zig, its random numbers threefry.zig. Not the training step (eggroll.zig).
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const rule = @import("rule.zig");
const threefry = @import("threefry.zig");
const Model = @import("model.zig").Model;

const Key = threefry.Key;

/// 1.0 in fixed point: the initial weight of a layer norm.
const one = 16;
/// Values of the noise that all parameters, pairs and steps take their stretches of.
const stream_values = 1 << 30;

/// What the keys are derived from.
const Branch = enum(u32) { model = 0, noise = 1 };

fn branch(seed: u32, which: Branch) Key {
    return threefry.foldIn(threefry.keyOf(seed), @intFromEnum(which));
}

/// Normal values of standard deviation 16 for every matrix and the embedding, each from a key of its own; norms 1.0, biases 0.
pub fn initialize(model: *Model, seed: u32) void {
    const key = branch(seed, .model);
    const layers = threefry.foldIn(key, 1);
    draw(model.outer(.embedding), threefry.foldIn(key, 0));
    draw(model.outer(.head), threefry.foldIn(key, 2));
    @memset(model.outer(.ln_out), one);
    for (0..model.shape.layers) |l| {
        const layer = threefry.foldIn(layers, @intCast(l));
        const gates = threefry.foldIn(layer, 0);
        const mlp = threefry.foldIn(layer, 1);
        inline for (.{ .wf, .uf, .wh, .uh }, 0..) |kind, i| draw(model.layer(l, kind), threefry.foldIn(gates, i));
        inline for (.{ .expand, .project }, 0..) |kind, i| draw(model.layer(l, kind), threefry.foldIn(mlp, i));
        inline for (.{ .ln1, .ln2 }) |kind| @memset(model.layer(l, kind), one);
        inline for (.{ .bf, .bh }) |kind| @memset(model.layer(l, kind), 0);
    }
}

fn draw(weights: []i8, key: Key) void {
    for (weights, 0..) |*weight, i| weight.* = threefry.initial.value(threefry.word(key, @intCast(i)) >> 9);
}

/// A parameter's key: of its leaf, and for those of the layers one more of its layer.
pub fn noiseKey(seed: u32, number: u32) Key {
    const leaf = threefry.foldIn(branch(seed, .noise), number % 16);
    return if (number < 16) leaf else threefry.foldIn(leaf, number / 16 - 1);
}

/// Where a pair's values of a parameter begin in the stream, `count` of them, at noise epoch `epoch`.
pub fn noiseStart(key: Key, epoch: u32, pair: u32, count: u32) u32 {
    const hash = (pair >> 16 ^ pair) *% 0x45d9f3b;
    return clamped((threefry.foldIn(key, epoch)[0] ^ hash) & (stream_values - 1), count);
}

/// A stretch that would reach past the stream's end begins earlier.
pub fn clamped(start: u32, count: u32) u32 {
    return @min(start, stream_values - count);
}

/// The noise of one parameter for one group: B, then A; of a vector two values for each of its own.
pub fn fillNoise(kernels: *const ops.Table, seed: u32, epoch: u32, parameter: layout.Parameter, group: usize, out: [*]u8) void {
    const count = if (parameter.kind == .vector) 2 * parameter.rows else parameter.rows + parameter.cols;
    const key = noiseKey(seed, parameter.number);
    var starts: [layout.pair_lanes]u32 align(64) = undefined;
    for (&starts, group * layout.pair_lanes..) |*start, pair| start.* = noiseStart(key, epoch, @intCast(pair), count);
    if (parameter.kind == .vector) {
        kernels.normal_products(&.{ .key = threefry.keyOf(seed), .starts = &starts, .rows = parameter.rows, .out = @ptrCast(@alignCast(out)) });
    } else kernels.normal_fill(&.{
        .key = threefry.keyOf(seed),
        .starts = &starts,
        .rows = parameter.rows,
        .cols = parameter.cols,
        .a = @ptrCast(out),
        .b = @ptrCast(out + parameter.noise_b - parameter.noise_a),
        .b_sums = @ptrCast(@alignCast(out + parameter.noise_b_sums - parameter.noise_a)),
    });
}

/// A weight moves where |votes| * 16 >= threshold * floor(sqrt(pairs)) * unit, with unit 256, or 1 where only the signs of the
/// noise count. With threshold 0 every weight moves, down where its votes are 0.
pub fn bounds(threshold: u32, pairs: u32, signs: bool) ops.Bounds {
    const sixteenths = @as(u64, threshold) * rule.floorSqrt(pairs);
    const least = if (signs) (sixteenths + 15) / 16 else sixteenths * 16;
    const enough: i32 = @intCast(@min(@max(least, 1), 1 << 30)); // votes do not come that far
    return .{ .above = enough - 1, .below = 1 - enough, .zero_falls = @intFromBool(least == 0) };
}
