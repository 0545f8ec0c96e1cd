// Every int8 kernel of every tier that this machine can run, against its scalar twin, bit for bit: awkward widths,
// tails, extremes. Cases are listed once. Read next: scalar.zig, vector.zig.
const std = @import("std");
const cpu = @import("../cpu.zig");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const Rule = @import("rule.zig").Rule;
const scalar = @import("scalar.zig");
const simd = @import("lanes.zig");

const gpa = std.testing.allocator;
const pair_lanes = layout.pair_lanes;
const group_lanes = layout.group_lanes;

/// The same values in an oracle buffer (unbiased) and in the tier's form.
pub const Both = struct {
    plain: []u8,
    tier: []u8,
    bias: u8,

    pub fn init(bytes: usize, bias: u8) !Both {
        const both: Both = .{ .plain = try gpa.alloc(u8, bytes), .tier = try gpa.alloc(u8, bytes), .bias = bias };
        @memset(both.plain, 0);
        @memset(both.tier, bias);
        return both;
    }
    pub fn deinit(both: Both) void {
        gpa.free(both.plain);
        gpa.free(both.tier);
    }
    pub fn fill(both: Both, random: std.Random, style: Style) void {
        for (both.plain, both.tier) |*p, *t| {
            p.* = @bitCast(value(random, style));
            t.* = p.* ^ both.bias;
        }
    }
    pub fn expectSame(both: Both) !void {
        for (both.plain, both.tier, 0..) |p, t, i| {
            if (p != t ^ both.bias) {
                std.debug.print("byte {d}: scalar {d}, tier {d}\n", .{ i, @as(i8, @bitCast(p)), @as(i8, @bitCast(t ^ both.bias)) });
                return error.TestUnexpectedResult;
            }
        }
    }
};

pub const Style = enum { any, small, extreme, zero };

fn value(random: std.Random, style: Style) i8 {
    return switch (style) {
        .any => random.intRangeAtMost(i8, -127, 127),
        .small => random.intRangeAtMost(i8, -3, 3),
        .extreme => if (random.boolean()) 127 else -127,
        .zero => 0,
    };
}

const rules = std.enums.values(Rule);
pub const styles = [_]Style{ .any, .small, .extreme, .zero };
pub const widths = [_]u32{ 16, 48, 64, 80, 128, 208 };

pub fn randomI8(random: std.Random, n: usize, low: i8, high: i8) ![]i8 {
    const values = try gpa.alloc(i8, n);
    for (values) |*v| v.* = random.intRangeAtMost(i8, low, high);
    return values;
}

/// Runs `case` for every available tier but the oracle itself.
pub fn everyTier(comptime case: fn (*const ops.Table, std.Random) anyerror!void) !void {
    var tiers: u32 = 0;
    for (std.enums.values(cpu.Tier)) |tier| {
        if (tier == .scalar or !cpu.available(tier)) continue;
        tiers += 1;
        var prng: std.Random.DefaultPrng = .init(std.testing.random_seed);
        case(tier.kernels().?, prng.random()) catch |err| {
            std.debug.print("tier {t}, seed 0x{x}\n", .{ tier, std.testing.random_seed });
            return err;
        };
    }
    if (tiers == 0) return error.SkipZigTest;
}

test "embed" {
    try everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            for (widths) |width| for ([_]u32{ 1, 2, 3 }) |groups| {
                const out: Both = try .init(layout.activationBytes(width, groups), @intCast(table.bias));
                defer out.deinit();
                const embedding = try randomI8(random, 256 * width, -127, 127);
                defer gpa.free(embedding);
                var tokens: [4 * group_lanes]u8 = undefined;
                random.bytes(&tokens);
                var op: ops.Embed = .{ .embedding = embedding.ptr, .tokens = &tokens, .out = out.plain.ptr, .width = width, .groups = groups };
                scalar.table.embed(&op);
                op.out = out.tier.ptr;
                table.embed(&op);
                try out.expectSame();
            };
        }
    }.case);
}

