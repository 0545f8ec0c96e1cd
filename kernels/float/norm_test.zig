// Tests of layer and RMS norm: every tier against an f64 reference.
// Read next: trial.zig (runs one instruction alone).
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

const gpa = std.testing.allocator;
const sizes = [_][2]u32{ .{ 0, 5 }, .{ 5, 0 }, .{ 1, 1 }, .{ 7, 33 }, .{ 3, 768 }, .{ 130, 48 }, .{ 2, 20_001 }, .{ 5000, 17 } };

fn expectNear(expected: []const f64, found: []const f32, tolerance: f64) !void {
    var largest: f64 = 1; // inputs are about 1: results may be 0 by cancelling
    for (expected) |value| largest = @max(largest, @abs(value));
    for (expected, found, 0..) |value, is, i| {
        if (@abs(value - is) <= tolerance * largest) continue;
        std.debug.print("element {d}: expected {d}, found {d}, largest {d}\n", .{ i, value, is, largest });
        return error.TestUnexpectedResult;
    }
}

test "norm: values, statistics and gradients against f64, with and without weights, also far from 0, all tiers" {
    var random = std.Random.DefaultPrng.init(3);
    for (sizes, 0..) |size, s| for (std.enums.values(ops.NormMode)) |mode| for ([_]f32{ 0, 1000 }) |offset| for ([_]bool{ true, false }) |weighted| {
        const rows, const width = size;
        const layer = mode == .layer;
        const count = rows * width;
        var memory = try trial.Memory.init(1 << 21);
        defer memory.deinit();
        const x = memory.normal(random.random(), count);
        for (memory.slice(f32, x, count)) |*value| value.* += offset;
        const dy = memory.normal(random.random(), count);
        const weight = memory.normal(random.random(), width);
        const bias = memory.normal(random.random(), width);
        const y = memory.reserve(f32, count);
        const mean = memory.reserve(f32, rows);
        const rstd = memory.reserve(f32, rows);
        const dx = memory.normal(random.random(), count);
        const dweight = memory.normal(random.random(), width);
        const dbias = memory.normal(random.random(), width);
        const accumulate: u32 = @intCast(s % 2);
        // The reference.
        const e_y = try gpa.alloc(f64, count);
        defer gpa.free(e_y);
        const e_dx = try gpa.alloc(f64, count);
        defer gpa.free(e_dx);
        const e_sums = try gpa.alloc(f64, 2 * width);
        defer gpa.free(e_sums);
        const e_stats = try gpa.alloc(f64, 2 * rows);
        defer gpa.free(e_stats);
        for (0..width) |i| {
            e_sums[i] = if (accumulate == 1) memory.slice(f32, dweight, width)[i] else 0;
            e_sums[width + i] = if (accumulate == 1) memory.slice(f32, dbias, width)[i] else 0;
        }
        for (0..rows) |row| {
            const line = memory.slice(f32, x, count)[row * width ..][0..width];
            const gradient = memory.slice(f32, dy, count)[row * width ..][0..width];
            const n: f64 = @floatFromInt(width);
            var e_mean: f64 = 0;
            for (line) |value| e_mean += if (layer) value / n else 0;
            var squares: f64 = 0;
            for (line) |value| squares += (value - e_mean) * (value - e_mean) / n;
            const e_rstd = 1 / @sqrt(squares + 1e-5);
            e_stats[row] = e_mean;
            e_stats[rows + row] = e_rstd;
            var sum: f64 = 0;
            var product: f64 = 0;
            for (line, gradient, 0..) |value, dyi, i| {
                const normal = (value - e_mean) * e_rstd;
                const w: f64 = if (weighted) memory.slice(f32, weight, width)[i] else 1;
                e_y[row * width + i] = normal * w + if (weighted and layer) memory.slice(f32, bias, width)[i] else 0;
                e_sums[i] += dyi * normal;
                e_sums[width + i] += dyi;
                sum += dyi * w / n;
                product += dyi * w * normal / n;
            }
            for (line, gradient, 0..) |value, dyi, i| {
                const w: f64 = if (weighted) memory.slice(f32, weight, width)[i] else 1;
                const old: f64 = if (accumulate == 1) memory.slice(f32, dx, count)[row * width + i] else 0;
                e_dx[row * width + i] = old + e_rstd * (dyi * w - (if (layer) sum else 0) - (value - e_mean) * e_rstd * product);
            }
        }
        for (trial.tables()) |table| {
            const own = try memory.copy();
            defer own.deinit();
            errdefer std.debug.print("lanes {d}, rows {d}, width {d}, {t}, offset {d}\n", .{ table.lanes, rows, width, mode, offset });
            try trial.run(.norm, .{ .x = x, .weight = if (weighted) weight else .{}, .bias = if (weighted and layer) bias else .{}, .y = y, .mean = if (layer) mean else .{}, .rstd = rstd, .rows = rows, .width = width, .mode = @intFromEnum(mode), .eps = 1e-5 }, own, table, s);
            try trial.run(.norm_backward, .{ .dy = dy, .x = x, .weight = if (weighted) weight else .{}, .mean = if (layer) mean else .{}, .rstd = rstd, .dx = dx, .dweight = if (weighted) dweight else .{}, .dbias = if (weighted and layer) dbias else .{}, .rows = rows, .width = width, .mode = @intFromEnum(mode), .accumulate = accumulate, .accumulate_weights = accumulate }, own, table, s);
            // The backward has the mean rounded to f32: at 1000 that is 3e-5 of a standard deviation.
            const slack: f64 = if (layer and offset > 0) 1e-4 else 2e-6;
            if (rows > 0 and width > 0) {
                try expectNear(e_stats[rows..], own.slice(f32, rstd, rows), 1e-6);
                if (layer) try expectNear(e_stats[0..rows], own.slice(f32, mean, rows), 1e-6);
            }
            try expectNear(e_y, own.slice(f32, y, count), 2e-6);
            try expectNear(e_dx, own.slice(f32, dx, count), slack);
            if (weighted and (rows > 0 or accumulate == 0)) {
                try expectNear(e_sums[0..width], own.slice(f32, dweight, width), slack * 2);
                if (layer) try expectNear(e_sums[width..], own.slice(f32, dbias, width), 2e-6);
            }
        }
    };
}

