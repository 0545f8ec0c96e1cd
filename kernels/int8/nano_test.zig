// Rule nano-egg's parts against tests/golden/nano-egg.json, computed by an independent program: random numbers, tables, keys and noise;
// then every operation, on the scalar kernels, and three tokens on every tier. The other tiers are held against the scalar ones
// (twins_nano_test.zig); whole trainings: run_test.zig; scores and updates: tests/nano.test.ts.
const std = @import("std");
const cpu = @import("../cpu.zig");
const forward = @import("forward.zig");
const layout = @import("layout.zig");
const nano_egg = @import("nano_egg.zig");
const ops = @import("ops.zig");
const operators = @import("scalar_operators.zig");
const rule = @import("rule.zig");
const scalar = @import("scalar.zig");
const plain = @import("plain.zig");
const threefry = @import("threefry.zig");
const Model = @import("model.zig").Model;

const gpa = std.testing.allocator;
const lanes = layout.group_lanes;
const pair_lanes = layout.pair_lanes;
const kernels = &scalar.table;
const nano = &scalar.table.nano_egg;
const Sha256 = std.crypto.hash.sha2.Sha256;
const Words = [2][]const u8;

const Factors = struct { A: []i8, B: []i8 };
const Pairs = struct { z: []i8 };
const Golden = struct {
    prng: struct {
        threefry: []struct { key: Words, counter: Words, out: Words },
        keys: []struct { seed: u32, key: Words, fold_in: std.json.ArrayHashMap(Words), split_3: []Words, bits32_first_8: [][]const u8, bits32_at: []struct { u32, []const u8 } },
    },
    tables: struct { noise: struct { sha256: []const u8 }, init: struct { sha256: []const u8 } },
    noise_table_stream: struct { seed: u32, samples: []struct { start: u32, values: []i8 } },
    luts: struct {
        exp2: [256]i32,
        lse_thresholds: struct { first_k: i32, values: []i32 },
        lse: [][2]i32,
        division: struct { rows: u32, columns: u32, sha256: []const u8, entries: [][3]i32 },
    },
    keys: struct {
        config: struct { seed: u32 },
        noise_keys: std.json.ArrayHashMap(std.json.Value),
        threads: []u32,
        start_indices: []struct { leaf: []const u8, layer: ?u32, epoch: u32, noise_reuse: u32, length: u32, starts: []u32 },
        clamp: [][3]u32,
    },
    noise: struct { config: Config, epoch: u32, slices: []Slice },
    ops: struct {
        mm: []struct { inputs: u32, outputs: u32, sign: i8, sigma_shift: u32, x: []i8, W: []i8, A: []i8 = &.{}, B: []i8 = &.{}, y: []i8 },
        emb: []struct { sign: i8, sigma_shift: u32, row: []i8, A_t: i8, B: []i8, y: []i8 },
        vec: []struct { sign: i8, sigma_shift: u32, v: []i8, z: []i8 = &.{}, y: []i8 },
        ln: []struct { x: []i8, w: []i8, y: []i8 },
        gru: []struct {
            width: u32,
            sign: i8,
            sigma_shift: u32,
            x: []i8,
            s: []i8,
            Wf: []i8,
            Uf: []i8,
            Wh: []i8,
            Uh: []i8,
            bf: []i8,
            bh: []i8,
            noise: ?struct { Wf: Factors, Uf: Factors, Wh: Factors, Uh: Factors, bf: Pairs, bh: Pairs } = null,
            f: []i8,
            g: []i8,
            hhat: []i8,
            s_out: []i8,
        },
        mlp: []struct { width: u32, sign: i8, sigma_shift: u32, x: []i8, M0: []i8, M1: []i8, noise: ?struct { M0: Factors, M1: Factors } = null, hidden: []i8, y: []i8 },
        loss: []struct { logits: []i8, target: u8, exp_sum: i32, lse: i32, ll: i32 },
        votes: struct { F: []i8, A: []i8, B: []i8, pairs: u32, outputs: u32, inputs: u32, Z: []i32, Z_use_clt_off: []i32, vec_z: []i8, vec_Z: []i32, vec_Z_use_clt_off: []i32 },
        update_rule: [][5]i32,
        update_rule_use_clt_off: [][5]i32,
    },
    trace: struct {
        config: struct { seed: u32, width: u32, layers: u32, sigma_shift: u32 },
        epoch: u32,
        tokens: []u8,
        targets: []u8,
        runs: []struct { thread: ?u32, ll: []i32, last_token: std.json.ArrayHashMap([]i8) },
    },
};
const Config = struct { seed: u32, width: u32, layers: u32 };
const Slice = struct {
    leaf: []const u8,
    layer: ?u32,
    pair: u32,
    B_first_8: []i8 = &.{},
    A_first_8: []i8 = &.{},
    BA_sha256: []const u8 = "",
    product_first_8: []i32 = &.{},
    product_sha256_i32le: []const u8 = "",
};