test "matmul, clean and perturbed" {
    try everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            const bias: u8 = @intCast(table.bias);
            for (widths) |cols| for ([_]u32{ 16, 48, 128 }) |rows| for ([_]u32{ 1, 2, 3, 4 }) |groups| for (styles) |style| {
                const x: Both = try .init(layout.activationBytes(cols, groups), bias);
                defer x.deinit();
                x.fill(random, style);
                const out: Both = try .init(layout.activationBytes(rows, groups), bias);
                defer out.deinit();
                const weights = try gpa.alloc(i8, rows * cols);
                defer gpa.free(weights);
                for (weights) |*w| w.* = value(random, if (style == .zero) .any else style);
                const offsets = try gpa.alloc(i32, rows);
                defer gpa.free(offsets);
                for (offsets, 0..) |*offset, r| {
                    offset.* = 0;
                    for (weights[r * cols ..][0..cols]) |w| offset.* -= w * @as(i32, bias);
                }
                const a = try randomI8(random, groups * rows * pair_lanes, -31, 31); // of either rule
                defer gpa.free(a);
                const scratch = try gpa.alignedAlloc(u8, .@"64", ops.matmulScratchBytes(cols, groups));
                defer gpa.free(scratch);
                var dots: [4 * group_lanes]i32 = undefined;
                for ([_]u32{ 0, 1, 1, 0, 1, 1, 1 }, [_]u32{ 1, 1, 3, 5, 11, 47, 127 }, [_]u32{ 31, 86, 86, 31, 86, 86, 31 }) |perturbed, root, noise_max| {
                    const products = cols * 127 * noise_max;
                    for (&dots) |*d| d.* = random.intRangeAtMost(i32, -@as(i32, @intCast(products)), @intCast(products));
                    var op: ops.Matmul = .{
                        .x = x.plain.ptr,
                        .weights = weights.ptr,
                        .offsets = offsets.ptr,
                        .out = out.plain.ptr,
                        .rows = rows,
                        .cols = cols,
                        .groups = groups,
                        .shift = if (root == 1) 8 + perturbed else 4,
                        .root = root,
                        .perturb_shift = 8,
                        .perturbed = perturbed,
                        .noise_max = noise_max,
                        .a = a.ptr,
                        .a_stride = rows * pair_lanes,
                        .dots = &dots,
                        .scratch = scratch.ptr,
                        .ahead = @ptrCast(a.ptr),
                        .ahead_bytes = rows * pair_lanes,
                        .soon = undefined,
                        .soon_bytes = 0,
                    };
                    scalar.table.matmul(&op);
                    op.x = x.tier.ptr;
                    op.out = out.tier.ptr;
                    table.matmul(&op);
                    try out.expectSame();
                }
            };
        }
    }.case);
}

test "noise fill and noise dot" {
    try everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            for (widths) |cols| for (widths) |rows| {
                const groups = 2;
                const block = layout.alignUp((rows + cols) * pair_lanes + 64, 64);
                const plain = try gpa.alignedAlloc(u8, .@"64", groups * block);
                defer gpa.free(plain);
                const tier = try gpa.alignedAlloc(u8, .@"64", groups * block);
                defer gpa.free(tier);
                @memset(plain, 0);
                @memset(tier, 0);
                for (0..groups) |g| {
                    const seed = random.int(u32);
                    for ([_][]align(64) u8{ plain, tier }, [_]*const ops.Table{ &scalar.table, table }) |noise, kernels| {
                        const start = noise.ptr + g * block;
                        kernels.noise_fill(&.{
                            .seed = seed,
                            .rows = rows,
                            .cols = cols,
                            .a = @ptrCast(start),
                            .b = @ptrCast(start + rows * pair_lanes),
                            .b_sums = @ptrCast(@alignCast(start + (rows + cols) * pair_lanes)),
                        });
                    }
                }
                try std.testing.expectEqualSlices(u8, plain, tier);

                const x: Both = try .init(layout.activationBytes(cols, groups), @intCast(table.bias));
                defer x.deinit();
                x.fill(random, .any);
                var dots: [2][groups * group_lanes]i32 = undefined;
                for ([_][]u8{ x.plain, x.tier }, [_]*const ops.Table{ &scalar.table, table }, &dots) |input, kernels, *out| {
                    kernels.noise_dot(&.{
                        .x = input.ptr,
                        .b = @ptrCast(plain.ptr + rows * pair_lanes),
                        .b_sums = @ptrCast(@alignCast(plain.ptr + (rows + cols) * pair_lanes)),
                        .b_stride = block,
                        .dots = out,
                        .cols = cols,
                        .groups = groups,
                    });
                }
                try std.testing.expectEqualSlices(i32, &dots[0], &dots[1]);
            };
        }
    }.case);
}

