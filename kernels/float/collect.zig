// Makes a tier's table out of families of kernels, by name. No kernels of its own.
// Read next: scalar.zig and vector.zig, which name the families.
const std = @import("std");
const ops = @import("ops.zig");
const Peak = @import("peak.zig").Peak;

/// The table of all operations that are functions of that name in one of `families`:
/// fn NAME(args: *const Args, phase: u32, tile: u32, workspace: [*]align(64) u8, scratch: [*]align(64) u8) void, or u32 (see Run).
pub fn table(comptime lanes: u32, comptime families: anytype) ops.Table {
    var result: ops.Table = .{ .lanes = lanes, .run = @splat(null), .peak = &Peak(lanes, false).peak };
    for (families) |family| {
        for (std.enums.values(ops.Op)) |op| {
            if (!@hasDecl(family, @tagName(op))) continue;
            // A helper may have an operation's name (activate), but not its parameters.
            if (@typeInfo(@TypeOf(@field(family, @tagName(op)))).@"fn".params.len != 5) continue;
            result.run[@intFromEnum(op)] = erased(ops.ArgsOf(op), @field(family, @tagName(op)));
        }
    }
    return result;
}

fn erased(comptime Args: type, comptime kernel: anytype) ops.Run {
    return struct {
        fn run(args: *const anyopaque, phase: u32, tile: u32, workspace: [*]align(64) u8, scratch: [*]align(64) u8) callconv(.c) u32 {
            const result = kernel(@as(*const Args, @ptrCast(@alignCast(args))), phase, tile, workspace, scratch);
            return if (@TypeOf(result) == void) 0 else result;
        }
    }.run;
}
