// Tests of attention, forward and backward: every tier against an f64 reference that holds all scores.
// Read next: trial.zig (runs one instruction alone).
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

const gpa = std.testing.allocator;
const inf = std.math.inf(f32);

const Shape = struct { batch: u32 = 1, q: u32, kv: u32, heads: u32 = 1, kv_heads: u32 = 1, d: u32, causal: u32 = 1, spread: f32 = 1 };

const shapes = [_]Shape{
    .{ .q = 1, .kv = 1, .d = 8 },
    .{ .q = 7, .kv = 7, .d = 6, .batch = 2, .heads = 4, .kv_heads = 2 },
    .{ .q = 5, .kv = 11, .d = 1, .heads = 2, .kv_heads = 2 },
    .{ .q = 3, .kv = 35, .d = 6, .heads = 4, .kv_heads = 4 },
    .{ .q = 1, .kv = 200, .d = 16, .heads = 6, .kv_heads = 2 },
    .{ .q = 64, .kv = 64, .d = 64, .heads = 2, .kv_heads = 1 },
    .{ .q = 65, .kv = 65, .d = 17 },
    .{ .q = 129, .kv = 131, .d = 33, .batch = 2, .heads = 3, .kv_heads = 1 },
    .{ .q = 200, .kv = 300, .d = 128 },
    .{ .q = 150, .kv = 150, .d = 80, .heads = 2, .kv_heads = 2, .causal = 0 },
    .{ .q = 70, .kv = 3, .d = 5, .heads = 2, .kv_heads = 1, .causal = 0 },
    .{ .q = 100, .kv = 190, .d = 40, .spread = 6 }, // some scores far above the others
    .{ .q = 9, .kv = 9, .d = 0 },
    // Few queries: ranges of keys, with heads that share them.
    .{ .q = 1, .kv = 700, .d = 20 },
    .{ .q = 4, .kv = 1200, .d = 33, .heads = 3, .kv_heads = 1 },
    .{ .q = 2, .kv = 517, .d = 64, .heads = 4, .kv_heads = 2, .causal = 0, .spread = 6 },
    .{ .q = 2, .kv = 70, .d = 0 },
    .{ .q = 0, .kv = 9, .d = 8 },
    .{ .q = 4, .kv = 0, .d = 8, .causal = 0 },
    .{ .q = 3, .kv = 3, .d = 4, .batch = 0 },
};