test "layer norm" {
    try everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            for (widths ++ [_]u32{4096}) |width| for ([_]u32{ 1, 2, 3 }) |groups| for (styles) |style| for (styles) |weight_style| {
                const x: Both = try .init(layout.activationBytes(width, groups), @intCast(table.bias));
                defer x.deinit();
                x.fill(random, style);
                const out: Both = try .init(x.plain.len, x.bias);
                defer out.deinit();
                const weight = try gpa.alloc(i8, x.plain.len); // as long as rules with vectors of each member take it
                defer gpa.free(weight);
                for (weight) |*w| w.* = value(random, weight_style);
                // Means below one are a case of their own.
                if (style == .small) for (0..x.plain.len / 4) |i| if (i % group_lanes < 5) {
                    @memset(x.plain[i * 4 ..][0..4], 0);
                    @memset(x.tier[i * 4 ..][0..4], x.bias);
                };
                for (rules) |rule| {
                    var op: ops.LayerNorm = .{ .x = x.plain.ptr, .weight = weight.ptr, .out = out.plain.ptr, .width = width, .groups = groups };
                    scalar.table.operators(rule).layer_norm(&op);
                    op.x = x.tier.ptr;
                    op.out = out.tier.ptr;
                    table.operators(rule).layer_norm(&op);
                    try out.expectSame();
                }
            };
        }
    }.case);
}

test "gates and residual" {
    try everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            const bias: u8 = @intCast(table.bias);
            for (widths) |width| for ([_]u32{ 1, 2, 3 }) |groups| for (styles) |style| {
                const bytes = layout.activationBytes(width, groups);
                var buffers: [8]Both = undefined;
                for (&buffers) |*buffer| {
                    buffer.* = try .init(bytes, bias);
                    buffer.fill(random, style);
                }
                defer for (buffers) |buffer| buffer.deinit();
                const vector = try randomI8(random, bytes, -127, 127);
                defer gpa.free(vector);
                const a, const b, const h, const f, const g, const residual, const out, const sum = buffers;
                for (rules) |rule| for ([_]*const ops.Table{ &scalar.table, table }, 0..) |kernels, side| {
                    const pick = struct {
                        fn pick(both: Both, which: usize) [*]u8 {
                            return if (which == 0) both.plain.ptr else both.tier.ptr;
                        }
                    }.pick;
                    kernels.operators(rule).forget_gate(&.{
                        .a = pick(a, side),
                        .b = pick(b, side),
                        .bias = vector.ptr,
                        .h = pick(h, side),
                        .f = pick(f, side),
                        .g = pick(g, side),
                        .width = width,
                        .groups = groups,
                    });
                    kernels.operators(rule).state_update(&.{
                        .a = pick(g, side),
                        .b = pick(b, side),
                        .bias = vector.ptr,
                        .f = pick(f, side),
                        .residual = pick(residual, side),
                        .h = pick(h, side),
                        .out = pick(out, side),
                        .width = width,
                        .groups = groups,
                    });
                    kernels.add(pick(a, side), pick(out, side), pick(sum, side), bytes);
                };
                for (buffers) |buffer| try buffer.expectSame();
            };
        }
    }.case);
}

