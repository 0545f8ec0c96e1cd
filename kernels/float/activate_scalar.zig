// The plain twin of activations and gates: loops that read like the formulas in ops.zig, the oracle of the tests.
// Not fast. Read next: activate_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("activate.zig");

const Bytes = [*]align(64) u8;

pub fn activate(args: *const ops.Activate, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const first_row, const end_row, const first_col, const end_col = plan.Grid.init(args.rows, args.width).block(tile);
    for (first_row..end_row) |row| {
        for (first_col..end_col) |col| {
            const value = function(@enumFromInt(args.activation), args.x.f32s()[row * args.x_stride + col])[0];
            args.y.f32s()[row * args.y_stride + col] = if (args.up.present()) value * args.up.f32s()[row * args.up_stride + col] else value;
        }
    }
}

pub fn activate_backward(args: *const ops.ActivateBackward, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const first_row, const end_row, const first_col, const end_col = plan.Grid.init(args.rows, args.width).block(tile);
    for (first_row..end_row) |row| {
        for (first_col..end_col) |col| {
            const value, const slope = function(@enumFromInt(args.activation), args.x.f32s()[row * args.x_stride + col]);
            const dy = args.dy.f32s()[row * args.y_stride + col];
            const up = if (args.up.present()) args.up.f32s()[row * args.up_stride + col] else 1;
            if (args.dx.present()) put(&args.dx.f32s()[row * args.x_stride + col], dy * up * slope, args.accumulate);
            if (args.dup.present()) put(&args.dup.f32s()[row * args.up_stride + col], dy * value, args.accumulate);
        }
    }
}

fn put(to: *f32, value: f32, accumulate: u32) void {
    to.* = if (accumulate == 1) to.* + value else value;
}

/// act(x) and act'(x). The derivatives of gelu and silu are 1 or 0 far from 0, where their formulas would overflow.
pub fn function(activation: ops.Activation, x: f32) [2]f32 {
    switch (activation) {
        .none => return .{ x, 1 },
        .relu => return .{ if (x > 0 or std.math.isNan(x)) x else 0, if (x > 0) 1 else if (x <= 0) 0 else x },
        .gelu => {
            const c = 0.7978845608028654; // sqrt(2 / pi)
            const s = sigmoid(2 * c * (x + 0.044715 * x * x * x)); // (1 + tanh(u)) / 2 = sigmoid(2 u)
            const near = if (x > 30) 30 else if (x < -30) -30 else x;
            const slope = 2 * c * (1 + 3 * 0.044715 * near * near);
            return .{ x * s, s + near * s * sigmoid(-2 * c * (near + 0.044715 * near * near * near)) * slope };
        },
        .silu => {
            const s = sigmoid(x);
            const near = if (x > 128) 128 else if (x < -128) -128 else x;
            return .{ x * s, s + near * s * sigmoid(-near) };
        },
        .sigmoid => return .{ sigmoid(x), sigmoid(x) * sigmoid(-x) },
        .tanh => return .{ std.math.tanh(x), 4 * sigmoid(2 * x) * sigmoid(-2 * x) },
    }
}

fn sigmoid(x: f32) f32 {
    return if (x < 0) @exp(x) / (1 + @exp(x)) else 1 / (1 + @exp(-x));
}
