// Tests of what runs programs: nothing is missing in any tier, and a reference that a plan forgot is found.
// The executor itself is tested from TypeScript: tests/tensor-program.test.ts. Read next: run.zig.
const std = @import("std");
const list = @import("list.zig");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

test "run: every operation has a plan, and a kernel in every tier" {
    for (std.enums.values(ops.Op)) |op| {
        errdefer std.debug.print("{t} is missing\n", .{op});
        try std.testing.expect(list.planners[@intFromEnum(op)] != null);
        for (trial.tables()) |table| try std.testing.expect(table.run[@intFromEnum(op)] != null);
    }
}

test "run: a reference that is not used is refused, as is one that was linked before" {
    var memory = try trial.Memory.init(1 << 12);
    defer memory.deinit();
    const x = memory.put(f32, &.{ 1, 2 });
    const y = memory.reserve(f32, 2);
    const table = trial.tables()[0];
    try std.testing.expectError(error.BadArgument, trial.run(.reduce, .{ .x = x, .y = y, .index = y, .outer = 1, .axis = 2, .inner = 1, .operation = 0, .alpha = 1, .accumulate = 0 }, memory, table, 1));
    var linked = y;
    linked.linked = 1;
    try std.testing.expectError(error.BadArgument, trial.run(.fill, .{ .y = linked, .count = 2, .value = 0 }, memory, table, 1));
}