/// Operands of one shape: q, k and v side by side in one row where `joined`, else apart, with `gap` floats after a head.
const Case = struct {
    shape: Shape,
    memory: trial.Memory,
    forward: ops.Attention,
    dout: ops.Ref,
    dq: ops.Ref,
    dk: ops.Ref,
    dv: ops.Ref,

    fn init(shape: Shape, random: std.Random, joined: bool, gap: u32) !Case {
        var memory = try trial.Memory.init(1 << 23);
        const step = shape.d + gap;
        const width = if (joined) (shape.heads + 2 * shape.kv_heads) * step else shape.heads * step;
        const kv_width = if (joined) width else shape.kv_heads * step;
        const long = @max(shape.q, shape.kv);
        const count = shape.batch * long * width + step;
        const kv_count = shape.batch * long * kv_width + step;
        var refs: [6]ops.Ref = undefined; // q k v, dq dk dv
        for (0..2) |i| {
            const to = refs[3 * i ..][0..3];
            if (joined) {
                to.* = @splat(memory.normal(random, count));
                to[1].at += 4 * @as(u64, shape.heads) * step;
                to[2].at += 4 * @as(u64, shape.heads + shape.kv_heads) * step;
            } else to.* = .{ memory.normal(random, count), memory.normal(random, kv_count), memory.normal(random, kv_count) };
        }
        const o_count = shape.batch * shape.q * shape.heads * step + step;
        const forward: ops.Attention = .{
            .q = refs[0],
            .k = refs[1],
            .v = refs[2],
            .o = memory.reserve(f32, o_count),
            .lse = memory.reserve(f32, shape.batch * shape.heads * shape.q),
            .batch = shape.batch,
            .q_len = shape.q,
            .kv_len = shape.kv,
            .heads = shape.heads,
            .kv_heads = shape.kv_heads,
            .d = shape.d,
            .q_batch = long * width,
            .q_time = width,
            .q_head = step,
            .k_batch = long * kv_width,
            .k_time = kv_width,
            .k_head = step,
            .v_batch = long * kv_width,
            .v_time = kv_width,
            .v_head = step,
            // Heads outside time: another order than q's.
            .o_batch = shape.q * shape.heads * step,
            .o_time = step,
            .o_head = shape.q * step,
            .causal = shape.causal,
            .scale = shape.spread / @sqrt(@as(f32, @floatFromInt(@max(shape.d, 1)))),
        };
        return .{ .shape = shape, .memory = memory, .forward = forward, .dout = memory.normal(random, o_count), .dq = refs[3], .dk = refs[4], .dv = refs[5] };
    }

    fn backward(case: Case, accumulate: u32) ops.AttentionBackward {
        var args: ops.AttentionBackward = undefined;
        inline for (@typeInfo(ops.Attention).@"struct".fields) |field| @field(args, field.name) = @field(case.forward, field.name);
        args.dout = case.dout;
        args.dq = case.dq;
        args.dk = case.dk;
        args.dv = case.dv;
        args.accumulate = accumulate;
        return args;
    }

    const Which = enum { q, k, v, o, dq, dk, dv, dout };

    fn at(case: Case, comptime which: Which, b: usize, t: usize, h: usize, i: usize) *f32 {
        const f = case.forward;
        const ref, const strides = switch (which) {
            .q => .{ f.q, .{ f.q_batch, f.q_time, f.q_head } },
            .dq => .{ case.dq, .{ f.q_batch, f.q_time, f.q_head } },
            .k => .{ f.k, .{ f.k_batch, f.k_time, f.k_head } },
            .dk => .{ case.dk, .{ f.k_batch, f.k_time, f.k_head } },
            .v => .{ f.v, .{ f.v_batch, f.v_time, f.v_head } },
            .dv => .{ case.dv, .{ f.v_batch, f.v_time, f.v_head } },
            .o => .{ f.o, .{ f.o_batch, f.o_time, f.o_head } },
            .dout => .{ case.dout, .{ f.o_batch, f.o_time, f.o_head } },
        };
        const start: [*]f32 = @ptrCast(@alignCast(case.memory.bytes.ptr + ref.at));
        return &start[b * strides[0] + t * strides[1] + h * strides[2] + i];
    }

    /// All elements of an operand, dense (batch, time, head, d).
    fn gather(case: Case, comptime which: Which) ![]f32 {
        const s = case.shape;
        const keys = which == .k or which == .v or which == .dk or which == .dv;
        const time = if (keys) s.kv else s.q;
        const heads = if (keys) s.kv_heads else s.heads;
        const list = try gpa.alloc(f32, @as(usize, s.batch) * time * heads * s.d);
        var n: usize = 0;
        for (0..s.batch) |b| for (0..time) |t| for (0..heads) |h| for (0..s.d) |i| {
            list[n] = case.at(which, b, t, h, i).*;
            n += 1;
        };
        return list;
    }
};

