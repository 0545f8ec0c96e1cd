// Tests of what goes element by element: every tier against f64 references, exact bits where the formula gives them.
// Read next: trial.zig (runs one instruction alone), math_test.zig.
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

test {
    _ = @import("math_test.zig");
}

const counts = [_]u32{ 0, 1, 3, 16, 17, 33, 50_001 };
const nan = std.math.nan(f32);
const inf = std.math.inf(f32);

test "elementwise: fill of 0, 1, odd and many elements, nothing beside them" {
    for (trial.tables()) |table| {
        for (counts) |count| {
            var memory = try trial.Memory.init(1 << 18);
            defer memory.deinit();
            const y = memory.reserve(f32, count);
            try trial.run(.fill, .{ .y = y, .count = count, .value = 1.5 }, memory, table, 1);
            const values = memory.slice(f32, y, count + 16);
            for (values[0..count]) |value| try std.testing.expectEqual(1.5, value);
            for (values[count..]) |value| try std.testing.expect(std.math.isNan(value));
        }
    }
}

test "elementwise: operands past the end of the arena are refused" {
    var memory = try trial.Memory.init(1 << 12);
    defer memory.deinit();
    const y: ops.Ref = .{ .arena = 1, .at = 4096 - 8 };
    try trial.run(.fill, .{ .y = y, .count = 2, .value = 0 }, memory, trial.tables()[0], 1);
    try std.testing.expectError(error.BadShape, trial.run(.fill, .{ .y = y, .count = 3, .value = 0 }, memory, trial.tables()[0], 1));
    try std.testing.expectError(error.StaleHandle, trial.run(.fill, .{ .y = .{ .arena = 2 }, .count = 3, .value = 0 }, memory, trial.tables()[0], 1));
    try std.testing.expectError(error.BadArgument, trial.run(.fill, .{ .y = .{}, .count = 3, .value = 0 }, memory, trial.tables()[0], 1));
}

fn combine(operation: ops.BinaryOp, a: f64, b: f64) f64 {
    if (operation == .maximum or operation == .minimum) {
        if (std.math.isNan(a) or std.math.isNan(b)) return std.math.nan(f64);
    }
    return switch (operation) {
        .add => a + b,
        .subtract => a - b,
        .multiply => a * b,
        .divide => a / b,
        .maximum => @max(a, b),
        .minimum => @min(a, b),
        .greater => if (a > b) 1 else 0,
        .greater_equal => if (a >= b) 1 else 0,
        .equal => if (a == b) 1 else 0,
    };
}

/// Within a few roundings of the reference, relative to the terms; special values alike.
fn expectClose(expected: f64, found: f32, size: f64) !void {
    if (std.math.isNan(expected) or std.math.isInf(expected)) {
        if (std.math.isNan(expected) and std.math.isNan(found)) return;
        return std.testing.expectEqual(@as(f32, @floatCast(expected)), found);
    }
    if (!(@abs(expected - found) <= 4e-7 * (size + @abs(expected)) + 1e-44)) {
        std.debug.print("expected {d}, found {d}\n", .{ expected, found });
        return error.TestUnexpectedResult;
    }
}

test "elementwise: binary operations, all broadcasts, all tiers, special values" {
    var random = std.Random.DefaultPrng.init(3);
    for (trial.tables()) |table| {
        for ([_][2]u32{ .{ 0, 5 }, .{ 4, 0 }, .{ 1, 1 }, .{ 1, 40_001 }, .{ 40_001, 1 }, .{ 7, 33 }, .{ 300, 129 }, .{ 3, 20_001 } }) |size| {
            const rows, const cols = size;
            for (std.enums.values(ops.BinaryOp), 0..) |operation, o| {
                const count = rows * cols;
                if (count > 1000 and o % 4 != 0) continue; // long ones: three of the operations
                for (std.enums.values(ops.Broadcast)) |broadcast| {
                    const b_count = switch (broadcast) {
                        .same => count,
                        .row => cols,
                        .column => rows,
                        .scalar => 1,
                    };
                    var memory = try trial.Memory.init(1 << 20);
                    defer memory.deinit();
                    const a = memory.normal(random.random(), count);
                    const b = memory.normal(random.random(), b_count);
                    const y = memory.normal(random.random(), count);
                    if (count > 200) {
                        for ([_]f32{ nan, 1, nan, inf, -inf, 2, 0, -0.0 }, 100..) |value, i| memory.slice(f32, a, count)[i] = value;
                        if (broadcast == .same) for ([_]f32{ 1, nan, nan, inf, inf, 2, -0.0, 0 }, 100..) |value, i| {
                            memory.slice(f32, b, count)[i] = value;
                        };
                    }
                    const before = try std.testing.allocator.dupe(f32, memory.slice(f32, y, count));
                    defer std.testing.allocator.free(before);
                    const accumulate: u32 = @intCast(o % 2);
                    const alpha: f32 = if (o % 3 == 0) 1 else -0.75;
                    try trial.run(.binary, .{ .a = a, .b = b, .y = y, .rows = rows, .cols = cols, .operation = @intFromEnum(operation), .broadcast = @intFromEnum(broadcast), .alpha = alpha, .accumulate = accumulate }, memory, table, o);
                    for (0..rows) |row| for (0..cols) |col| {
                        const i = row * cols + col;
                        const other = memory.slice(f32, b, b_count)[
                            switch (broadcast) {
                                .same => i,
                                .row => col,
                                .column => row,
                                .scalar => 0,
                            }
                        ];
                        const left = memory.slice(f32, a, count)[i];
                        const value = alpha * combine(operation, left, other);
                        const size_of = @abs(left) + @abs(other) + @abs(before[i]) + @abs(value);
                        try expectClose(if (accumulate == 1) before[i] + value else value, memory.slice(f32, y, count)[i], if (std.math.isFinite(size_of)) size_of else 0);
                    };
                    for (memory.slice(f32, y, count + 16)[count..]) |value| try std.testing.expect(std.math.isNan(value));
                }
            }
        }
    }
}

