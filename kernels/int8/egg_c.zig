// Rule egg.c: initial weights, noise and update bounds of d0rc/egg.c, full_trained_egg.c. Its operators are the first set
// in ops.zig. Not the training step (eggroll.zig). Read next: nano_egg.zig, the same of another rule.
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const scalar = @import("scalar.zig");
const Model = @import("model.zig").Model;

/// Seed of the initial weights; the run's seed only drives the perturbations.
const initial_seed = 42;
/// 1.0 in fixed point: the initial weight of a layer norm.
const one = 16;

/// One xorshift32 stream (Marsaglia 2003) from seed 42, each value uniform 0..31 with a random sign, in the order
/// embedding, head, then layer by layer the GRU and the MLP matrices; norms 1.0, biases 0.
pub fn initialize(model: *Model) void {
    var state: u32 = initial_seed;
    draw(model.outer(.embedding), &state);
    draw(model.outer(.head), &state);
    @memset(model.outer(.ln_out), one);
    for (0..model.shape.layers) |l| {
        inline for (.{ .ln1, .ln2 }) |kind| @memset(model.layer(l, kind), one);
        inline for (.{ .bf, .bh }) |kind| @memset(model.layer(l, kind), 0);
        inline for (.{ .wf, .uf, .wh, .uh, .expand, .project }) |kind| draw(model.layer(l, kind), &state);
    }
}

fn draw(weights: []i8, state: *u32) void {
    for (weights) |*weight| weight.* = scalar.noiseValue(scalar.xorshift32(state));
}

/// The noise of one matrix for one group: each pair a stream of its own, from the step's seed, the pair and the matrix.
pub fn fillNoise(kernels: *const ops.Table, seed: u32, matrix: layout.Parameter, group: usize, out: [*]u8) void {
    kernels.noise_fill(&.{
        .seed = seed +% @as(u32, @intCast(group * layout.pair_lanes)) +% matrix.number,
        .rows = matrix.rows,
        .cols = matrix.cols,
        .a = @ptrCast(out),
        .b = @ptrCast(out + matrix.noise_b - matrix.noise_a),
        .b_sums = @ptrCast(@alignCast(out + matrix.noise_b_sums - matrix.noise_a)),
    });
}

/// A weight moves where its votes pass the threshold.
pub fn bounds(threshold: u32) ops.Bounds {
    const limit: i32 = @intCast(threshold);
    return .{ .above = limit, .below = -limit, .zero_falls = 0 };
}