/// o, lse, and with them dq, dk, dv, in f64; gradients start from what is there.
const Reference = struct {
    o: []f64,
    lse: []f64,
    dq: []f64,
    dk: []f64,
    dv: []f64,

    fn init(case: Case, accumulate: bool) !Reference {
        const s = case.shape;
        const q_count = @as(usize, s.batch) * s.q * s.heads * s.d;
        const k_count = @as(usize, s.batch) * s.kv * s.kv_heads * s.d;
        const r: Reference = .{
            .o = try gpa.alloc(f64, q_count),
            .lse = try gpa.alloc(f64, @as(usize, s.batch) * s.heads * s.q),
            .dq = try gpa.alloc(f64, q_count),
            .dk = try gpa.alloc(f64, k_count),
            .dv = try gpa.alloc(f64, k_count),
        };
        @memset(r.o, 0);
        inline for (.{ .dq, .dk, .dv }) |which| {
            const old = try case.gather(which);
            defer gpa.free(old);
            for (@field(r, @tagName(which)), old) |*to, value| to.* = if (accumulate) value else 0;
        }
        const p = try gpa.alloc(f64, s.kv);
        defer gpa.free(p);
        for (0..s.batch) |b| for (0..s.heads) |h| for (0..s.q) |t| {
            const kv_head = h / (s.heads / s.kv_heads);
            const seen = if (s.causal == 1) t + 1 + s.kv - s.q else s.kv;
            const row = ((b * s.q + t) * s.heads + h) * s.d;
            var top = -std.math.inf(f64);
            for (p[0..seen], 0..) |*score, j| {
                score.* = 0;
                for (0..s.d) |i| score.* += @as(f64, case.at(.q, b, t, h, i).*) * case.at(.k, b, j, kv_head, i).*;
                score.* *= case.forward.scale;
                top = @max(top, score.*);
            }
            var total: f64 = 0;
            for (p[0..seen]) |score| total += @exp(score - top);
            const lse = top + @log(total);
            r.lse[(b * s.heads + h) * s.q + t] = lse;
            var delta: f64 = 0;
            for (p[0..seen], 0..) |*weight, j| {
                weight.* = @exp(weight.* - lse);
                for (0..s.d) |i| r.o[row + i] += weight.* * case.at(.v, b, j, kv_head, i).*;
            }
            for (0..s.d) |i| delta += r.o[row + i] * case.at(.dout, b, t, h, i).*;
            for (p[0..seen], 0..) |weight, j| {
                const other = ((b * s.kv + j) * s.kv_heads + kv_head) * s.d;
                var dp: f64 = 0;
                for (0..s.d) |i| dp += @as(f64, case.at(.dout, b, t, h, i).*) * case.at(.v, b, j, kv_head, i).*;
                const ds = weight * (dp - delta) * case.forward.scale;
                for (0..s.d) |i| {
                    r.dq[row + i] += ds * case.at(.k, b, j, kv_head, i).*;
                    r.dk[other + i] += ds * case.at(.q, b, t, h, i).*;
                    r.dv[other + i] += weight * case.at(.dout, b, t, h, i).*;
                }
            }
        };
        return r;
    }
    fn deinit(r: Reference) void {
        inline for (.{ "o", "lse", "dq", "dk", "dv" }) |name| gpa.free(@field(r, name));
    }
};

/// |found - expected| <= tolerance * largest |expected|.
fn expectNear(expected: []const f64, found: []const f32, tolerance: f64) !void {
    var largest: f64 = 1e-3;
    for (expected) |value| if (std.math.isFinite(value)) {
        largest = @max(largest, @abs(value));
    };
    for (expected, found, 0..) |value, is, i| {
        if (value == is or @abs(value - is) <= tolerance * largest) continue;
        std.debug.print("element {d}: expected {d}, found {d}, largest {d}\n", .{ i, value, is, largest });
        return error.TestUnexpectedResult;
    }
}

test "attention: output, log-sum-exp and gradients against f64, all shapes, layouts and tiers" {
    var random = std.Random.DefaultPrng.init(5);
    for (shapes, 0..) |shape, s| {
        const case = try Case.init(shape, random.random(), s % 2 == 0, @intCast(s % 3));
        defer case.memory.deinit();
        const accumulate: u32 = @intCast(s / 2 % 2);
        const reference = try Reference.init(case, accumulate == 1);
        defer reference.deinit();
        for (trial.tables()) |table| {
            var own = case;
            own.memory = try case.memory.copy();
            defer own.memory.deinit();
            try trial.run(.attention, own.forward, own.memory, table, s);
            try trial.run(.attention_backward, own.backward(accumulate), own.memory, table, s);
            const tolerance: f64 = if (shape.spread > 1) 1e-5 else 2e-6;
            errdefer std.debug.print("lanes {d}, {any}\n", .{ table.lanes, shape });
            const lse = own.memory.slice(f32, own.forward.lse, reference.lse.len);
            try expectNear(reference.lse, lse, 1e-6);
            inline for (.{ .o, .dq, .dk, .dv }) |which| {
                const found = try own.gather(which);
                defer gpa.free(found);
                errdefer std.debug.print("{t}\n", .{@as(Case.Which, which)});
                try expectNear(@field(reference, @tagName(which)), found, tolerance);
            }
            // Between the rows nothing is touched.
            if (s % 3 > 0 and shape.batch > 0) inline for (.{ .dq, .dk, .dv }) |which| {
                const there: u32 = @bitCast(case.at(which, 0, 0, 0, shape.d).*);
                try std.testing.expectEqual(there, @as(u32, @bitCast(own.at(which, 0, 0, 0, shape.d).*)));
            };
        }
    }
}