fn apply(operation: ops.UnaryOp, x: f64) f64 {
    return switch (operation) {
        .identity => x,
        .absolute => @abs(x),
        .sign => if (x > 0) 1 else if (x < 0) -1 else x,
        .square => x * x,
        .sqrt => @sqrt(x),
        .rsqrt => 1 / @sqrt(x),
        .reciprocal => 1 / x,
        .exp => @exp(x),
        .log => @log(x),
    };
}

test "elementwise: unary operations, all tiers, special values, in place" {
    var random = std.Random.DefaultPrng.init(4);
    for (trial.tables()) |table| {
        for (std.enums.values(ops.UnaryOp)) |operation| {
            for (counts) |count| {
                var memory = try trial.Memory.init(1 << 19);
                defer memory.deinit();
                const x = memory.normal(random.random(), count);
                const values = memory.slice(f32, x, count);
                for ([_]f32{ nan, inf, -inf, 0, -0.0, 1e-40, -1e-40, 100, -100 }, 0..) |value, i| {
                    if (i + 2 < count) values[i + 2] = value;
                }
                const before = try std.testing.allocator.dupe(f32, values);
                defer std.testing.allocator.free(before);
                const plain = count % 2 == 0 or count == 33;
                try trial.run(.unary, .{ .x = x, .y = x, .count = count, .operation = @intFromEnum(operation), .alpha = if (plain) 1 else 0.5, .beta = if (plain) 0 else 2, .accumulate = @intFromBool(!plain) }, memory, table, 5);
                for (before, values) |old, new| {
                    const value = apply(operation, old);
                    if (@abs(value) > 3.4e38 or (value != 0 and @abs(value) < 1e-38)) continue; // overflow and denormals: math_test.zig
                    const expected = if (plain) value else old + (0.5 * value + 2);
                    try expectClose(expected, new, if (plain or !std.math.isFinite(value)) 0 else @abs(old) + @abs(value) + 2);
                }
            }
        }
    }
}

test "elementwise: copies equal the definition for transposes, slices, broadcasts, joins; both types" {
    const Case = struct { [6]u32, [6]u32, [6]u32 };
    const cases = [_]Case{
        .{ .{ 1, 1, 1, 1, 1, 1 }, .{ 0, 0, 0, 0, 0, 0 }, .{ 0, 0, 0, 0, 0, 0 } },
        .{ .{ 1, 1, 1, 1, 3, 0 }, .{ 0, 0, 0, 0, 1, 1 }, .{ 0, 0, 0, 0, 1, 1 } },
        .{ .{ 1, 1, 1, 1, 70, 35 }, .{ 0, 0, 0, 0, 1, 70 }, .{ 0, 0, 0, 0, 35, 1 } }, // transpose
        .{ .{ 1, 1, 1, 1, 300, 200 }, .{ 0, 0, 0, 0, 1, 301 }, .{ 0, 0, 0, 0, 205, 1 } }, // with gaps
        .{ .{ 2, 3, 5, 7, 1, 16 }, .{ 1680, 112, 336, 16, 5, 1 }, .{ 1680, 560, 112, 16, 3, 1 } }, // swap of two inner axes
        .{ .{ 3, 4, 1, 1, 1, 33 }, .{ 0, 33, 0, 0, 0, 1 }, .{ 132, 33, 0, 0, 0, 1 } }, // broadcast
        .{ .{ 9, 17, 1, 1, 1, 1 }, .{ 0, 0, 0, 0, 0, 0 }, .{ 17, 1, 0, 0, 0, 0 } }, // one value everywhere
        .{ .{ 6, 50, 1, 1, 1, 1 }, .{ 100, 2, 0, 0, 0, 0 }, .{ 3, 30, 0, 0, 0, 0 } }, // strided both ways
        .{ .{ 1, 1, 5, 1, 1, 40_000 }, .{ 0, 0, 40_000, 0, 0, 1 }, .{ 0, 0, 40_000, 0, 0, 1 } }, // one run
        .{ .{ 40, 5, 3, 2, 4, 6 }, .{ 1, 40, 200, 600, 1200, 4800 }, .{ 720, 144, 48, 24, 6, 1 } }, // all axes turned round
        .{ .{ 20_000, 3, 1, 1, 1, 1 }, .{ 1, 20_000, 0, 0, 0, 0 }, .{ 3, 1, 0, 0, 0, 0 } },
        .{ .{ 3, 20_000, 1, 1, 1, 1 }, .{ 1, 3, 0, 0, 0, 0 }, .{ 20_000, 1, 0, 0, 0, 0 } },
    };
    var random = std.Random.DefaultPrng.init(6);
    for (trial.tables()) |table| {
        for (cases) |case| {
            try copied(f32, case[0], case[1], case[2], 0, table, random.random());
            try copied(f32, case[0], case[1], case[2], 1, table, random.random());
            try copied(u16, case[0], case[1], case[2], 0, table, random.random());
        }
    }
}