fn load() !std.json.Parsed(Golden) {
    return std.json.parseFromSlice(Golden, gpa, @embedFile("nano-egg.json"), .{ .ignore_unknown_fields = true });
}

fn hex(text: []const u8) u32 {
    return std.fmt.parseInt(u32, text, 16) catch unreachable;
}

fn key(words: Words) threefry.Key {
    return .{ hex(words[0]), hex(words[1]) };
}

fn expectHash(expected: []const u8, bytes: []const u8) !void {
    var digest: [32]u8 = undefined;
    Sha256.hash(bytes, &digest, .{});
    try std.testing.expectEqualStrings(expected, &std.fmt.bytesToHex(digest, .lower));
}

/// The reference's name of a parameter.
fn placeOf(leaf: []const u8, layer: ?u32) layout.Place {
    const names = [_]struct { []const u8, layout.LayerTensor }{
        .{ "blocks.att.Uf", .uf }, .{ "blocks.att.Uh", .uh }, .{ "blocks.att.Wf", .wf }, .{ "blocks.att.Wh", .wh },    .{ "blocks.att.bf", .bf },
        .{ "blocks.att.bh", .bh }, .{ "blocks.ln1", .ln1 },   .{ "blocks.ln2", .ln2 },   .{ "blocks.mlp.0", .expand }, .{ "blocks.mlp.1", .project },
    };
    for (names) |name| if (std.mem.eql(u8, name[0], leaf)) return .{ .layer = .{ .index = layer.?, .tensor = name[1] } };
    if (std.mem.eql(u8, leaf, "emb")) return .{ .outer = .embedding };
    return .{ .outer = if (std.mem.eql(u8, leaf, "head")) .head else .ln_out };
}

test "threefry: blocks, keys, words" {
    const golden = try load();
    defer golden.deinit();
    for (golden.value.prng.threefry) |case| try std.testing.expectEqual(key(case.out), threefry.block(key(case.key), key(case.counter)));
    for (golden.value.prng.keys) |case| {
        const of_seed = threefry.keyOf(case.seed);
        try std.testing.expectEqual(key(case.key), of_seed);
        var folded = case.fold_in.map.iterator();
        while (folded.next()) |entry| {
            try std.testing.expectEqual(key(entry.value_ptr.*), threefry.foldIn(of_seed, try std.fmt.parseInt(u32, entry.key_ptr.*, 10)));
        }
        for (case.split_3, 0..) |one, i| try std.testing.expectEqual(key(one), threefry.foldIn(of_seed, @intCast(i)));
        for (case.bits32_first_8, 0..) |word, i| try std.testing.expectEqual(hex(word), threefry.word(of_seed, @intCast(i)));
        for (case.bits32_at) |at| try std.testing.expectEqual(hex(at[1]), threefry.word(of_seed, at[0]));
    }
}

test "the tables of normal values, and the stream of noise" {
    const golden = try load();
    defer golden.deinit();
    const table = try gpa.alloc(i8, 1 << 23);
    defer gpa.free(table);
    for (table, 0..) |*value, m| value.* = threefry.noise.value(@intCast(m));
    try expectHash(golden.value.tables.noise.sha256, @ptrCast(table));
    for (table, 0..) |*value, m| value.* = threefry.initial.value(@intCast(m));
    try expectHash(golden.value.tables.init.sha256, @ptrCast(table));
    const stream = golden.value.noise_table_stream;
    for (stream.samples) |sample| for (sample.values, 0..) |value, i| {
        const word = threefry.word(threefry.keyOf(stream.seed), sample.start + @as(u32, @intCast(i)));
        try std.testing.expectEqual(value, threefry.noise.value(word >> 9));
    };
}