test "attention: the same bits in any order of tiles" {
    var random = std.Random.DefaultPrng.init(6);
    const case = try Case.init(.{ .q = 270, .kv = 300, .heads = 4, .kv_heads = 2, .d = 24 }, random.random(), false, 0);
    defer case.memory.deinit();
    for (trial.tables()) |table| {
        var first: ?trial.Memory = null;
        defer if (first) |memory| memory.deinit();
        for (0..3) |seed| {
            const memory = try case.memory.copy();
            try trial.run(.attention, case.forward, memory, table, seed);
            try trial.run(.attention_backward, case.backward(1), memory, table, seed + 10);
            if (first) |expected| {
                defer memory.deinit();
                try std.testing.expect(std.mem.eql(u8, expected.bytes, memory.bytes));
            } else first = memory;
        }
    }
}

test "attention: token by token gives what all at once gives" {
    var random = std.Random.DefaultPrng.init(7);
    const n = 70;
    for (trial.tables()) |table| {
        var case = try Case.init(.{ .q = n, .kv = n, .heads = 2, .kv_heads = 1, .d = 16 }, random.random(), false, 0);
        defer case.memory.deinit();
        try trial.run(.attention, case.forward, case.memory, table, 1);
        const whole = try case.gather(.o);
        defer gpa.free(whole);
        for (0..n) |t| {
            var args = case.forward;
            args.q.at += 4 * t * args.q_time;
            args.o.at += 4 * t * args.o_time;
            args.lse = .{};
            args.q_len = 1;
            args.kv_len = @intCast(t + 1);
            try trial.run(.attention, args, case.memory, table, t);
        }
        const found = try case.gather(.o);
        defer gpa.free(found);
        try std.testing.expect(trial.distance(found, whole) < 1e-6);
    }
}

test "attention: a query that sees one key has no gradient, exactly" {
    var random = std.Random.DefaultPrng.init(9);
    for (trial.tables()) |table| {
        const case = try Case.init(.{ .q = 1, .kv = 1, .heads = 4, .kv_heads = 4, .d = 24 }, random.random(), false, 0);
        defer case.memory.deinit();
        try trial.run(.attention, case.forward, case.memory, table, 1);
        try trial.run(.attention_backward, case.backward(0), case.memory, table, 1);
        inline for (.{ .dq, .dk }) |which| {
            const found = try case.gather(which);
            defer gpa.free(found);
            for (found) |value| try std.testing.expectEqual(0, value);
        }
        inline for (.{ .{ .o, .v }, .{ .dv, .dout } }) |pair| {
            const found = try case.gather(pair[0]);
            defer gpa.free(found);
            const expected = try case.gather(pair[1]);
            defer gpa.free(expected);
            try std.testing.expect(trial.distance(found, expected) < 1e-6);
        }
    }
}

test "attention: NaN goes where it is seen, huge scores do not overflow" {
    for (trial.tables()) |table| {
        var memory = try trial.Memory.init(1 << 14);
        defer memory.deinit();
        const q = memory.put(f32, &.{ 3e18, 1, 1 });
        const k = memory.put(f32, &.{ 1e19, 2e19, std.math.nan(f32) });
        const v = memory.put(f32, &.{ 1, 2, 3 });
        const o = memory.reserve(f32, 3);
        const lse = memory.reserve(f32, 3);
        var args: ops.Attention = .{ .q = q, .k = k, .v = v, .o = o, .lse = lse, .batch = 3, .q_len = 1, .kv_len = 2, .heads = 1, .kv_heads = 1, .d = 1, .q_batch = 1, .q_time = 1, .q_head = 1, .k_batch = 0, .k_time = 1, .k_head = 1, .v_batch = 0, .v_time = 1, .v_head = 1, .o_batch = 1, .o_time = 1, .o_head = 1, .causal = 0, .scale = 1 };
        try trial.run(.attention, args, memory, table, 1);
        try std.testing.expectEqualSlices(f32, &.{ 2, 2, 2 }, memory.slice(f32, o, 3));
        args.kv_len = 3;
        try trial.run(.attention, args, memory, table, 1);
        for (memory.slice(f32, o, 3)) |value| try std.testing.expect(std.math.isNan(value));
        for (memory.slice(f32, lse, 3)) |value| try std.testing.expect(std.math.isNan(value));
        // Only -inf to choose from: 0 / 0. One finite score among them: that one.
        memory.slice(f32, k, 3)[0..3].* = .{ -inf, -inf, -inf };
        try trial.run(.attention, args, memory, table, 1);
        try std.testing.expect(std.math.isNan(memory.slice(f32, o, 3)[0]));
        memory.slice(f32, k, 3)[1] = 0;
        try trial.run(.attention, args, memory, table, 1);
        try std.testing.expectEqualSlices(f32, &.{ 2, 2, 2 }, memory.slice(f32, o, 3));
        try std.testing.expectEqualSlices(f32, &.{ 0, 0, 0 }, memory.slice(f32, lse, 3));
    }
}