test "loss" {
    try everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            for ([_]u32{ 16, 64, 256 }) |vocabulary| for ([_]u32{ 1, 2, 3 }) |groups| for (styles) |style| {
                const logits: Both = try .init(layout.activationBytes(vocabulary, groups), @intCast(table.bias));
                defer logits.deinit();
                logits.fill(random, style);
                var targets: [3 * group_lanes]u8 = undefined;
                for (&targets) |*t| t.* = @intCast(random.uintLessThan(u32, vocabulary));
                for (rules) |rule| {
                    var losses: [2][3 * group_lanes]i32 = @splat(@splat(1000));
                    for ([_][]u8{ logits.plain, logits.tier }, [_]*const ops.Table{ &scalar.table, table }, &losses) |input, kernels, *out| {
                        kernels.operators(rule).loss(&.{ .logits = input.ptr, .targets = &targets, .losses = out, .vocabulary = vocabulary, .groups = groups });
                    }
                    try std.testing.expectEqualSlices(i32, &losses[0], &losses[1]);
                }
            };
        }
    }.case);
}

test "update" {
    try everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            const scratch = try gpa.alignedAlloc(u8, .@"64", ops.update_scratch_bytes);
            defer gpa.free(scratch);
            for (widths) |cols| for ([_]u32{ 16, 48, 128 }) |rows| for ([_]u32{ 1, 2, 4, 33, 70 }) |groups| {
                if (groups > 4 and cols * rows > 80 * 48) continue;
                const block = (rows + cols) * pair_lanes;
                const votes = try gpa.alignedAlloc(i32, .@"64", rows * layout.alignUp(cols, ops.update_cols));
                defer gpa.free(votes);
                const noise = try randomI8(random, groups * block, -86, 86);
                defer gpa.free(noise);
                const fitness = try randomI8(random, groups * pair_lanes, -1, 1);
                defer gpa.free(fitness);
                const before = try randomI8(random, rows * cols, -127, 127);
                defer gpa.free(before);
                for (0..before.len / 8) |i| before[i * 8] = if (i & 1 == 0) 127 else -127;
                const plain = try gpa.dupe(i8, before);
                defer gpa.free(plain);
                const tier = try gpa.dupe(i8, before);
                defer gpa.free(tier);
                const offsets = try gpa.alloc(i32, rows);
                defer gpa.free(offsets);
                const votes_bound: i32 = @intCast(160 * groups);
                for ([_]ops.Bounds{
                    .{ .above = votes_bound, .below = -votes_bound, .zero_falls = 0 },
                    .{ .above = 3, .below = -3, .zero_falls = 0 },
                    .{ .above = 0, .below = 0, .zero_falls = 1 },
                }, [_]u32{ 0, 1, 1 }) |bounds, signs| {
                    @memcpy(plain, before);
                    @memcpy(tier, before);
                    @memset(offsets, 5);
                    var changed: [2]u32 = undefined;
                    for ([_][]i8{ plain, tier }, [_]*const ops.Table{ &scalar.table, table }, 0..) |weights, kernels, side| {
                        changed[side] = 0;
                        var first: u32 = 0;
                        while (first < groups) : (first += ops.update_groups) {
                            var op: ops.Update = .{
                                .weights = weights.ptr,
                                .offsets = offsets.ptr,
                                .a = noise.ptr + first * block,
                                .b = noise.ptr + first * block + rows * pair_lanes,
                                .noise_stride = block,
                                .fitness = fitness.ptr + first * pair_lanes,
                                .scratch = scratch.ptr,
                                .votes = votes.ptr,
                                .rows = rows,
                                .cols = cols,
                                .groups = @min(ops.update_groups, groups - first),
                                .signs = signs,
                                .bounds = bounds,
                                .first = @intFromBool(first == 0),
                                .last = @intFromBool(first + ops.update_groups >= groups),
                                .changed = 77,
                            };
                            kernels.update(&op);
                            changed[side] += op.changed;
                        }
                    }
                    try std.testing.expectEqualSlices(i8, plain, tier);
                    for (offsets, 0..) |offset, r| {
                        var moved: i32 = 0;
                        for (before[r * cols ..][0..cols], tier[r * cols ..][0..cols]) |old, new| moved += @as(i32, new) - old;
                        try std.testing.expectEqual(5 - moved * @as(i32, @intCast(table.bias)), offset);
                    }
                    try std.testing.expectEqual(changed[0], changed[1]);
                }
            };
        }
    }.case);
}