fn copied(comptime T: type, sizes: [6]u32, x_strides: [6]u32, y_strides: [6]u32, accumulate: u32, table: *const ops.Table, random: std.Random) !void {
    const gpa = std.testing.allocator;
    var memory = try trial.Memory.init(1 << 21);
    defer memory.deinit();
    const room = 210_000;
    const x = memory.reserve(T, room);
    const y = memory.reserve(T, room);
    for ([_]ops.Ref{ x, y }) |ref| for (memory.slice(T, ref, room)) |*value| {
        value.* = if (T == f32) random.floatNorm(f32) else random.int(u16);
    };
    const expected = try gpa.dupe(T, memory.slice(T, y, room));
    defer gpa.free(expected);
    var total: usize = 1;
    for (sizes) |size| total *= size;
    for (0..total) |number| {
        var rest = number;
        var from: usize = 0;
        var to: usize = 0;
        for (sizes, x_strides, y_strides) |size, xs, ys| {
            from += rest % size * xs;
            to += rest % size * ys;
            rest /= size;
        }
        const value = memory.slice(T, x, room)[from];
        expected[to] = if (T == f32 and accumulate == 1) expected[to] + value else value;
    }
    try trial.run(.copy, .{ .x = x, .y = y, .sizes = sizes, .x_strides = x_strides, .y_strides = y_strides, .dtype = @intFromEnum(@as(ops.Dtype, if (T == f32) .f32 else .bf16)), .accumulate = accumulate }, memory, table, 7);
    try std.testing.expectEqualSlices(T, expected, memory.slice(T, y, room));
}

test "elementwise: a copy that writes an element twice is refused" {
    var memory = try trial.Memory.init(1 << 12);
    defer memory.deinit();
    const x = memory.reserve(f32, 64);
    const y = memory.reserve(f32, 64);
    for ([_]u32{ 0, 1, 3 }) |stride| {
        try std.testing.expectError(error.BadArgument, trial.run(.copy, .{ .x = x, .y = y, .sizes = .{ 1, 1, 1, 1, 4, 4 }, .x_strides = .{ 0, 0, 0, 0, 4, 1 }, .y_strides = .{ 0, 0, 0, 0, stride, 1 }, .dtype = 0, .accumulate = 0 }, memory, trial.tables()[0], 1));
    }
}