test "norm: in place, the same bits in any order of tiles, and constant rows" {
    var random = std.Random.DefaultPrng.init(4);
    const rows = 700;
    const width = 100;
    for (trial.tables()) |table| {
        var memory = try trial.Memory.init(1 << 21);
        defer memory.deinit();
        const x = memory.normal(random.random(), rows * width);
        @memset(memory.slice(f32, x, rows * width)[0..width], 1e6 + 0.25);
        const y = memory.reserve(f32, rows * width);
        const rstd = memory.reserve(f32, rows);
        const mean = memory.reserve(f32, rows);
        var args: ops.Norm = .{ .x = x, .weight = .{}, .bias = .{}, .y = y, .mean = mean, .rstd = rstd, .rows = rows, .width = width, .mode = 0, .eps = 1e-5 };
        try trial.run(.norm, args, memory, table, 1);
        for (memory.slice(f32, y, width)) |value| try std.testing.expectEqual(0, value);
        try std.testing.expectApproxEqRel(@as(f32, 316.22777), memory.slice(f32, rstd, 1)[0], 1e-6);
        const other = try memory.copy();
        defer other.deinit();
        args.y = x;
        try trial.run(.norm, args, other, table, 2);
        try std.testing.expectEqualSlices(f32, memory.slice(f32, y, rows * width), other.slice(f32, x, rows * width));
        const dy = memory.normal(random.random(), rows * width);
        const sums = memory.reserve(f32, width);
        var backward: ops.NormBackward = .{ .dy = dy, .x = x, .weight = .{}, .mean = mean, .rstd = rstd, .dx = y, .dweight = sums, .dbias = .{}, .rows = rows, .width = width, .mode = 0, .accumulate = 0, .accumulate_weights = 0 };
        const third = try memory.copy();
        defer third.deinit();
        try trial.run(.norm_backward, backward, memory, table, 3);
        backward.dx = dy;
        try trial.run(.norm_backward, backward, third, table, 4);
        try std.testing.expectEqualSlices(f32, memory.slice(f32, y, rows * width), third.slice(f32, dy, rows * width));
        try std.testing.expectEqualSlices(f32, memory.slice(f32, sums, width), third.slice(f32, sums, width));
        // A NaN stays in its row.
        memory.slice(f32, x, rows * width)[3 * width + 7] = std.math.nan(f32);
        args.y = y;
        try trial.run(.norm, args, memory, table, 5);
        for (memory.slice(f32, y, rows * width), 0..) |value, i| try std.testing.expectEqual(i / width == 3, std.math.isNan(value));
    }
}
