// The scalar kernels against the primitives of tests/golden/egg-c.json, computed by an independent program from egg.c.
// The other tiers are held against the scalar ones (twins_test.zig), whole runs against the same file (golden.test.ts).
const std = @import("std");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const scalar = @import("scalar.zig");
const plain = @import("plain.zig");
const operators = @import("scalar_operators.zig");

const gpa = std.testing.allocator;
const lanes = layout.group_lanes;
const pair_lanes = layout.pair_lanes;
const kernels = &scalar.table;

const Golden = struct { primitives: Primitives };
const Primitives = struct {
    xorshift32: []struct { seed: []const u8, out: [][]const u8 },
    noise_value: []struct { []const u8, i8 },
    noise_fill: []struct { seed: []const u8, rows: u32, cols: u32, A: []i8, B: []i8 },
    exp2: [256]i32,
    log2fix: [][2]i32,
    matmul: []struct { name: []const u8, rows: u32, cols: u32, seed: []const u8, sign: i8, shift: u32, x: []i8, W: []i8, y: []i8 },
    layer_norm: []struct { name: []const u8, x: []i8, w: []i8, y: []i8 },
    gru_cell: struct { f: []i8, h: []i8, c: []i8, g: []i8, h_new: []i8 },
    loss: []struct { name: []const u8, logits: []i8, target: u8, loss: i32 },
    update: struct { seed: []const u8, pairs: u32, rows: u32, cols: u32, threshold: i32, fitness: []const u8, W: []i8, W_new: []i8 },
};

fn load() !std.json.Parsed(Golden) {
    return std.json.parseFromSlice(Golden, gpa, @embedFile("egg-c.json"), .{ .ignore_unknown_fields = true });
}

fn hex(text: []const u8) u32 {
    return std.fmt.parseInt(u32, text, 16) catch unreachable;
}

/// A panel of one group with `values` in every lane.
fn spread(values: []const i8) ![]u8 {
    const buffer = try gpa.alloc(u8, layout.activationBytes(layout.alignUp(values.len, 4), 1));
    for (values, 0..) |value, k| for (0..lanes) |lane| {
        buffer[((k >> 2) * lanes + lane) * 4 + (k & 3)] = @bitCast(value);
    };
    return buffer;
}

fn expectLane(expected: []const i8, buffer: []const u8, lane: usize) !void {
    for (expected, 0..) |value, k| try std.testing.expectEqual(value, @as(i8, @bitCast(buffer[((k >> 2) * lanes + lane) * 4 + (k & 3)])));
}

/// One group's noise of a matrix whose lane 0 has this seed.
const Noise = struct {
    a: []i8,
    b: []i8,
    sums: [pair_lanes]i32,

    fn init(seed: u32, rows: u32, cols: u32) !Noise {
        var noise: Noise = .{
            .a = try gpa.alloc(i8, rows * pair_lanes),
            .b = try gpa.alloc(i8, layout.alignUp(cols, 4) * pair_lanes),
            .sums = undefined,
        };
        @memset(noise.b, 0);
        kernels.noise_fill(&.{ .seed = seed, .rows = rows, .cols = cols, .a = noise.a.ptr, .b = noise.b.ptr, .b_sums = &noise.sums });
        return noise;
    }
    fn deinit(noise: Noise) void {
        gpa.free(noise.a);
        gpa.free(noise.b);
    }
};

test "xorshift32, noise values and streams" {
    const golden = try load();
    defer golden.deinit();
    for (golden.value.primitives.xorshift32) |case| {
        var state = hex(case.seed);
        for (case.out) |word| try std.testing.expectEqual(hex(word), scalar.xorshift32(&state));
    }
    for (golden.value.primitives.noise_value) |case| try std.testing.expectEqual(case[1], scalar.noiseValue(hex(case[0])));
    for (golden.value.primitives.noise_fill) |case| {
        const noise: Noise = try .init(hex(case.seed), case.rows, case.cols);
        defer noise.deinit();
        for (case.A, 0..) |value, r| try std.testing.expectEqual(value, noise.a[r * pair_lanes]);
        for (case.B, 0..) |value, k| try std.testing.expectEqual(value, noise.b[(k >> 2) * pair_lanes * 4 + (k & 3)]);
    }
}

test "EXP2, log2fix and loss" {
    const golden = try load();
    defer golden.deinit();
    try std.testing.expectEqualSlices(i32, &golden.value.primitives.exp2, &plain.exp2_table);
    for (golden.value.primitives.log2fix) |case| try std.testing.expectEqual(case[1], operators.log2fix(case[0]));
    for (golden.value.primitives.loss) |case| {
        const logits = try spread(case.logits);
        defer gpa.free(logits);
        const targets: [lanes]u8 = @splat(case.target);
        var losses: [lanes]i32 = @splat(1);
        kernels.egg_c.loss(&.{ .logits = logits.ptr, .targets = &targets, .losses = &losses, .vocabulary = 256, .groups = 1 });
        for (losses) |loss| try std.testing.expectEqual(case.loss + 1, loss);
    }
}