test "elementwise: bf16 rounds to nearest even, keeps NaN and infinities; i32 becomes f32" {
    for (trial.tables()) |table| {
        for (counts) |count| {
            var random = std.Random.DefaultPrng.init(count);
            var memory = try trial.Memory.init(1 << 20);
            defer memory.deinit();
            const x = memory.reserve(u32, count);
            const narrow = memory.reserve(u16, count);
            const back = memory.reserve(f32, count);
            const whole = memory.reserve(f32, count);
            const bits = memory.slice(u32, x, count);
            for (bits, 0..) |*word, i| word.* = switch (i % 5) {
                0 => random.random().int(u32), // NaN among them
                1 => (random.random().int(u32) & 0xffff_0000) | 0x8000, // ties
                2 => 0x7f7f_ffff - @as(u32, random.random().int(u16)) % 3, // overflow
                3 => @as(u32, 0x7f80_0000) | @as(u32, random.random().int(u16) & 1), // infinity, a NaN whose upper half is one
                else => random.random().int(u16), // denormals
            };
            try trial.run(.convert, .{ .x = x, .y = narrow, .count = count, .from = 0, .to = 1 }, memory, table, 1);
            try trial.run(.convert, .{ .x = narrow, .y = back, .count = count, .from = 1, .to = 0 }, memory, table, 1);
            try trial.run(.convert, .{ .x = x, .y = whole, .count = count, .from = 2, .to = 0 }, memory, table, 1);
            for (bits, memory.slice(u16, narrow, count), memory.slice(f32, back, count), memory.slice(f32, whole, count)) |word, short, wide, float| {
                const value: f32 = @bitCast(word);
                try std.testing.expectEqual(@as(f32, @floatFromInt(@as(i32, @bitCast(word)))), float);
                try std.testing.expectEqual(@as(u32, short) << 16, @as(u32, @bitCast(wide)));
                if (std.math.isNan(value)) {
                    try std.testing.expect(std.math.isNan(wide));
                    continue;
                }
                // Of the two neighbours the nearer, or the even one.
                const low: f64 = @as(f32, @bitCast(word & 0xffff_0000));
                const next = (word & 0xffff_0000) +% 0x1_0000;
                const high: f64 = if (next & 0x7fff_ffff == 0x7f80_0000) std.math.copysign(std.math.pow(f64, 2, 128), value) else @as(f32, @bitCast(next));
                const down = @abs(value - low);
                const up = @abs(high - value);
                const expected = if (down < up or (down == up and (word >> 16) & 1 == 0)) word >> 16 else next >> 16;
                try std.testing.expectEqual(expected, if (std.math.isInf(value)) expected else short);
                if (std.math.isInf(value)) try std.testing.expectEqual(value, wide);
            }
        }
    }
}

test "elementwise: dropout is Philox4x32-7, keeps about 1 - p, the same on every tier and again" {
    const gpa = std.testing.allocator;
    // Published known answer for counter 0 and key 0 (Random123, kat_vectors): the first four words.
    const known = [4]u32{ 0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48 };
    for (known, 0..) |word, i| {
        for ([_]struct { f64, bool }{ .{ 1, true }, .{ -1, false } }) |side| {
            // p just below and just above the word / 2^32, as far as f32 can tell.
            const p: f32 = @floatCast((@as(f64, @floatFromInt(word)) - side[0] * 4096) / (1 << 32));
            for (trial.tables()) |table| {
                var memory = try trial.Memory.init(1 << 12);
                defer memory.deinit();
                const x = memory.put(f32, &.{ 1, 1, 1, 1, 1 });
                try trial.run(.dropout, .{ .x = x, .y = x, .step = .{}, .count = 5, .seed = 0, .stream = 0, .first_step = 0, .p = p, .accumulate = 0 }, memory, table, 1);
                try std.testing.expectEqual(side[1], memory.slice(f32, x, 4)[i] != 0);
            }
        }
    }
    var first: ?[]f32 = null;
    defer if (first) |values| gpa.free(values);
    for (trial.tables()) |table| {
        for ([_]u32{ 0, 1, 50_001 }) |count| {
            var random = std.Random.DefaultPrng.init(8);
            var memory = try trial.Memory.init(1 << 20);
            defer memory.deinit();
            const x = memory.normal(random.random(), count);
            const y = memory.reserve(f32, count);
            const again = memory.reserve(f32, count);
            const other = memory.reserve(f32, count);
            const step = memory.put(i32, &.{3});
            const args: ops.Dropout = .{ .x = x, .y = y, .step = step, .count = count, .seed = 77, .stream = 5, .first_step = 0xffff_ffff, .p = 0.3, .accumulate = 0 };
            try trial.run(.dropout, args, memory, table, 1);
            var variant = args;
            variant.y = again;
            variant.step = .{};
            variant.first_step = 2; // 2^32 - 1 + 3
            try trial.run(.dropout, variant, memory, table, 2);
            variant.y = other;
            variant.stream = 6;
            try trial.run(.dropout, variant, memory, table, 2);
            const values = memory.slice(f32, y, count);
            try std.testing.expectEqualSlices(f32, values, memory.slice(f32, again, count));
            var kept: usize = 0;
            for (values, memory.slice(f32, x, count)) |value, from| {
                if (value == 0) continue;
                kept += 1;
                try std.testing.expectEqual(from * (1 / (1 - @as(f32, 0.3))), value);
            }
            if (count < 1000) continue;
            const share = @as(f64, @floatFromInt(kept)) / @as(f64, @floatFromInt(count));
            try std.testing.expect(@abs(share - 0.7) < 0.01); // about 5 standard deviations
            try std.testing.expect(!std.mem.eql(f32, values, memory.slice(f32, other, count)));
            if (first) |expected| try std.testing.expectEqualSlices(f32, expected, values) else first = try gpa.dupe(f32, values);
        }
    }
}
