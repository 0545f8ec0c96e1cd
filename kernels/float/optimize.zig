// Plans of gradient clipping and optimizer steps: every size and flag checked, operands linked, work cut into tiles; and the
// factors that all elements of a step share.
// Not the kernels: optimize_scalar.zig (plain loops, the oracle), optimize_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");
const elementwise = @import("elementwise.zig");

pub const flatRange = elementwise.flatRange;

pub fn clip(args: *ops.Clip, link: *ops.Link) ops.Error!ops.Plan {
    if (!(args.max_norm >= 0)) return link.fail(error.BadArgument, "max_norm: {d} is not 0 or more", .{args.max_norm});
    try link.dense(&args.sumsq, &.{args.count}, .f32, "sumsq");
    try link.dense(&args.out, &.{3}, .f32, "out");
    return .{ .work = args.count };
}

pub fn optimize(args: *ops.Optimize, link: *ops.Link) ops.Error!ops.Plan {
    const rule = try link.choice(ops.Rule, args.rule, "rule");
    if (try link.choice(bool, args.nesterov, "nesterov") and (rule != .sgd or args.beta1 == 0)) {
        return link.fail(error.BadArgument, "nesterov: sgd with momentum only", .{});
    }
    const size = [_]u32{args.count};
    try link.dense(&args.w, &size, .f32, "w");
    try link.dense(&args.grad, &size, .f32, "grad");
    if (rule != .sgd or args.beta1 != 0 or args.m.present()) try link.dense(&args.m, &size, .f32, "m");
    if (rule == .adam or rule == .adamw) try link.dense(&args.v, &size, .f32, "v");
    try link.optional(&args.clip, &.{3}, .f32, "clip");
    try link.dense(&args.settings, &.{2}, .f32, "settings");
    try link.optional(&args.copy, &size, .bf16, "copy");
    return .{ .tiles = .{ elementwise.flatTiles(args.count), 0, 0 }, .work = 4 * @as(u64, args.count) };
}

/// What the elements of one step share; null where the gradients are not finite and nothing may change.
pub const Step = struct {
    lr: f32,
    scale: f32,
    first: bool,
    /// lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t), formed in f64.
    rate: f32,
    spread: f32,

    pub fn init(args: *const ops.Optimize) ?Step {
        const lr, const t = args.settings.f32s()[0..2].*;
        if (args.clip.present() and args.clip.f32s()[2] == 0) return null;
        const adaptive = args.v.present();
        return .{
            .lr = lr,
            .scale = if (args.clip.present()) args.clip.f32s()[0] else 1,
            .first = !(t > 1),
            .rate = if (adaptive) @floatCast(lr / (1 - power(args.beta1, t))) else lr,
            .spread = if (adaptive) @floatCast(1 / @sqrt(1 - power(args.beta2, t))) else 1,
        };
    }

    /// base^t for whole t >= 1, by squaring: libm is not for tiers.
    fn power(base: f64, t: f32) f64 {
        var steps: u64 = if (t > 1) @intFromFloat(@min(t, 1 << 62)) else 1;
        var factor = base;
        var product: f64 = 1;
        while (steps > 0) : (steps >>= 1) {
            if (steps & 1 == 1) product *= factor;
            factor *= factor;
        }
        return product;
    }
};
