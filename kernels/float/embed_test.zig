// Tests of table look-ups and their gradient, all tiers: exact rows, sums in row order, ids checked before anything is written.
// Read next: trial.zig (runs one instruction alone).
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

const Case = struct { rows: u32, vocabulary: u32, width: u32 };
const cases = [_]Case{
    .{ .rows = 0, .vocabulary = 5, .width = 3 },    .{ .rows = 1, .vocabulary = 1, .width = 1 },        .{ .rows = 18, .vocabulary = 19, .width = 12 },    .{ .rows = 3, .vocabulary = 2, .width = 0 },
    .{ .rows = 900, .vocabulary = 7, .width = 70 }, .{ .rows = 40_000, .vocabulary = 300, .width = 5 }, .{ .rows = 60, .vocabulary = 1000, .width = 301 },
};

test "embed: rows of an f32 or bf16 table" {
    var random = std.Random.DefaultPrng.init(31);
    for (trial.tables()) |table| for (cases) |case| for ([_]ops.Dtype{ .f32, .bf16 }) |dtype| {
        var memory = try trial.Memory.init(1 << 22);
        defer memory.deinit();
        const size = case.vocabulary * case.width;
        const from = memory.normal(random.random(), size); // as bf16: any bits
        const ids = memory.reserve(i32, case.rows);
        for (memory.slice(i32, ids, case.rows)) |*id| id.* = random.random().intRangeLessThan(i32, 0, @intCast(case.vocabulary));
        const y = memory.reserve(f32, case.rows * case.width);
        try trial.run(.embed, .{ .table = from, .scales = .{}, .ids = ids, .y = y, .rows = case.rows, .vocabulary = case.vocabulary, .width = case.width, .dtype = @intFromEnum(dtype) }, memory, table, 1);
        for (memory.slice(i32, ids, case.rows), 0..) |id, row| for (0..case.width) |col| {
            const at = @as(usize, @intCast(id)) * case.width + col;
            const expected = if (dtype == .f32) memory.slice(u32, from, size)[at] else @as(u32, memory.slice(u16, from, size)[at]) << 16;
            try std.testing.expectEqual(expected, memory.slice(u32, y, case.rows * case.width)[row * case.width + col]);
        };
    };
}

test "embed: rows of an i8 table, times their scale" {
    var random = std.Random.DefaultPrng.init(33);
    for (trial.tables()) |table| for (cases) |case| {
        var memory = try trial.Memory.init(1 << 22);
        defer memory.deinit();
        const size = case.vocabulary * case.width;
        const from = memory.reserve(i8, size);
        random.random().bytes(std.mem.sliceAsBytes(memory.slice(i8, from, size)));
        const scales = memory.normal(random.random(), case.vocabulary);
        const ids = memory.reserve(i32, case.rows);
        for (memory.slice(i32, ids, case.rows)) |*id| id.* = random.random().intRangeLessThan(i32, 0, @intCast(case.vocabulary));
        const y = memory.reserve(f32, case.rows * case.width);
        try trial.run(.embed, .{ .table = from, .scales = scales, .ids = ids, .y = y, .rows = case.rows, .vocabulary = case.vocabulary, .width = case.width, .dtype = @intFromEnum(ops.Dtype.i8) }, memory, table, 1);
        for (memory.slice(i32, ids, case.rows), 0..) |id, row| for (0..case.width) |col| {
            const expected = memory.slice(f32, scales, case.vocabulary)[@intCast(id)] * @as(f32, @floatFromInt(memory.slice(i8, from, size)[@as(usize, @intCast(id)) * case.width + col]));
            try std.testing.expectEqual(expected, memory.slice(f32, y, case.rows * case.width)[row * case.width + col]);
        };
    };
}

test "embed: the gradient sums rows by token, in their order" {
    var random = std.Random.DefaultPrng.init(32);
    const gpa = std.testing.allocator;
    for (trial.tables()) |table| for (cases) |case| for ([_]u32{ 0, 1 }) |accumulate| {
        var memory = try trial.Memory.init(1 << 22);
        defer memory.deinit();
        const size = case.vocabulary * case.width;
        const dy = memory.normal(random.random(), case.rows * case.width);
        const ids = memory.reserve(i32, case.rows);
        for (memory.slice(i32, ids, case.rows)) |*id| { // small ids more often, some never
            id.* = @divTrunc(random.random().intRangeLessThan(i32, 0, @intCast(case.vocabulary)), random.random().intRangeAtMost(i32, 1, 9));
        }
        const dtable = memory.normal(random.random(), size);
        const sums = try gpa.alloc(f32, size);
        defer gpa.free(sums);
        @memset(sums, 0);
        for (memory.slice(i32, ids, case.rows), 0..) |id, row| for (0..case.width) |col| {
            sums[@as(usize, @intCast(id)) * case.width + col] += memory.slice(f32, dy, case.rows * case.width)[row * case.width + col];
        };
        if (accumulate == 1) for (sums, memory.slice(f32, dtable, size)) |*sum, old| {
            sum.* = old + sum.*;
        };
        try trial.run(.embed_backward, .{ .dy = dy, .ids = ids, .dtable = dtable, .rows = case.rows, .vocabulary = case.vocabulary, .width = case.width, .accumulate = accumulate }, memory, table, 3);
        try std.testing.expectEqualSlices(f32, sums, memory.slice(f32, dtable, size));
    };
}

test "embed: an id out of range is a fault, and nothing was written" {
    for (trial.tables()) |table| for ([_]i32{ -1, 4, std.math.maxInt(i32), std.math.minInt(i32) }) |bad| {
        var memory = try trial.Memory.init(1 << 12);
        defer memory.deinit();
        const from = memory.put(f32, &@as([8]f32, @splat(1)));
        const ids = memory.put(i32, &.{ 0, 3, bad, 1 });
        const y = memory.put(f32, &@as([8]f32, @splat(2)));
        try std.testing.expectError(error.Fault, trial.run(.embed, .{ .table = from, .scales = .{}, .ids = ids, .y = y, .rows = 4, .vocabulary = 4, .width = 2, .dtype = 0 }, memory, table, 1));
        try std.testing.expectError(error.Fault, trial.run(.embed_backward, .{ .dy = from, .ids = ids, .dtable = y, .rows = 4, .vocabulary = 4, .width = 2, .accumulate = 0 }, memory, table, 1));
        for (memory.slice(f32, y, 8)) |value| try std.testing.expectEqual(2, value);
    };
}
