// Root of one tier's object: int8/vector.zig and float/vector.zig compiled with that tier's CPU features, exported as hidden tables.
// Nothing here may be called before kernels/cpu.zig has found that the machine can run it.
const std = @import("std");
const options = @import("tier");
const float_ops = @import("float/ops.zig");
const ops = @import("int8/ops.zig");

const dot = switch (std.meta.stringToEnum(Tier, options.name).?) {
    .avx512vnni => @import("int8/dot_avx512vnni.zig"),
    .avxvnni => @import("int8/dot_avxvnni.zig"),
    .avx2 => @import("int8/dot_avx2.zig"),
    .dotprod => @import("int8/dot_dotprod.zig"),
    .neon => @import("int8/dot_neon.zig"),
};

const Tier = enum { avx512vnni, avxvnni, avx2, dotprod, neon };

const int8: ops.Table = @import("int8/vector.zig").Kernels(dot).table;
const contexts: @import("contexts/ops.zig").Table = @import("contexts/vector.zig").Kernels(dot).table;

/// Lanes of f32; null where the tier has the float kernels of another (cpu.zig).
const float_lanes: ?comptime_int = switch (std.meta.stringToEnum(Tier, options.name).?) {
    .avx512vnni => 16,
    .avx2 => 8,
    .neon => 4,
    .avxvnni, .dotprod => null,
};

const float_table = @import("float/vector.zig").table(float_lanes.?);

/// As float_table, for CPUs that have AVX512_BF16 too.
const float_bf16_table = table: {
    var result = float_table;
    result.run[@intFromEnum(float_ops.Op.gemm)] = @import("float/collect.zig").table(float_lanes.?, .{@import("float/gemm_vector.zig").Bf16Kernels}).run[@intFromEnum(float_ops.Op.gemm)];
    result.peak = &@import("float/peak.zig").Peak(float_lanes.?, true).peak;
    break :table result;
};

comptime {
    @export(&int8, .{ .name = "egg_int8_" ++ options.name, .visibility = .hidden });
    @export(&contexts, .{ .name = "egg_contexts_" ++ options.name, .visibility = .hidden });
    if (float_lanes != null) @export(&float_table, .{ .name = "egg_float_" ++ options.name, .visibility = .hidden });
    if (float_lanes == 16) @export(&float_bf16_table, .{ .name = "egg_float_avx512bf16", .visibility = .hidden });
}

extern fn egg_panic(message: [*]const u8, length: usize) callconv(.c) noreturn;

pub const panic = std.debug.FullPanic(struct {
    fn panicFn(message: []const u8, _: ?usize) noreturn {
        egg_panic(message.ptr, message.len);
    }
}.panicFn);
