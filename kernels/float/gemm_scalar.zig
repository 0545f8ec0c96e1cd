// The plain twin of matrix products: loops that read like the formulas in ops.zig, the oracle of the tests.
// Not fast. Read next: gemm_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("gemm.zig");
const activated = @import("activate_scalar.zig").function;

const Bytes = [*]align(64) u8;

/// A tile is one row of C in one batch.
pub fn gemm(args: *const ops.Gemm, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const i: usize = tile % args.m;
    const at = plan.offsetsOf(args, tile / args.m);
    const rounded = args.compute == @intFromEnum(ops.Dtype.bf16);
    const a_row: usize, const a_step: usize = if (args.ta == 0) .{ i * args.lda, 1 } else .{ i, args.lda };
    for (0..args.n) |j| {
        const b_row: usize, const b_step: usize = if (args.tb == 0) .{ j, args.ldb } else .{ j * args.ldb, 1 };
        var long: f64 = 0;
        for (0..args.k) |l| {
            const a = read(args.a.at + at.a, args.a_dtype, a_row + l * a_step);
            const b = if (args.b_dtype == @intFromEnum(ops.Dtype.i8)) @as(f32, @floatFromInt(args.b.i8s()[b_row + l])) else read(args.b.at + at.b, args.b_dtype, b_row + l * b_step);
            long += if (rounded) toF32(toBf16(a)) * toF32(toBf16(b)) else a * b;
        }
        var sum: f32 = @floatCast(long);
        if (args.scales.present()) sum *= args.scales.f32s()[j];
        var x = args.alpha * sum;
        if (args.bias.present()) x += args.bias.f32s()[j];
        const at_c = i * args.ldc + j;
        var y, const slope = activated(@enumFromInt(args.activation), x);
        if (args.slope.present()) write(args.slope.at + at.c, args.c_dtype, at_c, slope);
        if (args.factor.present()) y *= read(args.factor.at + at.c, args.c_dtype, at_c);
        if (args.beta != 0) y += args.beta * read(args.c.at + at.c, args.c_dtype, at_c);
        write(args.c.at + at.c, args.c_dtype, at_c, y);
    }
}

/// Rounds to nearest even; NaN stays NaN.
pub fn toBf16(x: f32) u16 {
    const bits: u32 = @bitCast(x);
    if (std.math.isNan(x)) return @intCast((bits >> 16) | 0x40);
    return @intCast((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

pub fn toF32(x: u16) f32 {
    return @bitCast(@as(u32, x) << 16);
}

fn read(address: u64, dtype: u32, at: usize) f32 {
    const ref: ops.Ref = .{ .at = address };
    return if (dtype == @intFromEnum(ops.Dtype.bf16)) toF32(ref.bf16s()[at]) else ref.f32s()[at];
}

fn write(address: u64, dtype: u32, at: usize, x: f32) void {
    const ref: ops.Ref = .{ .at = address };
    if (dtype == @intFromEnum(ops.Dtype.bf16)) ref.bf16s()[at] = toBf16(x) else ref.f32s()[at] = x;
}