test "EXP2, the log of a sum, and the table of divisions" {
    const golden = try load();
    defer golden.deinit();
    const luts = golden.value.luts;
    try std.testing.expectEqualSlices(i32, &luts.exp2, &plain.exp2_table);
    for (luts.lse) |case| try std.testing.expectEqual(case[1], operators.log2floor(case[0]));
    for (luts.lse_thresholds.values, 0..) |threshold, i| {
        const k = luts.lse_thresholds.first_k + @as(i32, @intCast(i));
        try std.testing.expectEqual(k, operators.log2floor(threshold));
        try std.testing.expectEqual(k - 1, operators.log2floor(threshold - 1));
    }
    for (luts.division.entries) |case| try std.testing.expectEqual(case[2], operators.quotient(.nano_egg, case[1], case[0]));
    const table = try gpa.alloc(i8, luts.division.rows * luts.division.columns);
    defer gpa.free(table);
    for (table, 0..) |*value, i| value.* = operators.quotient(.nano_egg, @as(i16, @bitCast(@as(u16, @truncate(i)))), @intCast(i >> 16));
    try expectHash(luts.division.sha256, @ptrCast(table));
}

test "keys and starts of the noise" {
    const golden = try load();
    defer golden.deinit();
    const keys = golden.value.keys;
    var named = keys.noise_keys.map.iterator();
    while (named.next()) |entry| {
        const items = entry.value_ptr.array.items;
        const layers: usize = if (items[0] == .array) items.len else 1;
        for (0..layers) |l| {
            const words = if (items[0] == .array) items[l].array.items else items;
            const expected: threefry.Key = .{ hex(words[0].string), hex(words[1].string) };
            const number = rule.Rule.nano_egg.numberOf(placeOf(entry.key_ptr.*, @intCast(l)));
            try std.testing.expectEqual(expected, nano_egg.noiseKey(keys.config.seed, number));
        }
    }
    for (keys.start_indices) |case| {
        const of = nano_egg.noiseKey(keys.config.seed, rule.Rule.nano_egg.numberOf(placeOf(case.leaf, case.layer)));
        const epoch = if (case.noise_reuse == 0) 0 else case.epoch / case.noise_reuse;
        for (keys.threads, case.starts) |thread, start| try std.testing.expectEqual(start, nano_egg.noiseStart(of, epoch, thread / 2, case.length));
    }
    for (keys.clamp) |case| try std.testing.expectEqual(case[2], nano_egg.clamped(case[0], case[1]));
}

test "noise of every parameter" {
    const golden = try load();
    defer golden.deinit();
    const config = golden.value.noise.config;
    var model: Model = undefined;
    try model.init(.{ .rule = .nano_egg, .layers = config.layers, .hidden = config.width, .vocabulary = 256 }, 0);
    defer model.deinit();
    const block = try gpa.alignedAlloc(u8, .@"64", model.noise_bytes);
    defer gpa.free(block);
    for (model.perturbed) |parameter| nano_egg.fillNoise(kernels, config.seed, golden.value.noise.epoch, parameter, 0, block.ptr + parameter.noise_a);
    for (golden.value.noise.slices) |slice| {
        const number = rule.Rule.nano_egg.numberOf(placeOf(slice.leaf, slice.layer));
        const parameter = for (model.perturbed) |one| {
            if (one.number == number) break one;
        } else unreachable;
        if (parameter.kind == .vector) {
            const products: [*]const i16 = @ptrCast(@alignCast(block.ptr + parameter.noise_a));
            const values = try gpa.alloc(i32, parameter.rows);
            defer gpa.free(values);
            for (values, 0..) |*value, r| value.* = products[r * pair_lanes + slice.pair];
            try std.testing.expectEqualSlices(i32, slice.product_first_8, values[0..8]);
            try expectHash(slice.product_sha256_i32le, std.mem.sliceAsBytes(values));
            continue;
        }
        const values = try gpa.alloc(i8, parameter.cols + parameter.rows);
        defer gpa.free(values);
        const a: [*]const i8 = @ptrCast(block.ptr + parameter.noise_a);
        const b: [*]const i8 = @ptrCast(block.ptr + parameter.noise_b);
        for (values[0..parameter.cols], 0..) |*value, k| value.* = b[((k >> 2) * pair_lanes + slice.pair) * 4 + (k & 3)];
        for (values[parameter.cols..], 0..) |*value, r| value.* = a[r * pair_lanes + slice.pair];
        try std.testing.expectEqualSlices(i8, slice.B_first_8, values[0..8]);
        try std.testing.expectEqualSlices(i8, slice.A_first_8, values[parameter.cols..][0..8]);
        try expectHash(slice.BA_sha256, @ptrCast(values));
        const sums: [*]align(1) const i32 = @ptrCast(block.ptr + parameter.noise_b_sums);
        var sum: i32 = 0;
        for (values[0..parameter.cols]) |value| sum += value;
        try std.testing.expectEqual(sum, sums[slice.pair]);
    }
}