test "perturbed matrix product" {
    const golden = try load();
    defer golden.deinit();
    for (golden.value.primitives.matmul) |case| {
        const x = try spread(case.x);
        defer gpa.free(x);
        const out = try gpa.alloc(u8, layout.activationBytes(layout.alignUp(case.rows, 4), 1));
        defer gpa.free(out);
        const noise: Noise = try .init(hex(case.seed), case.rows, case.cols);
        defer noise.deinit();
        var dots: [lanes]i32 = undefined;
        kernels.noise_dot(&.{ .x = x.ptr, .b = noise.b.ptr, .b_sums = &noise.sums, .b_stride = 0, .dots = &dots, .cols = case.cols, .groups = 1 });
        kernels.matmul(&.{
            .x = x.ptr,
            .weights = case.W.ptr,
            .offsets = undefined, // the scalar tier stores nothing biased
            .out = out.ptr,
            .rows = case.rows,
            .cols = case.cols,
            .groups = 1,
            .shift = case.shift,
            .root = 1,
            .noise_max = 31,
            .perturb_shift = 8,
            .perturbed = @intFromBool(case.sign != 0),
            .a = noise.a.ptr,
            .a_stride = 0,
            .dots = &dots,
            .scratch = undefined,
            .ahead = undefined,
            .ahead_bytes = 0,
            .soon = undefined,
            .soon_bytes = 0,
        });
        expectLane(case.y, out, if (case.sign < 0) pair_lanes else 0) catch |err| {
            std.debug.print("{s}\n", .{case.name});
            return err;
        };
    }
}

test "layer norm" {
    const golden = try load();
    defer golden.deinit();
    for (golden.value.primitives.layer_norm) |case| {
        const x = try spread(case.x);
        defer gpa.free(x);
        kernels.egg_c.layer_norm(&.{ .x = x.ptr, .weight = case.w.ptr, .out = x.ptr, .width = @intCast(case.x.len), .groups = 1 });
        try expectLane(case.y, x, 3);
    }
}

test "gates" {
    const golden = try load();
    defer golden.deinit();
    const case = golden.value.primitives.gru_cell;
    const width: u32 = @intCast(case.f.len);
    const zeros: [64]i8 = @splat(0);
    const zero = try spread(zeros[0..width]);
    defer gpa.free(zero);
    const f = try spread(case.f);
    defer gpa.free(f);
    const h = try spread(case.h);
    defer gpa.free(h);
    const c = try spread(case.c);
    defer gpa.free(c);
    const g = try spread(zeros[0..width]);
    defer gpa.free(g);
    const same = try spread(zeros[0..width]);
    defer gpa.free(same);
    kernels.egg_c.forget_gate(&.{ .a = f.ptr, .b = zero.ptr, .bias = &zeros, .h = h.ptr, .f = same.ptr, .g = g.ptr, .width = width, .groups = 1 });
    try expectLane(case.f, same, 0);
    try expectLane(case.g, g, 0);
    kernels.egg_c.state_update(&.{ .a = c.ptr, .b = zero.ptr, .bias = &zeros, .f = f.ptr, .residual = zero.ptr, .h = h.ptr, .out = same.ptr, .width = width, .groups = 1 });
    try expectLane(case.h_new, h, 0);
    try expectLane(case.h_new, same, 0);
}

test "update" {
    const golden = try load();
    defer golden.deinit();
    const case = golden.value.primitives.update;
    const noise: Noise = try .init(hex(case.seed), case.rows, case.cols);
    defer noise.deinit();
    var fitness: [pair_lanes]i8 = @splat(0);
    for (case.fitness, 0..) |sign, pair| fitness[pair] = switch (sign) {
        '+' => 1,
        '-' => -1,
        else => 0,
    };
    var op: ops.Update = .{
        .weights = case.W.ptr,
        .offsets = undefined,
        .a = noise.a.ptr,
        .b = noise.b.ptr,
        .noise_stride = 0,
        .fitness = &fitness,
        .scratch = undefined,
        .votes = undefined,
        .rows = case.rows,
        .cols = case.cols,
        .groups = 1,
        .signs = 0,
        .bounds = .{ .above = case.threshold, .below = -case.threshold, .zero_falls = 0 },
        .first = 1,
        .last = 1,
        .changed = 0,
    };
    kernels.update(&op);
    try std.testing.expectEqualSlices(i8, case.W_new, case.W);
}
