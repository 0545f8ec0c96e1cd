// Root of one tier's object: vector.zig compiled with that tier's CPU features, exported as one hidden table.
// Nothing here may be called before kernels/cpu.zig has found that the machine can run it.
const std = @import("std");
const options = @import("tier");
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

comptime {
    @export(&int8, .{ .name = "egg_int8_" ++ options.name, .visibility = .hidden });
    @export(&contexts, .{ .name = "egg_contexts_" ++ options.name, .visibility = .hidden });
}

extern fn egg_panic(message: [*]const u8, length: usize) callconv(.c) noreturn;

pub const panic = std.debug.FullPanic(struct {
    fn panicFn(message: []const u8, _: ?usize) noreturn {
        egg_panic(message.ptr, message.len);
    }
}.panicFn);