/// A panel of one group with `values` in every lane.
fn spread(values: []const i8) ![]u8 {
    const buffer = try gpa.alloc(u8, layout.activationBytes(layout.alignUp(values.len, 4), 1));
    @memset(buffer, 0);
    for (values, 0..) |value, k| for (0..lanes) |lane| {
        buffer[((k >> 2) * lanes + lane) * 4 + (k & 3)] = @bitCast(value);
    };
    return buffer;
}

fn expectLane(expected: []const i8, buffer: [*]const u8, lane: usize) !void {
    for (expected, 0..) |value, k| try std.testing.expectEqual(value, @as(i8, @bitCast(buffer[((k >> 2) * lanes + lane) * 4 + (k & 3)])));
}

/// A lane of this sign: the first of a group is +, lane 16 is -. Clean weights (0) are the same in all.
fn laneOf(sign: i8) usize {
    return if (sign < 0) pair_lanes else 0;
}

/// The perturbed product of `x` in every lane, as a panel makes it.
fn product(x: []const u8, weights: []const i8, noise: ?Factors, inputs: u32, sigma_shift: u32) ![]u8 {
    const outputs: u32 = @intCast(weights.len / inputs);
    const out = try gpa.alloc(u8, layout.activationBytes(layout.alignUp(outputs, 4), 1));
    const a = try gpa.alloc(i8, outputs * pair_lanes);
    defer gpa.free(a);
    const b = try gpa.alloc(i8, layout.alignUp(inputs, 4) * pair_lanes);
    defer gpa.free(b);
    const sums: [pair_lanes]i32 = @splat(0); // for biased tiers only
    var dots: [lanes]i32 = undefined;
    if (noise) |n| {
        for (n.A, 0..) |value, r| @memset(a[r * pair_lanes ..][0..pair_lanes], value);
        for (n.B, 0..) |value, k| for (0..pair_lanes) |lane| {
            b[((k >> 2) * pair_lanes + lane) * 4 + (k & 3)] = value;
        };
        kernels.noise_dot(&.{ .x = x.ptr, .b = b.ptr, .b_sums = &sums, .b_stride = 0, .dots = &dots, .cols = inputs, .groups = 1 });
    }
    const scale = rule.Rule.nano_egg.scaleOf(.{ .outer = .head }, inputs);
    kernels.matmul(&.{
        .x = x.ptr,
        .weights = weights.ptr,
        .offsets = undefined,
        .out = out.ptr,
        .rows = outputs,
        .cols = inputs,
        .groups = 1,
        .shift = scale.shift,
        .root = scale.root,
        .perturb_shift = 4 + sigma_shift,
        .perturbed = @intFromBool(noise != null),
        .noise_max = 127,
        .a = a.ptr,
        .a_stride = 0,
        .dots = &dots,
        .scratch = undefined,
        .ahead = undefined,
        .ahead_bytes = 0,
        .soon = undefined,
        .soon_bytes = 0,
    });
    return out;
}

/// A vector as every lane has it; `pairs` are the two factors of each value's noise.
fn vectorOf(v: []const i8, pairs: ?[]const i8, sigma_shift: u32) ![]i8 {
    const out = try gpa.alloc(i8, layout.activationBytes(layout.alignUp(v.len, 4), 1));
    const noise = try gpa.alloc(i16, v.len * pair_lanes);
    defer gpa.free(noise);
    if (pairs) |z| for (0..v.len) |i| @memset(noise[i * pair_lanes ..][0..pair_lanes], @as(i16, z[2 * i]) * z[2 * i + 1]);
    kernels.perturb_vector(&.{
        .vector = v.ptr,
        .noise = noise.ptr,
        .noise_stride = 0,
        .perturbed = @intFromBool(pairs != null),
        .perturb_shift = 4 + sigma_shift,
        .out = out.ptr,
        .width = @intCast(v.len),
        .groups = 1,
    });
    return out;
}