/// Rows of one member: [tokens][rowBytes(width)], raw zeros past the width.
fn initRows(tokens: usize, width: usize, bias: u8, random: std.Random, style: Style) !Both {
    const both: Both = try .init(tokens * ops.rowBytes(width), 0);
    for (0..tokens) |t| for (0..width) |k| {
        const at = t * ops.rowBytes(width) + k;
        both.plain[at] = @bitCast(value(random, style));
        both.tier[at] = both.plain[at] ^ bias;
    };
    return both;
}

fn expectSameRows(both: Both, tokens: usize, width: usize, bias: u8) !void {
    for (0..tokens) |t| for (0..ops.rowBytes(width)) |k| {
        const at = t * ops.rowBytes(width) + k;
        try std.testing.expectEqual(both.plain[at], both.tier[at] ^ if (k < width) bias else 0);
    };
}

test "division by a root, every quotient there is" {
    for (3..128) |root| {
        if (root & (root - 1) == 0) continue;
        const by: simd.Root = .init(@intCast(root));
        var n: i32 = -140 * @as(i32, @intCast(root));
        while (n <= 140 * @as(i32, @intCast(root))) : (n += 16) {
            const values: simd.V16 = @as(simd.V16, @splat(n)) + std.simd.iota(i32, 16);
            const quotients: [16]i32 = by.divide32(values);
            const short: [16]i16 = by.divide16(16, @truncate(values), struct {
                fn mulHigh(a: @Vector(16, u16), b: @Vector(16, u16)) @Vector(16, u16) {
                    return @truncate((@as(@Vector(16, u32), a) * b) >> @splat(16));
                }
            }.mulHigh);
            for (quotients, short, 0..) |q, q16, i| {
                const expected = @divFloor(n + @as(i32, @intCast(i)), @as(i32, @intCast(root)));
                try std.testing.expectEqual(@min(@max(expected, -128), 127), q);
                try std.testing.expectEqual(@min(@max(expected, -127), 127), @min(@max(q16, -127), 127));
            }
        }
    }
}

test "rows: matrix products and noise dots" {
    try everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            const bias: u8 = @intCast(table.bias);
            for (widths) |cols| for ([_]u32{ 16, 48, 128 }) |rows| for ([_]u32{ 1, 2, 3, 8 }) |count| for (styles) |style| for ([_]u32{ 0, 1, 3, 1 }, [_]u32{ 1, 1, 7, 127 }) |pairs, root| {
                const x = try initRows(count, cols, bias, random, style);
                defer x.deinit();
                const out = try initRows(count, rows, bias, random, .zero);
                defer out.deinit();
                const weights = try randomI8(random, rows * cols + 64, -127, 127);
                defer gpa.free(weights);
                const offsets = try gpa.alloc(i32, rows);
                defer gpa.free(offsets);
                for (offsets, 0..) |*offset, r| {
                    offset.* = 0;
                    for (weights[r * cols ..][0..cols]) |w| offset.* -= w * @as(i32, bias);
                }
                const block = rows + ops.rowBytes(cols);
                const noise = try randomI8(random, 3 * block, -31, 31);
                defer gpa.free(noise);
                var b_sums: [3]i32 = @splat(0);
                for (&b_sums, 0..) |*sum, pair| {
                    @memset(noise[pair * block + rows + cols .. (pair + 1) * block], 0);
                    for (noise[pair * block + rows ..][0..cols]) |b| sum.* += b;
                }
                var dots: [2][8]i32 = @splat(@splat(0));
                for (0..2) |side| {
                    const kernels = if (side == 0) &scalar.table else table;
                    const input = if (side == 0) x.plain.ptr else x.tier.ptr;
                    if (pairs != 0) kernels.rows_noise_dot(&.{
                        .x = input,
                        .b = noise.ptr + rows,
                        .b_stride = block,
                        .b_sums = &b_sums,
                        .pairs = pairs,
                        .dots = &dots[side],
                        .count = count,
                        .cols = cols,
                    });
                    kernels.rows_matmul(&.{
                        .x = input,
                        .weights = weights.ptr,
                        .offsets = offsets.ptr,
                        .out = if (side == 0) out.plain.ptr else out.tier.ptr,
                        .out_stride = ops.rowBytes(rows),
                        .count = count,
                        .rows = rows,
                        .cols = cols,
                        .shift = if (root == 1) 8 else 4,
                        .root = root,
                        .perturb_shift = 8,
                        .pairs = pairs,
                        .a = noise.ptr,
                        .a_stride = block,
                        .dots = &dots[side],
                    });
                }
                try std.testing.expectEqualSlices(i32, &dots[0], &dots[1]);
                try expectSameRows(out, count, rows, bias);
            };
        }
    }.case);
}

