// What no kernel of a tier can beat: its multiply-add on registers alone, and reading memory. Part of every tier's object,
// called by the benchmark only (../bench.zig). Twin: scalar.zig. Arguments: ops.zig.
const std = @import("std");
const builtin = @import("builtin");
const ops = @import("ops.zig");

const V16 = @Vector(16, i32);
const U16 = @Vector(16, u32);
const V64 = @Vector(64, u8);

/// As many vectors of sums as fill the registers: 16 registers of 512 bits, 12 of 256, 20 of 128.
const vectors = if (builtin.cpu.arch != .x86_64) 5 else if (builtin.cpu.has(.x86, .avx512f)) 16 else 6;

pub fn Peak(comptime dot: type) type {
    return struct {
        pub fn peak(op: *ops.Peak) callconv(.c) void {
            if (op.bytes == 0) multiplyAdd(op) else readMemory(op);
        }

        fn multiplyAdd(op: *ops.Peak) void {
            // Each sum is a factor of its own next product, or the compiler would see that the products are always the same.
            var sums: [vectors]V16 = undefined;
            inline for (&sums, 0..) |*sum, i| sum.* = @bitCast(@as(U16, @splat(op.seed)) *% std.simd.iota(u32, 16) +% @as(U16, @splat(i)));
            const factor: V16 = @bitCast(@as(U16, @splat(op.seed)));
            for (0..op.rounds) |_| {
                inline for (&sums) |*sum| sum.* = if (dot.expands) dot.dot16(sum.*, sum.*, factor) else dot.dot(sum.*, sum.*, factor);
            }
            var all: V16 = @splat(0);
            for (sums) |sum| all ^= sum;
            op.sink = @bitCast(@reduce(.Xor, all));
            op.done = @as(u64, op.rounds) * vectors * (if (dot.expands) 32 else 64);
        }

        fn readMemory(op: *ops.Peak) void {
            var sums: [4]V64 = @splat(@splat(0));
            var i: usize = 0;
            while (i < op.bytes) : (i += 512) {
                inline for (0..8) |line| sums[line % 4] ^= op.data[i + line * 64 ..][0..64].*;
            }
            const all: U16 = @bitCast(sums[0] ^ sums[1] ^ sums[2] ^ sums[3]);
            op.sink = @reduce(.Xor, all);
            op.done = op.bytes;
        }
    };
}