test "matrix products, embedding, vectors" {
    const golden = try load();
    defer golden.deinit();
    for (golden.value.ops.mm) |case| {
        const x = try spread(case.x);
        defer gpa.free(x);
        const out = try product(x, case.W, if (case.sign == 0) null else .{ .A = case.A, .B = case.B }, case.inputs, case.sigma_shift);
        defer gpa.free(out);
        try expectLane(case.y, out.ptr, laneOf(case.sign));
    }
    for (golden.value.ops.emb) |case| {
        const x = try spread(case.row);
        defer gpa.free(x);
        const a: [pair_lanes]i8 = @splat(case.A_t);
        const b = try gpa.alloc(i8, case.B.len * pair_lanes);
        defer gpa.free(b);
        for (case.B, 0..) |value, k| for (0..pair_lanes) |lane| {
            b[((k >> 2) * pair_lanes + lane) * 4 + (k & 3)] = value;
        };
        const tokens: [lanes]u8 = @splat(0);
        kernels.perturb_embedded(&.{
            .tokens = &tokens,
            .a = &a,
            .b = b.ptr,
            .stride = 0,
            .perturb_shift = 4 + case.sigma_shift,
            .x = x.ptr,
            .width = @intCast(case.row.len),
            .groups = 1,
        });
        try expectLane(case.y, x.ptr, laneOf(case.sign));
    }
    for (golden.value.ops.vec) |case| {
        const out = try vectorOf(case.v, if (case.sign == 0) null else case.z, case.sigma_shift);
        defer gpa.free(out);
        try expectLane(case.y, @ptrCast(out.ptr), laneOf(case.sign));
    }
}

test "layer norm" {
    const golden = try load();
    defer golden.deinit();
    for (golden.value.ops.ln) |case| {
        const x = try spread(case.x);
        defer gpa.free(x);
        const w = try spread(case.w);
        defer gpa.free(w);
        const out = try gpa.alloc(u8, x.len);
        defer gpa.free(out);
        nano.layer_norm(&.{ .x = x.ptr, .weight = @ptrCast(w.ptr), .out = out.ptr, .width = @intCast(case.x.len), .groups = 1 });
        try expectLane(case.y, out.ptr, 3);
    }
}

test "GRU and MLP" {
    const golden = try load();
    defer golden.deinit();
    for (golden.value.ops.gru) |case| {
        const width = case.width;
        const lane = laneOf(case.sign);
        const zero = try gpa.alloc(i8, width);
        defer gpa.free(zero);
        @memset(zero, 0);
        const x = try spread(case.x);
        defer gpa.free(x);
        const s = try spread(case.s);
        defer gpa.free(s);
        const residual = try spread(zero);
        defer gpa.free(residual);
        var buffers: [3][]u8 = undefined;
        for (&buffers) |*buffer| buffer.* = try gpa.alloc(u8, x.len);
        defer for (buffers) |buffer| gpa.free(buffer);
        const f, const g, const out = buffers;
        const n = case.noise;
        for (0..2) |half| {
            const first = try product(x, if (half == 0) case.Wf else case.Wh, if (n) |noise| (if (half == 0) noise.Wf else noise.Wh) else null, width, case.sigma_shift);
            defer gpa.free(first);
            const of = if (half == 0) s else g;
            const second = try product(of, if (half == 0) case.Uf else case.Uh, if (n) |noise| (if (half == 0) noise.Uf else noise.Uh) else null, width, case.sigma_shift);
            defer gpa.free(second);
            const bias = try vectorOf(if (half == 0) case.bf else case.bh, if (n) |noise| (if (half == 0) noise.bf.z else noise.bh.z) else null, case.sigma_shift);
            defer gpa.free(bias);
            if (half == 0) {
                nano.forget_gate(&.{ .a = first.ptr, .b = second.ptr, .bias = bias.ptr, .h = s.ptr, .f = f.ptr, .g = g.ptr, .width = width, .groups = 1 });
                try expectLane(case.f, f.ptr, lane);
                try expectLane(case.g, g.ptr, lane);
                continue;
            }
            nano.state_update(&.{ .a = first.ptr, .b = second.ptr, .bias = bias.ptr, .f = f.ptr, .residual = residual.ptr, .h = s.ptr, .out = out.ptr, .width = width, .groups = 1 });
            try expectLane(case.s_out, s.ptr, lane);
            try expectLane(case.s_out, out.ptr, lane); // nothing was added to it
        }
    }
    for (golden.value.ops.mlp) |case| {
        const x = try spread(case.x);
        defer gpa.free(x);
        const hidden = try product(x, case.M0, if (case.noise) |noise| noise.M0 else null, case.width, case.sigma_shift);
        defer gpa.free(hidden);
        try expectLane(case.hidden, hidden.ptr, laneOf(case.sign));
        const y = try product(hidden, case.M1, if (case.noise) |noise| noise.M1 else null, 4 * case.width, case.sigma_shift);
        defer gpa.free(y);
        try expectLane(case.y, y.ptr, laneOf(case.sign));
    }
}