test "rows: layer norm, gates, loss" {
    try everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            const bias: u8 = @intCast(table.bias);
            for (widths ++ [_]u32{4096}) |width| for (styles) |style| for (styles) |weight_style| {
                const tokens = 3;
                const weight = try gpa.alloc(i8, width);
                defer gpa.free(weight);
                for (weight) |*w| w.* = value(random, weight_style);
                const x = try initRows(tokens, width, bias, random, style);
                defer x.deinit();
                const out = try initRows(tokens, width, bias, random, .any);
                defer out.deinit();
                var buffers: [7]Both = undefined;
                for (&buffers) |*buffer| buffer.* = try initRows(1, width, bias, random, style);
                defer for (buffers) |buffer| buffer.deinit();
                const a, const b, const h, const f, const g, const residual, const sum = buffers;
                for (rules) |rule| {
                    const oracle = scalar.table.operators(rule);
                    const operators = table.operators(rule);
                    oracle.rows_layer_norm(&.{ .x = x.plain.ptr, .weight = weight.ptr, .out = out.plain.ptr, .count = tokens, .width = width });
                    operators.rows_layer_norm(&.{ .x = x.tier.ptr, .weight = weight.ptr, .out = out.tier.ptr, .count = tokens, .width = width });
                    try expectSameRows(out, tokens, width, bias);

                    const sides = [2][7][*]u8{
                        .{ a.plain.ptr, b.plain.ptr, h.plain.ptr, f.plain.ptr, g.plain.ptr, residual.plain.ptr, sum.plain.ptr },
                        .{ a.tier.ptr, b.tier.ptr, h.tier.ptr, f.tier.ptr, g.tier.ptr, residual.tier.ptr, sum.tier.ptr },
                    };
                    for ([_]*const ops.Operators{ oracle, operators }, sides) |kernels, side| {
                        kernels.row_forget_gate(&.{ .a = side[0], .b = side[1], .bias = weight.ptr, .h = side[2], .f = side[3], .g = side[4], .width = width, .groups = 0 });
                        kernels.row_state_update(&.{
                            .a = side[4],
                            .b = side[1],
                            .bias = weight.ptr,
                            .f = side[3],
                            .residual = side[5],
                            .h = side[2],
                            .out = side[6],
                            .width = width,
                            .groups = 0,
                        });
                    }
                    for (buffers) |buffer| try expectSameRows(buffer, 1, width, bias);

                    if (width > 256) continue;
                    var losses: [2]i32 = undefined;
                    for ([_]*const ops.Operators{ oracle, operators }, [_][]u8{ x.plain, x.tier }, &losses) |kernels, logits, *loss| {
                        var op: ops.RowsLoss = .{ .logits = logits.ptr, .vocabulary = width, .target = width - 3, .loss = 0 };
                        kernels.rows_loss(&op);
                        loss.* = op.loss;
                    }
                    try std.testing.expectEqual(losses[0], losses[1]);
                }
            };
        }
    }.case);
}