test "attention: what a query does not see cannot reach it, be it NaN" {
    var random = std.Random.DefaultPrng.init(10);
    for ([_]Shape{ .{ .q = 70, .kv = 75, .heads = 2, .kv_heads = 1, .d = 20 }, .{ .q = 3, .kv = 40, .heads = 2, .kv_heads = 2, .d = 16 } }) |shape| {
        for (trial.tables()) |table| for ([_]usize{ 0, 1, 5, shape.q - 2 }) |t| {
            if (t + 2 > shape.q) continue;
            var case = try Case.init(shape, random.random(), false, 0);
            defer case.memory.deinit();
            var spoiled = case;
            spoiled.memory = try case.memory.copy();
            defer spoiled.memory.deinit();
            const hidden = t + shape.kv - shape.q + 1; // the first key that query t does not see
            for (0..shape.kv_heads) |h| for (0..shape.d) |i| {
                spoiled.at(.k, 0, hidden, h, i).* = std.math.nan(f32);
                spoiled.at(.v, 0, hidden, h, i).* = inf;
            };
            for (0..shape.heads) |h| for (0..shape.d) |i| {
                spoiled.at(.q, 0, t + 1, h, i).* = std.math.nan(f32);
                spoiled.at(.dout, 0, t + 1, h, i).* = std.math.nan(f32);
            };
            for ([_]Case{ case, spoiled }) |each| {
                try trial.run(.attention, each.forward, each.memory, table, 1);
                try trial.run(.attention_backward, each.backward(0), each.memory, table, 1);
            }
            errdefer std.debug.print("lanes {d}, query {d}\n", .{ table.lanes, t });
            inline for (.{ .o, .dq }) |which| for (0..t + 1) |query| for (0..shape.heads) |h| for (0..shape.d) |i| {
                try std.testing.expectEqual(case.at(which, 0, query, h, i).*, spoiled.at(which, 0, query, h, i).*);
            };
        };
    }
}

test "attention: what is wrong is refused" {
    var random = std.Random.DefaultPrng.init(8);
    const case = try Case.init(.{ .q = 4, .kv = 6, .heads = 4, .kv_heads = 2, .d = 8 }, random.random(), false, 0);
    defer case.memory.deinit();
    const table = trial.tables()[0];
    var args = case.forward;
    args.kv_heads = 3;
    try std.testing.expectError(error.BadShape, trial.run(.attention, args, case.memory, table, 1));
    args = case.forward;
    args.kv_len = 3; // causal, with fewer keys than queries
    try std.testing.expectError(error.BadShape, trial.run(.attention, args, case.memory, table, 1));
    args = case.forward;
    args.causal = 2;
    try std.testing.expectError(error.BadArgument, trial.run(.attention, args, case.memory, table, 1));
    args = case.forward;
    args.o_time = 7; // rows of 8
    try std.testing.expectError(error.BadArgument, trial.run(.attention, args, case.memory, table, 1));
    args = case.forward;
    args.d = 1 << 31;
    try std.testing.expectError(error.BadShape, trial.run(.attention, args, case.memory, table, 1));
    var backward = case.backward(0);
    backward.k_head = 4;
    try std.testing.expectError(error.BadArgument, trial.run(.attention_backward, backward, case.memory, table, 1));
}