test "loss" {
    const golden = try load();
    defer golden.deinit();
    for (golden.value.ops.loss) |case| {
        try std.testing.expectEqual(case.lse, operators.log2floor(case.exp_sum));
        const logits = try spread(case.logits);
        defer gpa.free(logits);
        const targets: [lanes]u8 = @splat(case.target);
        var losses: [lanes]i32 = @splat(1);
        nano.loss(&.{ .logits = logits.ptr, .targets = &targets, .losses = &losses, .vocabulary = 256, .groups = 1 });
        for (losses) |loss| try std.testing.expectEqual(1 - case.ll, loss);
        var op: ops.RowsLoss = .{ .logits = @ptrCast(case.logits.ptr), .vocabulary = 256, .target = case.target, .loss = 0 };
        nano.rows_loss(&op);
        try std.testing.expectEqual(-case.ll, op.loss);
    }
}

test "votes, and what weights they move" {
    const golden = try load();
    defer golden.deinit();
    const votes = golden.value.ops.votes;
    const fitness: [pair_lanes]i8 = votes.F[0..6].* ++ @as([pair_lanes - 6]i8, @splat(0));
    const rows, const cols = .{ votes.outputs, votes.inputs };
    var a: [8 * pair_lanes]i8 = @splat(0);
    var b: [8 * pair_lanes]i8 = @splat(0);
    for (0..votes.pairs) |p| {
        for (0..rows) |r| a[r * pair_lanes + p] = votes.A[p * rows + r];
        for (0..cols) |k| b[((k >> 2) * pair_lanes + p) * 4 + (k & 3)] = votes.B[p * cols + k];
    }
    var products: [8 * pair_lanes]i16 = @splat(0);
    for (0..votes.pairs) |p| for (0..cols) |i| {
        products[i * pair_lanes + p] = @as(i16, votes.vec_z[(p * cols + i) * 2]) * votes.vec_z[(p * cols + i) * 2 + 1];
    };
    for ([_]u32{ 0, 1 }, [_][]const i32{ votes.Z, votes.Z_use_clt_off }, [_][]const i32{ votes.vec_Z, votes.vec_Z_use_clt_off }) |signs, z, vector_z| {
        var sums: [4 * ops.update_cols]i32 align(64) = undefined;
        var op: ops.Update = .{
            .weights = undefined,
            .offsets = undefined,
            .a = &a,
            .b = &b,
            .noise_stride = 0,
            .fitness = &fitness,
            .scratch = undefined,
            .votes = &sums,
            .rows = rows,
            .cols = cols,
            .groups = 1,
            .signs = signs,
            .bounds = undefined,
            .first = 1,
            .last = 0,
            .changed = 0,
        };
        kernels.update(&op);
        for (0..rows) |r| try std.testing.expectEqualSlices(i32, z[r * cols ..][0..cols], sums[r * ops.update_cols ..][0..cols]);
        var vector: ops.UpdateVector = .{
            .weights = undefined,
            .noise = &products,
            .noise_stride = 0,
            .fitness = &fitness,
            .votes = &sums,
            .rows = cols,
            .groups = 1,
            .signs = signs,
            .bounds = undefined,
            .first = 1,
            .last = 0,
            .changed = 0,
        };
        kernels.update_vector(&vector);
        try std.testing.expectEqualSlices(i32, vector_z, sums[0..cols]);
    }
    for ([_][][5]i32{ golden.value.ops.update_rule, golden.value.ops.update_rule_use_clt_off }, [_]bool{ false, true }) |cases, signs| {
        for (cases) |case| {
            // Votes that are already there, and pairs that add nothing.
            var weight: i8 = @intCast(case[0]);
            var vote = case[1];
            var op: ops.UpdateVector = .{
                .weights = @ptrCast(&weight),
                .noise = &products,
                .noise_stride = 0,
                .fitness = &@as([pair_lanes]i8, @splat(0)),
                .votes = @ptrCast(&vote),
                .rows = 1,
                .groups = 1,
                .signs = 0,
                .bounds = nano_egg.bounds(@intCast(case[2]), @intCast(case[3]), signs),
                .first = 0,
                .last = 1,
                .changed = 0,
            };
            kernels.update_vector(&op);
            try std.testing.expectEqual(case[4], weight);
            try std.testing.expectEqual(@as(u32, @intFromBool(case[4] != case[0])), op.changed);
        }
    }
}

