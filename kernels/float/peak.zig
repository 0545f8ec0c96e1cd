// What no kernel of a tier can beat: its f32 and bf16 multiply-adds on registers alone, and passing memory on. Part of every
// tier's table, called by the benchmark only (../bench.zig). The same for integers: ../int8/peak.zig.
const std = @import("std");

pub const Kind = enum(u32) { multiply_add, dot_bf16, scale, add };

/// multiply_add, dot_bf16: `rounds` over registers, `done` counts multiplications and additions, 0 where the tier has no such
/// instruction. scale: to = factor * from; add: to = from + factor * other; `count` elements, `done` counts bytes read and written.
pub const Limit = extern struct {
    what: u32,
    rounds: u32,
    from: [*]const f32,
    other: [*]const f32,
    to: [*]f32,
    count: usize,
    done: u64,
    factor: f32,
    sink: f32,
};

/// `pairs`: the CPU has AVX512_BF16.
pub fn Peak(comptime lanes: comptime_int, comptime pairs: bool) type {
    return struct {
        const V = @Vector(lanes, f32);
        /// Sums that wait for nobody: more than latency times units, with registers left for the factors.
        const sums = if (lanes == 8 or lanes == 1) 12 else 24;
        const step = 4 * lanes;

        pub fn peak(op: *Limit) callconv(.c) void {
            @setRuntimeSafety(false);
            op.done = 0;
            switch (@as(Kind, @enumFromInt(op.what))) {
                .multiply_add => multiplyAdd(op),
                .dot_bf16 => if (pairs) dotBf16(op),
                .scale => pass(op, false),
                .add => pass(op, true),
            }
        }

        fn multiplyAdd(op: *Limit) void {
            @setRuntimeSafety(false);
            // Each sum is a factor of its own next value, which goes to b / (1 - a): never too small or too large.
            const a: V = @splat(op.factor);
            const b: V = @splat(1);
            var acc: [sums]V = undefined;
            inline for (&acc, 0..) |*sum, i| sum.* = @splat(@as(f32, i) + op.factor);
            for (0..op.rounds) |_| {
                inline for (&acc) |*sum| sum.* = if (lanes == 1) sum.* * a + b else @mulAdd(V, sum.*, a, b);
            }
            op.sink = total(acc);
            op.done = @as(u64, op.rounds) * sums * lanes * 2;
        }

        fn dotBf16(op: *Limit) void {
            @setRuntimeSafety(false);
            const a: V = @splat(@bitCast(@as(u32, 0x3c003c00))); // two bf16 of 2^-7
            var acc: [sums]V = undefined;
            inline for (&acc, 0..) |*sum, i| sum.* = @splat(@as(f32, i));
            for (0..op.rounds) |_| {
                inline for (&acc) |*sum| sum.* = asm ("vdpbf16ps %[b], %[a], %[acc]"
                    : [acc] "=v" (-> V),
                    : [_] "0" (sum.*),
                      [a] "v" (a),
                      [b] "v" (a),
                );
            }
            op.sink = total(acc);
            op.done = @as(u64, op.rounds) * sums * lanes * 4;
        }

        fn total(acc: [sums]V) f32 {
            var all: V = @splat(0);
            for (acc) |sum| all += sum;
            return @reduce(.Add, all);
        }

        /// to = factor * from, or from + factor * other; whole steps only. Not a plain copy: that would become a call.
        fn pass(op: *Limit, comptime two: bool) void {
            @setRuntimeSafety(false);
            const factor: V = @splat(op.factor);
            var i: usize = 0;
            while (i + step <= op.count) : (i += step) {
                inline for (0..4) |j| {
                    const x = load(op.from + i + j * lanes);
                    const value = if (two) x + factor * load(op.other + i + j * lanes) else factor * x;
                    @as(*align(4) V, @ptrCast(op.to + i + j * lanes)).* = value;
                }
            }
            op.done = i * @sizeOf(f32) * (if (two) 3 else 2);
        }

        inline fn load(from: [*]const f32) V {
            return @as(*align(4) const V, @ptrCast(from)).*;
        }
    };
}
