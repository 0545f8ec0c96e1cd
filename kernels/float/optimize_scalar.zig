// The plain twin of gradient clipping and optimizer steps: loops that read like the formulas in ops.zig, the oracle of the tests.
// Not fast. Read next: optimize_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("optimize.zig");
const narrow = @import("elementwise_scalar.zig").narrow;

const Bytes = [*]align(64) u8;

pub fn clip(args: *const ops.Clip, _: u32, _: u32, _: Bytes, _: Bytes) void {
    var sum: f64 = 0;
    for (args.sumsq.f32s()[0..args.count]) |value| sum += value;
    const norm: f32 = @floatCast(args.scale * @sqrt(sum));
    const finite = std.math.isFinite(norm);
    const clipped = args.max_norm > 0 and norm > args.max_norm;
    const scale = if (clipped) args.scale * (args.max_norm / norm) else args.scale;
    args.out.f32s()[0..3].* = .{ if (finite) scale else 0, norm, if (finite) 1 else 0 };
}

pub fn optimize(args: *const ops.Optimize, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const step = plan.Step.init(args) orelse return;
    const first, const end = plan.flatRange(tile, args.count);
    const w = args.w.f32s();
    const b1 = args.beta1;
    const b2 = args.beta2;
    for (first..end) |i| {
        var g = step.scale * args.grad.f32s()[i];
        switch (@as(ops.Rule, @enumFromInt(args.rule))) {
            .sgd => {
                g += args.decay * w[i];
                if (b1 != 0) {
                    const m = &args.m.f32s()[i];
                    m.* = if (step.first) g else b1 * m.* + g;
                    g = if (args.nesterov == 1) g + b1 * m.* else m.*;
                }
                w[i] -= step.lr * g;
            },
            .adam, .adamw => |rule| {
                if (rule == .adam) g += args.decay * w[i] else w[i] *= 1 - step.lr * args.decay;
                const m = &args.m.f32s()[i];
                const v = &args.v.f32s()[i];
                m.* = b1 * m.* + (1 - b1) * g;
                v.* = b2 * v.* + (1 - b2) * g * g;
                w[i] -= step.rate * m.* / (@sqrt(v.*) * step.spread + args.eps);
            },
            .lion => {
                const m = &args.m.f32s()[i];
                const u = b1 * m.* + (1 - b1) * g;
                const sign: f32 = if (u > 0) 1 else if (u < 0) -1 else u;
                w[i] -= step.lr * (sign + args.decay * w[i]);
                m.* = b2 * m.* + (1 - b2) * g;
            },
        }
        if (args.copy.present()) args.copy.bf16s()[i] = narrow(w[i]);
    }
}