test "every intermediate of three tokens" {
    const golden = try load();
    defer golden.deinit();
    const trace = golden.value.trace;
    for (std.enums.values(cpu.Tier)) |tier| {
        if (!cpu.available(tier)) continue;
        const table = tier.kernels().?;
        // A model of one layer has the first layer's weights and noise: what the second one wrote over is seen there.
        for ([_]u32{ 1, trace.config.layers }) |layers| for (trace.runs) |run| {
            var model: Model = undefined;
            try model.init(.{ .rule = .nano_egg, .layers = layers, .hidden = trace.config.width, .vocabulary = 256 }, table.bias);
            defer model.deinit();
            nano_egg.initialize(&model, trace.config.seed);
            for (0..model.tensors.len) |i| model.sumRows(i);
            const block = try gpa.alignedAlloc(u8, .@"64", model.noise_bytes);
            defer gpa.free(block);
            for (model.perturbed) |parameter| nano_egg.fillNoise(table, trace.config.seed, trace.epoch, parameter, 0, block.ptr + parameter.noise_a);
            const noise: ?forward.Noise = if (run.thread == null) null else .{ .block = block.ptr, .stride = 0, .perturb_shift = 4 + trace.config.sigma_shift };
            var panel: forward.Panel = undefined;
            try panel.init(&model, 1);
            defer panel.deinit();
            panel.perturbVectors(table, &model, noise);
            for (0..lanes) |lane| panel.loadState(table, lane, null);
            const lane: usize = if (run.thread == 1) pair_lanes else 0;
            for (trace.tokens, trace.targets, run.ll) |token, target, ll| {
                const tokens: [lanes]u8 = @splat(token);
                const targets: [lanes]u8 = @splat(target);
                try std.testing.expect(panel.token(table, &model, noise, &tokens, &.init(false)));
                var losses: [lanes]i32 = @splat(0);
                table.nano_egg.loss(&.{ .logits = panel.logits, .targets = &targets, .losses = &losses, .vocabulary = 256, .groups = 1 });
                if (layers == trace.config.layers) try std.testing.expectEqual(-ll, losses[lane]);
            }
            const of_layer = [_]struct { []const u8, [*]const u8 }{
                .{ "f", panel.f },           .{ "g", panel.g },    .{ "state", panel.h + (layers - 1) * panel.h_bytes },
                .{ "mlp0", panel.expanded }, .{ "mlp1", panel.a }, .{ "out", panel.x },
            };
            for (of_layer) |one| {
                var name: [16]u8 = undefined;
                try expectBiased(run.last_token.map.get(try std.fmt.bufPrint(&name, "L{d}.{s}", .{ layers - 1, one[0] })).?, one[1], lane, table.bias);
            }
            if (layers != trace.config.layers) continue;
            try expectBiased(run.last_token.map.get("ln_out").?, panel.norm, lane, table.bias);
            try expectBiased(run.last_token.map.get("logits").?, panel.logits, lane, table.bias);
        };
    }
}

fn expectBiased(expected: []const i8, buffer: [*]const u8, lane: usize, bias: u32) !void {
    for (expected, 0..) |value, k| {
        try std.testing.expectEqual(value, @as(i8, @bitCast(buffer[((k >> 2) * lanes + lane) * 4 + (k & 3)] ^ @as(u8, @intCast(bias)))));
    }
}
